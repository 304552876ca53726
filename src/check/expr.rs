//! CEL expressions over facts, evaluated to true, false or *unknown*.

use super::fact::{Facts, lookup};
use kube_cel::KubeCelExt;
use kube_cel::cel::{self, Context, Program};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// A compiled CEL expression and its source.
#[derive(Clone)]
pub struct Expr {
    source: Arc<str>,
    program: Arc<Program>,
    roots: Arc<[String]>,
    reads: Arc<[Read]>,
}

/// What an expression reads of one root variable: only that is handed to CEL, for the inventory alone has hundreds of values.
struct Read {
    root: String,
    /// Keys from the root down, one list for each place; a place of no keys is the whole.
    places: Vec<Vec<String>>,
}

impl Read {
    fn of(root: &str, names: &[String]) -> Self {
        let places = names.iter().filter_map(|name| {
            let mut keys = name.split('.');
            (keys.next() == Some(root)).then(|| keys.take_while(|key| !key.is_empty()).map(str::to_owned).collect::<Vec<_>>())
        });
        let places: Vec<_> = places.collect();
        Self { root: root.to_owned(), places: if places.is_empty() { vec![Vec::new()] } else { places } }
    }

    fn from(&self, value: &Value) -> Value {
        let mut part = Value::Null;
        for place in &self.places {
            copy(value, &mut part, place);
        }
        part
    }
}

/// Copies what is at a place; above it, objects get only the keys that lead there.
fn copy(from: &Value, to: &mut Value, place: &[String]) {
    match (place, from) {
        ([key, rest @ ..], Value::Object(map)) => {
            if !to.is_object() {
                *to = Value::Object(Default::default());
            }
            if let (Some(below), Value::Object(copied)) = (map.get(key), to) {
                copy(below, copied.entry(key.clone()).or_insert(Value::Null), rest);
            }
        }
        _ => *to = from.clone(),
    }
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expr({:?})", self.source)
    }
}

/// Three-valued truth: an expression that touches an unknown fact is unknown, unless the rest decides it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It can't be decided, with the reason.
    Unknown(String),
}

/// The variables an expression can see: roots such as `link`, `node`, `inv`.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    vars: BTreeMap<String, Arc<Value>>,
    unknown: BTreeMap<String, String>,
}

impl Scope {
    /// An empty scope.
    pub fn new() -> Self {
        Self::default()
    }

    /// Binds a root variable.
    pub fn bind(&mut self, root: &str, value: impl Into<Arc<Value>>) -> &mut Self {
        self.vars.insert(root.to_owned(), value.into());
        self
    }

    /// Binds the facts of an observation under a root variable.
    pub fn bind_facts(&mut self, root: &str, facts: &Facts) -> &mut Self {
        for (path, reason) in facts.unknowns() {
            self.unknown.insert(format!("{root}.{path}"), reason.clone());
        }
        self.bind(root, Value::Object(facts.known().clone()))
    }

    /// Says that a whole root can't be observed.
    pub fn bind_unknown(&mut self, root: &str, reason: &str) -> &mut Self {
        self.unknown.insert(root.to_owned(), reason.to_owned());
        self
    }

    /// Adds one more known value below an already bound root.
    pub fn add(&mut self, root: &str, key: &str, value: Value) -> &mut Self {
        let bound = self.vars.entry(root.to_owned()).or_insert_with(|| Arc::new(Value::Object(Default::default())));
        if let Value::Object(map) = Arc::make_mut(bound) {
            map.insert(key.to_owned(), value);
        }
        self
    }

    /// Whether a root is bound.
    pub fn has(&self, root: &str) -> bool {
        self.vars.contains_key(root) || self.unknown.contains_key(root)
    }

    /// The value at a dotted path that starts with a root.
    pub fn get(&self, path: &str) -> Option<&Value> {
        let (root, rest) = path.split_once('.').map_or((path, None), |(a, b)| (a, Some(b)));
        let value = self.vars.get(root)?;
        rest.map_or(Some(value), |rest| lookup(value, rest))
    }

    /// Why a path is unknown, if it (or what it lies in, or something below it) is.
    fn why_unknown(&self, path: &str) -> Option<String> {
        let below = format!("{path}.");
        self.unknown
            .iter()
            .find(|(at, _)| *at == path || path.starts_with(&format!("{at}.")) || at.starts_with(&below))
            .map(|(at, reason)| format!("{at} is unknown: {reason}"))
    }

