//! Label selectors: whom they match, and whom they nearly match.

use crate::check::clean;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Labels or an equality selector: key and value.
pub(super) type Labels = BTreeMap<String, String>;

/// Whether the labels carry every pair of the selector. An empty selector of a Service selects nothing.
pub(super) fn selects(selector: &Labels, labels: &Labels) -> bool {
    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// A selector as `kubectl -l` takes it.
pub(super) fn text(selector: &Labels) -> String {
    let pairs: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    clean(&pairs.join(","), 300)
}

/// The pods of a namespace by their labels: those with the same labels are counted together.
#[derive(Debug, Default)]
pub(super) struct Namespace(BTreeMap<Labels, usize>);

impl Namespace {
    /// Adds a pod.
    pub(super) fn add(&mut self, labels: Labels) {
        *self.0.entry(labels).or_default() += 1;
    }

    /// How many pods a selector selects.
    pub(super) fn matches(&self, selector: &Labels) -> usize {
        self.0.iter().filter(|(labels, _)| selects(selector, labels)).map(|(_, pods)| pods).sum()
    }

    /// The label that comes nearest to what the selector asks for, and how many pods carry it: `3 pods carry
    /// app.kubernetes.io/name=argilla`. Of equally near ones the most carried. Empty if no pod comes near.
    pub(super) fn near_miss(&self, selector: &Labels) -> String {
        let mut carriers: BTreeMap<(usize, String), usize> = BTreeMap::new();
        for (pod, pods) in &self.0 {
            for near in selector.iter().filter_map(|pair| near(pair, pod)) {
                *carriers.entry(near).or_default() += pods;
            }
        }
        match carriers.iter().min_by_key(|((edits, _), pods)| (*edits, Reverse(**pods))) {
            Some(((_, label), 1)) => clean(&format!("1 pod carries {label}"), 300),
            Some(((_, label), pods)) => clean(&format!("{pods} pods carry {label}"), 300),
            None => String::new(),
        }
    }
}

impl FromIterator<Labels> for Namespace {
    fn from_iter<I: IntoIterator<Item = Labels>>(pods: I) -> Self {
        let mut all = Self::default();
        pods.into_iter().for_each(|labels| all.add(labels));
        all
    }
}

/// The pod's label that looks like a pair it does not have, and how many edits apart: a similar value, or the value under another key.
fn near((key, value): (&String, &String), pod: &Labels) -> Option<(usize, String)> {
    let other = pod.get(key);
    if other == Some(value) {
        return None;
    }
    if let Some((edits, other)) = other.and_then(|other| Some((similar(value, other)?, other))) {
        return Some((edits, format!("{key}={other}")));
    }
    let moved = pod.iter().find(|(k, v)| *k != key && *v == value && !value.is_empty());
    moved.map(|(k, v)| (0, format!("{k}={v}")))
}

/// Edits between two values that are alike: at most two apart, and not because both are short.
fn similar(a: &str, b: &str) -> Option<usize> {
    // Two edits change at most two characters, of at most four bytes each.
    if a.len().abs_diff(b.len()) > 8 {
        return None;
    }
    let edits = edit_distance(a, b);
    (edits <= 2 && edits * 2 < a.chars().count().max(b.chars().count())).then_some(edits)
}

/// Levenshtein distance. Label values have at most 63 characters; longer ones are not compared.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_misspelt_value_and_a_misplaced_key_are_near_misses() {
        let argilla = labels(&[("app.kubernetes.io/name", "argilla"), ("tier", "web")]);
        let pods: Namespace = [argilla.clone(), argilla, labels(&[("app", "redis")])].into_iter().collect();
        let near = |key: &str, value: &str| pods.near_miss(&labels(&[(key, value)]));
        assert_eq!(near("app.kubernetes.io/name", "argila"), "2 pods carry app.kubernetes.io/name=argilla");
        assert_eq!(near("k8s-app", "redis"), "1 pod carries app=redis");
        assert_eq!(near("app", "elasticsearch"), "");
        assert_eq!((pods.matches(&labels(&[("tier", "web")])), pods.matches(&labels(&[("tier", "db")]))), (2, 0));
    }

    #[test]
    fn short_values_are_not_alike() {
        assert!(similar("a", "b").is_none() && similar("web", "db").is_none());
        assert_eq!((similar("argila", "argilla"), similar("csv-worker", "csv-workers")), (Some(1), Some(1)));
        assert_eq!(edit_distance("kitten", "sitting"), 3);
    }

    #[test]
    fn an_empty_selector_selects_nothing() {
        assert!(!selects(&Labels::new(), &labels(&[("a", "b")])));
        assert!(selects(&labels(&[("a", "b")]), &labels(&[("a", "b"), ("c", "d")])));
    }
}
