//! Text with CEL expressions in it: `${node.name}` is filled in when a plan is made, `{link.mtu}` when a check is judged.

use crate::check::{Expr, Scope};
use serde_json::Value;

/// A compiled template.
#[derive(Clone, Debug)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Expr(Expr),
}

impl Template {
    /// Compiles text in which only `${...}` is an expression.
    pub fn plan(text: &str) -> Result<Self, String> {
        Self::compile(text, false)
    }

    /// Compiles text in which `{...}` is an expression too.
    pub fn say(text: &str) -> Result<Self, String> {
        Self::compile(text, true)
    }

    fn compile(text: &str, bare: bool) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, source, after)) = next_expression(rest, bare)? {
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Expr(Expr::compile(source).map_err(|e| format!("`{source}`: {e}"))?));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// The text as it is written, for those who read a definition and not a run.
    pub fn as_written(&self) -> String {
        let part = |part: &Part| match part {
            Part::Text(t) => t.clone(),
            Part::Expr(e) => format!("${{{}}}", e.source()),
        };
        self.parts.iter().map(part).collect()
    }

    /// The expressions in it.
    pub fn expressions(&self) -> impl Iterator<Item = &Expr> {
        self.parts.iter().filter_map(|p| match p {
            Part::Expr(e) => Some(e),
            Part::Text(_) => None,
        })
    }

    /// Fills in a value: text, or the expression's own type if the template is nothing but one expression.
    pub fn value(&self, scope: &Scope) -> Result<Value, String> {
        match self.parts.as_slice() {
            [Part::Expr(e)] => e.value(scope),
            _ => self.text(scope).map(Value::String),
        }
    }

    /// Fills in text; the first expression that has no value is the error.
    pub fn text(&self, scope: &Scope) -> Result<String, String> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(t) => out.push_str(t),
                Part::Expr(e) => out.push_str(&show(&e.value(scope)?)),
            }
        }
        Ok(out)
    }

    /// Fills in text for people: what has no value reads `(unknown)`, and secrets in URLs are masked.
    pub fn text_or_unknown(&self, scope: &Scope) -> String {
        let text: String = self
            .parts
            .iter()
            .map(|part| match part {
                Part::Text(t) => t.clone(),
                Part::Expr(e) => e.value(scope).map_or_else(|_| "(unknown)".to_owned(), |v| show(&v)),
            })
            .collect();
        crate::check::secret::mask(&text).into_owned()
    }
}

/// A value as people read it: text without quotes, lists with commas.
pub fn show(value: &Value) -> String {
    match value {
        Value::String(s) if s.is_empty() => "(none)".to_owned(),
        Value::String(s) => s.clone(),
        Value::Array(items) if items.is_empty() => "(none)".to_owned(),
        Value::Array(items) => items.iter().map(show).collect::<Vec<_>>().join(", "),
        Value::Number(n) if n.is_f64() => format!("{:.1}", n.as_f64().unwrap_or_default()),
        other => other.to_string(),
    }
}

/// Text before, source and text after the next expression.
fn next_expression(text: &str, bare: bool) -> Result<Option<(&str, &str, &str)>, String> {
    let Some(open) = text.find(if bare { "{" } else { "${" }) else { return Ok(None) };
    let dollar = text[..open].ends_with('$') || text[open..].starts_with('$');
    let before = &text[..if bare && dollar { open - 1 } else { open }];
    let inside = &text[open + if bare { 1 } else { 2 }..];
    let mut depth = 1;
    for (at, c) in inside.char_indices() {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        if depth == 0 {
            return Ok(Some((before, &inside[..at], &inside[at + 1..])));
        }
    }
    Err(format!("`{text}` has a brace that is not closed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fills_in_text_and_keeps_types() {
        let mut scope = Scope::new();
        scope.bind("node", json!({"name": "calypso", "port": 8472}));
        let text = |t: &str| Template::say(t).unwrap().text(&scope).unwrap();
        assert_eq!(text("on ${node.name}: {node.port + 1}!"), "on calypso: 8473!");
        assert_eq!(Template::plan("${node.port}").unwrap().value(&scope).unwrap(), json!(8472));
        assert_eq!(Template::plan("a {b} ${node.name}").unwrap().text(&scope).unwrap(), "a {b} calypso");
        assert_eq!(Template::plan("mtu[${node.name}->${peer.name}]").unwrap().as_written(), "mtu[${node.name}->${peer.name}]");
        assert_eq!(Template::say("{node.absent}").unwrap().text_or_unknown(&scope), "(unknown)");
        assert!(Template::plan("${node.name").is_err());
    }
}