    fn execute(&self, program: &Program, reads: &[Read]) -> Result<cel::Value, cel::ExecutionError> {
        thread_local!(static FUNCTIONS: Context<'static> = Context::default().with_all());
        FUNCTIONS.with(|functions| {
            let mut context = functions.new_inner_scope();
            for (read, value) in reads.iter().filter_map(|read| Some((read, self.vars.get(&read.root)?))) {
                context.add_variable_from_value(read.root.clone(), to_cel(&read.from(value)));
            }
            program.execute(&context)
        })
    }
}

impl Expr {
    /// Compiles an expression; the error is one line. What many definitions say, such as `node.name`, is compiled once.
    pub fn compile(source: &str) -> Result<Self, String> {
        static COMPILED: Mutex<BTreeMap<String, Expr>> = Mutex::new(BTreeMap::new());
        let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(expr) = compiled.get(source) {
            return Ok(expr.clone());
        }
        let expr = Self::compile_anew(source)?;
        compiled.insert(source.to_owned(), expr.clone());
        Ok(expr)
    }

    fn compile_anew(source: &str) -> Result<Self, String> {
        match Program::compile(source) {
            Ok(program) => {
                let roots: Arc<[String]> =
                    program.references().variables().iter().filter(|v| !v.starts_with('@')).map(|v| (*v).to_owned()).collect();
                let names = names_in(source);
                let reads = roots.iter().map(|root| Read::of(root, &names)).collect();
                Ok(Self { source: source.into(), program: Arc::new(program), roots, reads })
            }
            Err(errors) => {
                let first = errors.to_string().lines().next().unwrap_or_default().trim().to_owned();
                Err(format!("not a CEL expression: {}", first.trim_start_matches("ERROR: <input>:")))
            }
        }
    }

    /// The text it was compiled from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Dotted paths that the expression reads, in order of appearance.
    pub fn paths(&self) -> Vec<String> {
        names_in(&self.source).into_iter().filter(|name| name.contains('.')).collect()
    }

    /// Functions that the expression calls.
    pub fn functions(&self) -> Vec<String> {
        self.program.references().functions().iter().map(|f| (*f).to_owned()).collect()
    }

    /// Root variables that the expression reads, the names bound by macros such as `exists` among them.
    pub fn roots(&self) -> &[String] {
        &self.roots
    }

    /// Evaluates to a truth value.
    pub fn truth(&self, scope: &Scope) -> Truth {
        match scope.execute(&self.program, &self.reads) {
            Ok(cel::Value::Bool(true)) => Truth::True,
            Ok(cel::Value::Bool(false)) => Truth::False,
            Ok(other) => Truth::Unknown(format!("`{}` is not true or false but {other:?}", self.source)),
            Err(error) => Truth::Unknown(self.explain(scope, &error.to_string())),
        }
    }

    /// Evaluates to a JSON value, for templates.
    pub fn value(&self, scope: &Scope) -> Result<Value, String> {
        match scope.execute(&self.program, &self.reads) {
            Ok(value) => Ok(from_cel(&value)),
            Err(error) => Err(self.explain(scope, &error.to_string())),
        }
    }

    /// The values of the facts that the expression reads, for evidence.
    pub fn values(&self, scope: &Scope) -> BTreeMap<String, Value> {
        self.paths()
            .into_iter()
            .filter_map(|path| {
                let value =
                    scope.get(&path).cloned().or_else(|| scope.why_unknown(&path).map(|r| Value::String(format!("unknown ({r})"))))?;
                (!value.is_object()).then(|| (path, masked(value)))
            })
            .collect()
    }

    fn explain(&self, scope: &Scope, error: &str) -> String {
        self.paths().iter().find_map(|path| scope.why_unknown(path)).unwrap_or_else(|| format!("`{}`: {error}", self.source))
    }
}

/// A value as reports may show it: without the secrets of URLs.
fn masked(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(super::secret::mask(&text).into_owned()),
        Value::Array(items) => Value::Array(items.into_iter().map(masked).collect()),
        Value::Object(map) => Value::Object(map.into_iter().map(|(key, value)| (key, masked(value))).collect()),
        other => other,
    }
}

/// Names and dotted paths in an expression's text: identifiers outside of string literals, a called method left off.
fn names_in(source: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut chars = source.char_indices().peekable();
    while let Some((start, c)) = chars.next() {
        if c == '\'' || c == '"' {
            let mut escaped = false;
            for (_, d) in chars.by_ref() {
                if d == c && !escaped {
                    break;
                }
                escaped = d == '\\' && !escaped;
            }
        } else if c.is_ascii_alphabetic() || c == '_' {
            let mut end = start + c.len_utf8();
            while let Some((at, d)) = chars.peek().copied() {
                if d.is_ascii_alphanumeric() || d == '_' || d == '.' {
                    end = at + d.len_utf8();
                    chars.next();
                } else {
                    break;
                }
            }
            let mut path = &source[start..end];
            if source[end..].starts_with('(') {
                path = path.rsplit_once('.').map_or("", |(object, _)| object);
            }
            if !path.is_empty() && !found.iter().any(|p| p == path) {
                found.push(path.to_owned());
            }
        }
    }
    found
}

