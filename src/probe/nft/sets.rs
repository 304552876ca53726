//! Sets and maps of nf_tables: what is in them, and what a key finds.

use super::expression::Value;
use super::wire::{self, Message, What, attributes, find, number, text};
use crate::vantage::Net;
use std::collections::HashMap;
use std::rc::Rc;

/// NFT_SET_INTERVAL: an element is the beginning of a range, or the end of one.
pub(super) const INTERVAL: u32 = 4;
/// NFT_SET_ELEM_INTERVAL_END.
const INTERVAL_END: u32 = 1;

/// Family (as nf_tables numbers it), table, set.
pub(super) type SetKey = (u8, String, String);

/// One element.
#[derive(Clone, Debug, Default)]
pub(super) struct Element {
    pub(super) key: Vec<u8>,
    /// Data of a map.
    pub(super) value: Option<Value>,
    ends: bool,
}

/// A set with its elements.
#[derive(Clone, Debug, Default)]
pub(super) struct Set {
    pub(super) elements: Vec<Element>,
    interval: bool,
    /// Ranges of concatenated keys: not followed.
    concatenated_ranges: bool,
}

/// What a key finds.
#[derive(Debug)]
pub(super) enum Found<'a> {
    One(&'a Element),
    Nothing,
    /// The key, or the kind of set, does not allow to say: any element, or none.
    Any,
}

impl Set {
    /// From the list of its elements.
    pub(super) fn of(messages: &[Message], interval: bool) -> Self {
        let mut set = Self { interval, ..Self::default() };
        for (_, element) in messages.iter().filter_map(|m| find(&m.body, 3)).flat_map(attributes) {
            set.concatenated_ranges |= find(element, 10).is_some();
            set.elements.extend(decode(element));
        }
        set
    }

    pub(super) fn find(&self, key: &[Option<u8>]) -> Found<'_> {
        let known: Option<Vec<u8>> = key.iter().copied().collect();
        match known {
            _ if self.concatenated_ranges => Found::Any,
            None if self.elements.is_empty() => Found::Nothing,
            None => Found::Any,
            Some(key) if self.interval => {
                let last = self.elements.iter().filter(|e| e.key <= key).max_by(|a, b| a.key.cmp(&b.key));
                last.filter(|e| !e.ends).map_or(Found::Nothing, Found::One)
            }
            Some(key) => self.elements.iter().find(|e| e.key == key).map_or(Found::Nothing, Found::One),
        }
    }
}

/// Sets by name, read when they are asked for.
pub(super) struct Sets {
    net: Option<Net>,
    intervals: HashMap<SetKey, bool>,
    read: HashMap<SetKey, Rc<Set>>,
}

impl Sets {
    /// Reads which sets there are.
    pub(super) fn of(net: &Net) -> std::io::Result<Self> {
        let mut intervals = HashMap::new();
        for message in wire::dump(net, What::Sets)? {
            let body = &message.body;
            if let (Some(table), Some(name)) = (text(body, 1), text(body, 2)) {
                intervals.insert((message.family, table, name), number(body, 3).unwrap_or_default() & INTERVAL != 0);
            }
        }
        Ok(Self { net: Some(net.clone()), intervals, read: HashMap::new() })
    }

    /// Sets that were read before, for tests.
    #[cfg(test)]
    pub(super) fn known(read: HashMap<SetKey, Rc<Set>>) -> Self {
        Self { net: None, intervals: HashMap::new(), read }
    }

    /// The set of a name; an error if the kernel does not give its elements.
    pub(super) fn get(&mut self, key: &SetKey) -> std::io::Result<Rc<Set>> {
        if let Some(set) = self.read.get(key) {
            return Ok(set.clone());
        }
        let Some(net) = &self.net else { return Err(std::io::ErrorKind::NotFound.into()) };
        let interval = self.intervals.get(key).copied().unwrap_or(false);
        let set = Set::of(&wire::dump_set(net, key)?, interval);
        let set = Rc::new(set);
        self.read.insert(key.clone(), set.clone());
        Ok(set)
    }
}

fn decode(element: &[u8]) -> Option<Element> {
    let key = find(find(element, 1)?, 1)?.to_vec();
    let value = find(element, 2).and_then(Value::read);
    Some(Element { key, value, ends: number(element, 3).unwrap_or_default() & INTERVAL_END != 0 })
}

#[cfg(test)]
impl Set {
    /// A verdict map.
    pub(super) fn verdicts(entries: &[(&[u8], i32, &str)]) -> Self {
        let element = |(key, code, chain): &(&[u8], i32, &str)| Element {
            key: key.to_vec(),
            value: Some(Value::Verdict(*code, (*chain).to_owned())),
            ends: false,
        };
        Self { elements: entries.iter().map(element).collect(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(key: u8, ends: bool) -> Element {
        Element { key: vec![key], value: None, ends }
    }

    #[test]
    fn keys_find_elements_and_ranges() {
        let plain = Set { elements: vec![element(3, false), element(5, false)], ..Set::default() };
        assert!(matches!(plain.find(&[Some(5)]), Found::One(e) if e.key == [5]));
        assert!(matches!(plain.find(&[Some(4)]), Found::Nothing));
        assert!(matches!(plain.find(&[None]), Found::Any));
        let ranges = Set { elements: vec![element(0, true), element(3, false), element(6, true)], interval: true, ..Set::default() };
        for (key, inside) in [(0, false), (2, false), (3, true), (5, true), (6, false), (200, false)] {
            assert_eq!(matches!(ranges.find(&[Some(key)]), Found::One(_)), inside, "{key}");
        }
        assert!(matches!(Set::default().find(&[None]), Found::Nothing));
    }
}
