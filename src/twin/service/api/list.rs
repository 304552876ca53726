//! Lists: label and field selectors, `limit` and `continue`, `resourceVersion`.

use super::status::{Failure, bad_request, expired, too_large};
use crate::encoding::{base64, base64_decoded};
use crate::twin::cluster::{Objects, Resource, namespace_of};
use crate::twin::service::http::find;
use serde_json::{Value, json};

/// What a list or a watch is about.
#[derive(Debug)]
pub(super) struct Selection {
    pub(super) resource: Resource,
    namespace: Option<String>,
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

impl Selection {
    /// Reads the selectors of a query.
    pub(super) fn of(resource: Resource, namespace: Option<&str>, query: &[(String, String)]) -> Result<Self, Failure> {
        Ok(Self {
            resource,
            namespace: namespace.map(str::to_owned),
            labels: labels(find(query, "labelSelector").unwrap_or(""))?,
            fields: fields(resource, find(query, "fieldSelector").unwrap_or(""))?,
        })
    }

    /// Whether an object of the resource belongs to it.
    pub(super) fn holds(&self, object: &Value) -> bool {
        self.namespace.as_ref().is_none_or(|ns| namespace_of(object) == ns)
            && self.labels.iter().chain(&self.fields).all(|requirement| requirement.holds(object))
    }
}

/// The objects of a query and the list's metadata. A namespace that does not exist has an empty list. `oldest` is the version
/// from which on changes are known: a list that began before it cannot go on.
pub(super) fn list(
    objects: &Objects,
    resource: Resource,
    namespace: Option<&str>,
    query: &[(String, String)],
    goes_on: impl Fn(u64) -> bool,
) -> Result<(Value, Vec<Value>), Failure> {
    check_version(objects.version(), query)?;
    let selection = Selection::of(resource, namespace, query)?;
    let (start, version) = start(query)?.unwrap_or_else(|| (String::new(), objects.version()));
    if !goes_on(version) {
        return Err(expired(version));
    }
    let found: Vec<(&str, &Value)> = objects.list(resource).filter(|(key, object)| **key >= *start && selection.holds(object)).collect();
    let limit = find(query, "limit").and_then(|l| l.parse::<usize>().ok()).filter(|l| *l > 0).unwrap_or(usize::MAX);
    let page: Vec<Value> = found.iter().take(limit).map(|(_, object)| (*object).clone()).collect();
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if let Some((last, _)) = found.get(limit.wrapping_sub(1)).filter(|_| found.len() > limit) {
        metadata["continue"] = json!(continue_token(version, last));
        if selection.labels.is_empty() && selection.fields.is_empty() {
            metadata["remainingItemCount"] = json!(found.len() - limit);
        }
    }
    Ok((metadata, page))
}

fn check_version(current: u64, query: &[(String, String)]) -> Result<(), Failure> {
    let Some(text) = find(query, "resourceVersion").filter(|v| !v.is_empty()) else { return Ok(()) };
    match text.parse::<u64>() {
        Ok(asked) if asked > current => Err(too_large(asked, current)),
        Ok(_) => Ok(()),
        Err(_) => Err(bad_request("resourceVersion: Invalid value: strconv.ParseUint: invalid syntax")),
    }
}

/// The token of apimachinery: base64url without padding of where to go on.
fn continue_token(version: u64, last_key: &str) -> String {
    let token = json!({"v": "meta.k8s.io/v1", "rv": version, "start": format!("{last_key}\0")});
    base64(token.to_string().as_bytes()).trim_end_matches('=').replace('+', "-").replace('/', "_")
}

/// The key to start from and the version of the list that goes on; `None` for a new list.
fn start(query: &[(String, String)]) -> Result<Option<(String, u64)>, Failure> {
    let Some(token) = find(query, "continue").filter(|t| !t.is_empty()) else { return Ok(None) };
    let read = base64_decoded(token).and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    read.and_then(|token| Some(Some((token["start"].as_str()?.to_owned(), token["rv"].as_u64()?))))
        .ok_or_else(|| bad_request("invalid continue token: continue key is not valid: invalid character looking for beginning of value"))
}

/// One requirement of a selector.
#[derive(Debug, PartialEq, Eq)]
struct Requirement {
    place: Place,
    test: Test,
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    Label(String),
    Field(String),
}

#[derive(Debug, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
}