fn to_cel(value: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(b) => (*b).into(),
        Value::Number(n) => n.as_i64().map_or_else(|| n.as_f64().unwrap_or(f64::NAN).into(), cel::Value::Int),
        Value::String(s) => s.clone().into(),
        Value::Array(items) => items.iter().map(to_cel).collect::<Vec<cel::Value>>().into(),
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), to_cel(v))).collect::<HashMap<String, cel::Value>>().into(),
    }
}

fn from_cel(value: &cel::Value) -> Value {
    match value {
        cel::Value::Bool(b) => Value::Bool(*b),
        cel::Value::Int(i) => Value::from(*i),
        cel::Value::UInt(u) => Value::from(*u),
        cel::Value::Float(f) => Value::from(*f),
        cel::Value::String(s) => Value::String(s.as_str().to_owned()),
        cel::Value::List(items) => Value::Array(items.iter().map(from_cel).collect()),
        cel::Value::Map(map) => {
            let mut entries: Vec<(String, Value)> = map.map.iter().map(|(k, v)| (key_text(k), from_cel(v))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().collect())
        }
        cel::Value::Null => Value::Null,
        other => Value::String(format!("{other:?}")),
    }
}

fn key_text(key: &cel::objects::Key) -> String {
    match key {
        cel::objects::Key::Int(i) => i.to_string(),
        cel::objects::Key::Uint(u) => u.to_string(),
        cel::objects::Key::Bool(b) => b.to_string(),
        cel::objects::Key::String(s) => s.as_str().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scope() -> Scope {
        let mut facts = Facts::new();
        facts.set("mtu", 1230).set("present", true).unknown("mac", "no permission");
        let mut scope = Scope::new();
        scope.bind_facts("link", &facts).bind("node", json!({"name": "calypso"}));
        scope
    }

    #[test]
    fn truth_has_three_values() {
        let truth = |s: &str| Expr::compile(s).unwrap().truth(&scope());
        assert_eq!(truth("link.mtu == 1280 - 50"), Truth::True);
        assert_eq!(truth("link.mtu > 1230"), Truth::False);
        assert_eq!(truth("link.mac == 'x'"), Truth::Unknown("link.mac is unknown: no permission".into()));
        assert_eq!(truth("link.present || link.mac == 'x'"), Truth::True);
        assert!(matches!(truth("link.nonsense == 1"), Truth::Unknown(_)));
    }

    #[test]
    fn paths_leave_strings_and_methods_out() {
        let expr = Expr::compile("link.name.startsWith('a.b') && !node.up || size(link.x) > 0").unwrap();
        assert_eq!(expr.paths(), ["link.name", "node.up", "link.x"]);
    }

    #[test]
    fn only_what_is_read_is_handed_over_and_all_of_that() {
        let whole = json!({"name": "a", "at": {"x": 1, "y": [{"z": 2}]}, "nothing": null});
        let read = |source: &str| {
            let expr = Expr::compile(source).unwrap();
            expr.reads[0].from(&whole)
        };
        assert_eq!(read("inv.name == 'a'"), json!({"name": "a"}));
        assert_eq!(read("inv.at.x == 1 && inv.nothing == null"), json!({"at": {"x": 1}, "nothing": null}));
        assert_eq!(read("inv.at.y[0].z == 2"), json!({"at": {"y": [{"z": 2}]}}));
        assert_eq!(read("inv.at.x == 1 && size(inv.at) == 2"), json!({"at": whole["at"]}));
        assert_eq!(read("size(inv.at) == 2 && inv.at.x == 1"), json!({"at": whole["at"]}));
        assert_eq!(read("has(inv.at.none) || inv.absent.x"), json!({"at": {}}));
        assert_eq!(read("inv['name'] == 'a' && inv.at.x == 1"), whole);
        assert_eq!(read("inv.name.size() == 1"), json!({"name": "a"}));
    }

    #[test]
    fn values_name_what_is_unknown() {
        let values = Expr::compile("link.mtu > 1 && link.mac != ''").unwrap().values(&scope());
        assert_eq!(values["link.mtu"], json!(1230));
        assert!(values["link.mac"].as_str().unwrap().starts_with("unknown"));
    }
}
