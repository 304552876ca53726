//! Facts: named, typed values that a probe observed, or *unknown* with the reason.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The facts of one observation: a tree of JSON values addressed by dotted paths (`link.mtu` is path `mtu` of a kind
/// whose root is `link`). A fact that could not be observed is *unknown*, which is neither absent nor false.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    known: Map<String, Value>,
    unknown: BTreeMap<String, String>,
}

impl Facts {
    /// No facts yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records a known value. Whole numbers are kept signed: CEL does not mix signed and unsigned arithmetic.
    pub fn set(&mut self, path: &str, value: impl Into<Value>) -> &mut Self {
        insert(&mut self.known, path, signed(value.into()));
        self.unknown.remove(path);
        self
    }

    /// Records a value if there is one, else that it is unknown and why.
    pub fn set_or_unknown<T: Into<Value>>(&mut self, path: &str, value: Option<T>, reason: &str) -> &mut Self {
        match value {
            Some(v) => self.set(path, v),
            None => self.unknown(path, reason),
        }
    }

    /// Records that a value could not be observed. A value that is already known stays known.
    pub fn unknown(&mut self, path: &str, reason: impl Into<String>) -> &mut Self {
        if self.get(path).is_none() {
            self.unknown.insert(path.to_owned(), reason.into());
        }
        self
    }

    /// The known value at a path.
    pub fn get(&self, path: &str) -> Option<&Value> {
        lookup_map(&self.known, path)
    }

    /// The known values as one JSON object.
    pub fn known(&self) -> &Map<String, Value> {
        &self.known
    }

    /// Paths that are unknown, with the reasons.
    pub fn unknowns(&self) -> &BTreeMap<String, String> {
        &self.unknown
    }

    /// Whether nothing at all was observed.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty() && self.unknown.is_empty()
    }

    /// The tree for a report: unknown leaves are `{"unknown": "reason"}`.
    pub fn to_json(&self) -> Value {
        let mut tree = self.known.clone();
        for (path, reason) in &self.unknown {
            insert(&mut tree, path, json!({ "unknown": reason }));
        }
        Value::Object(tree)
    }

    /// The reverse of [`Facts::to_json`].
    pub fn from_json(tree: &Value) -> Self {
        let mut facts = Self::new();
        if let Value::Object(map) = tree {
            facts.absorb(map, "");
        }
        facts
    }

    fn absorb(&mut self, map: &Map<String, Value>, prefix: &str) {
        for (key, value) in map {
            let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match value {
                Value::Object(inner) if inner.len() == 1 && inner.get("unknown").is_some_and(Value::is_string) => {
                    self.unknown.insert(path, inner["unknown"].as_str().unwrap_or_default().to_owned());
                }
                Value::Object(inner) if !inner.is_empty() => self.absorb(inner, &path),
                other => {
                    insert(&mut self.known, &path, other.clone());
                }
            }
        }
    }
}

/// Looks a dotted path up in a JSON value.
pub fn lookup<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |v, key| v.as_object()?.get(key))
}

fn lookup_map<'a>(map: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(a, b)| (a, Some(b)));
    let value = map.get(first)?;
    rest.map_or(Some(value), |rest| lookup(value, rest))
}

fn insert(map: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            map.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            let slot = map.entry(first).or_insert_with(|| json!({}));
            if !slot.is_object() {
                *slot = json!({});
            }
            if let Value::Object(inner) = slot {
                insert(inner, rest, value);
            }
        }
    }
}

fn signed(value: Value) -> Value {
    match value {
        Value::Number(n) if n.is_u64() => json!(i64::try_from(n.as_u64().unwrap_or_default()).unwrap_or(i64::MAX)),
        Value::Array(items) => Value::Array(items.into_iter().map(signed).collect()),
        Value::Object(map) => Value::Object(map.into_iter().map(|(k, v)| (k, signed(v))).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_survives_a_round_trip_and_yields_to_a_known_value() {
        let mut facts = Facts::new();
        facts.set("link.mtu", 1230_u32).unknown("link.mac", "no netlink").unknown("link.mtu", "ignored");
        assert_eq!(facts.to_json(), json!({"link": {"mtu": 1230, "mac": {"unknown": "no netlink"}}}));
        assert_eq!(Facts::from_json(&facts.to_json()), facts);
    }
}
