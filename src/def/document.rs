//! A TOML file with its text, so that every message can name file and line.

use serde::de::DeserializeOwned;
use std::fmt;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// A definition file.
#[derive(Clone, Debug)]
pub struct Document {
    /// Path as shown in messages; built-in files have a relative one.
    pub path: String,
    /// The whole text.
    pub text: String,
}

/// Something wrong in a definition file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// File.
    pub path: String,
    /// Line, from 1.
    pub line: usize,
    /// One sentence.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// A step into a document: a key, or an element of an array.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// Table key.
    Key(&'a str),
    /// Array index.
    At(usize),
}

impl Document {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, Finding> {
        let shown = path.display().to_string();
        match super::text_file::read(path) {
            Ok(text) => Ok(Self { path: shown, text }),
            Err(e) => Err(Finding { path: shown, line: 1, message: format!("cannot be read: {e}") }),
        }
    }

    /// Decodes the whole file; the finding points at the line.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Finding> {
        toml::from_str(&self.text).map_err(|error| {
            let line = error.span().map_or(1, |span| self.line_at(span.start));
            self.finding(line, error.message().lines().next().unwrap_or("is not valid TOML"))
        })
    }

    /// A finding in this file.
    pub fn finding(&self, line: usize, message: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, message: message.into() }
    }

    /// The line of a key or array element; the deepest one that exists.
    pub fn line_of(&self, steps: &[Step<'_>]) -> usize {
        let Ok(table) = DeTable::parse(&self.text) else { return 1 };
        let mut at = 0;
        let mut value: Option<&DeValue<'_>> = None;
        for step in steps {
            let next = match (step, value) {
                (Step::Key(key), None) => table.get_ref().get_key_value(*key),
                (Step::Key(key), Some(DeValue::Table(inner))) => inner.get_key_value(*key),
                (Step::At(index), Some(DeValue::Array(items))) => {
                    let Some(item) = items.get(*index) else { break };
                    at = item.span().start;
                    value = Some(item.get_ref());
                    continue;
                }
                _ => None,
            };
            let Some((key, found)) = next else { break };
            at = key.span().start;
            value = Some(found.get_ref());
        }
        self.line_at(at)
    }

    fn line_at(&self, offset: usize) -> usize {
        self.text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_keys_and_elements() {
        let doc = Document { path: "x.toml".into(), text: "id = 1\n[with]\nname = 2\n[[expect]]\nthat = 3\n[[expect]]\nthat = 4\n".into() };
        assert_eq!(doc.line_of(&[Step::Key("with"), Step::Key("name")]), 3);
        assert_eq!(doc.line_of(&[Step::Key("expect"), Step::At(1), Step::Key("that")]), 7);
        assert_eq!(doc.line_of(&[Step::Key("with"), Step::Key("absent")]), 2);
    }
}
