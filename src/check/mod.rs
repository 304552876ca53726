//! What a check is: facts, expressions over them, expectations, verdicts. Pure and synchronous.

pub mod expr;
pub mod fact;
pub mod judge;
pub mod secret;
pub mod verdict;

pub use expr::{Expr, Scope, Truth};
pub use fact::Facts;
pub use verdict::{Grade, Verdict};

use crate::def::Template;
use serde::{Deserialize, Serialize};

/// One expectation of a check, bound to an instance: what must hold, and what to say when it does not.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// The expression over facts that must hold.
    pub that: Expr,
    /// A stable code for machines.
    pub code: String,
    /// The sentence for when it does not hold; `{expr}` inserts values.
    pub say: Template,
    /// Whether it then is a failure or a warning.
    pub grade: Grade,
}

/// Raw evidence: a short text as the network gave it, cleaned of control characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Evidence {
    /// What kind of text it is: `packet`, `netlink`, `http`, `dns`, `error`, ...
    pub kind: String,
    /// The text, one or a few lines.
    pub text: String,
}

/// What one probe run observed.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// The facts, under the probe kind's root.
    pub facts: Facts,
    /// Short raw evidence.
    pub evidence: Vec<Evidence>,
    /// Set when the probe could not look at all; the verdict is then *unknown* with this reason.
    pub could_not_look: Option<String>,
}

impl Observation {
    /// An observation of a probe that could not look.
    pub fn could_not_look(reason: impl Into<String>) -> Self {
        Self { could_not_look: Some(reason.into()), ..Self::default() }
    }

    /// Adds evidence; text from the network is cleaned and cut here, so that no probe can forget to.
    pub fn note(&mut self, kind: &str, text: impl AsRef<str>) -> &mut Self {
        const MOST: usize = 64;
        if self.evidence.len() < MOST {
            self.evidence.push(Evidence { kind: kind.to_owned(), text: clean(text.as_ref(), 2000) });
        }
        self
    }
}

/// Makes text from the network safe to print: control characters (escape sequences among them) and characters that
/// nobody sees (bidirectional overrides among them) become visible, secrets in URLs are masked ([`secret::mask`]), and it is cut to `most`
/// characters. Newlines stay.
pub fn clean(text: &str, most: usize) -> String {
    let text = secret::mask(text);
    let mut out = String::with_capacity(text.len().min(most));
    for (n, c) in text.chars().enumerate() {
        if n >= most {
            out.push('…');
            break;
        }
        match c {
            '\n' => out.push('\n'),
            '\t' => out.push(' '),
            c if c.is_control() || is_unseen(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// Characters that show nothing themselves and change how the rest is read: the format characters of Unicode (general category
/// Cf) that take no part in writing a script, and its separators of lines and paragraphs.
fn is_unseen(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn escape_sequences_never_survive() {
        assert_eq!(clean("a\u{1b}[31mb\r\n\u{202e}c", 99), "a\\u{1b}[31mb\\u{d}\n\\u{202e}c");
        assert_eq!(clean("aaaa", 2), "aa…");
        // An Arabic letter mark turns the direction too, a tag is a letter that nobody sees.
        assert_eq!(clean("a\u{61c}\u{ad}b\u{2028}\u{2060}\u{e0041}c", 99), "a\\u{61c}\\u{ad}b\\u{2028}\\u{2060}\\u{e0041}c");
        assert_eq!(clean("naïve · Größe → 中文 🐙 سلام", 99), "naïve · Größe → 中文 🐙 سلام");
    }
}