impl Requirement {
    fn holds(&self, object: &Value) -> bool {
        let value = match &self.place {
            Place::Label(name) => object["metadata"]["labels"].get(name),
            Place::Field(path) => object.pointer(&format!("/{}", path.replace('.', "/"))),
        };
        let value = value.and_then(Value::as_str);
        match &self.test {
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
            // A field that an object lacks counts as empty; a label that it lacks matches nothing.
            Test::In(values) if matches!(self.place, Place::Field(_)) => values.iter().any(|v| v == value.unwrap_or("")),
            Test::In(values) => value.is_some_and(|value| values.iter().any(|v| v == value)),
            Test::NotIn(values) => !values.iter().any(|v| Some(v.as_str()) == value),
        }
    }
}

/// Splits at commas outside of parentheses.
fn terms(selector: &str) -> Vec<&str> {
    let mut depth = 0;
    let split = selector.split(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    split.map(str::trim).filter(|term| !term.is_empty()).collect()
}

fn comparison(term: &str) -> Option<(&str, Test)> {
    let split = |operator: &str| term.split_once(operator).map(|(name, value)| (name.trim(), value.trim().to_owned()));
    if let Some((name, value)) = split("!=") {
        return Some((name, Test::NotIn(vec![value])));
    }
    split("==").or_else(|| split("=")).map(|(name, value)| (name, Test::In(vec![value])))
}

fn set(term: &str) -> Option<(&str, Test)> {
    let (head, values) = term.strip_suffix(')')?.split_once('(')?;
    let values = values.split(',').map(|v| v.trim().to_owned()).collect();
    let (name, operator) = head.trim().split_once(' ')?;
    match operator.trim() {
        "in" => Some((name, Test::In(values))),
        "notin" => Some((name, Test::NotIn(values))),
        _ => None,
    }
}

fn labels(selector: &str) -> Result<Vec<Requirement>, Failure> {
    let requirement = |term: &str| {
        let (name, test) = match (set(term), comparison(term), term.strip_prefix('!')) {
            (Some(found), _, _) | (None, Some(found), _) => found,
            (None, None, Some(name)) => (name, Test::Absent),
            (None, None, None) => (term, Test::Exists),
        };
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        if name.is_empty() || !name.chars().all(valid) {
            let word = term.split_whitespace().nth(1).unwrap_or(term);
            return Err(bad_request(&format!("unable to parse requirement: found '{word}', expected: in, notin, =, ==, !=, gt, lt")));
        }
        Ok(Requirement { place: Place::Label(name.to_owned()), test })
    };
    terms(selector).into_iter().map(requirement).collect()
}

/// Fields that each resource can be selected by (kubernetes `pkg/apis/*/v1/conversion.go`).
fn known_field(resource: Resource, path: &str) -> bool {
    let more: &[&str] = match resource {
        Resource::Pods => {
            &["spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "status.phase", "status.podIP"]
        }
        Resource::Nodes => &["spec.unschedulable"],
        Resource::Namespaces => &["status.phase"],
        Resource::Services => &["spec.clusterIP", "spec.type"],
        Resource::Events => {
            &["involvedObject.kind", "involvedObject.name", "involvedObject.namespace", "involvedObject.uid", "reason", "type"]
        }
        _ => &[],
    };
    path == "metadata.name" || path == "metadata.namespace" || more.contains(&path)
}

fn fields(resource: Resource, selector: &str) -> Result<Vec<Requirement>, Failure> {
    let requirement = |term: &str| {
        let (path, test) =
            comparison(term).ok_or_else(|| bad_request(&format!("invalid selector: '{term}'; can't understand '{term}'")))?;
        if !known_field(resource, path) {
            return Err(bad_request(&format!("field label not supported: {path}")));
        }
        Ok(Requirement { place: Place::Field(path.to_owned()), test })
    };
    terms(selector).into_iter().map(requirement).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_selectors_are_read_as_kubectl_writes_them() {
        let read = labels("app=a, tier in (x,y),!gone,there,k!=v").unwrap();
        let object = json!({"metadata": {"labels": {"app": "a", "tier": "y", "there": "1"}}});
        assert_eq!(read.len(), 5);
        assert!(read.iter().all(|r| r.holds(&object)));
        assert_eq!(
            labels("a b").unwrap_err().body["message"],
            "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"
        );
    }
}
