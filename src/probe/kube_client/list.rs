//! Lists, page by page: every object is handed on as it is read, so no list is ever held whole as text or as values.

use super::{At, Connected, Failure, encode};
use serde::Deserialize;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// Objects that the first page is asked for; a server whose answers are too large is asked for less.
const PAGE: usize = 500;
/// Most objects that [`Connected::list`] keeps.
const MOST_KEPT: usize = 5_000;
/// Most objects that any list is read of.
pub(crate) const MOST_SEEN: usize = 200_000;

/// What of an object is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// All of it.
    Whole,
    /// Its metadata only, which is far shorter; a server that cannot do that sends everything.
    Metadata,
}

impl Shape {
    fn accept(self) -> &'static str {
        match self {
            Self::Whole => "application/json",
            Self::Metadata => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
        }
    }
}

impl Connected {
    /// Asks for a list and keeps it. `path` may have a query. A list of more than 5000 objects is a failure: half of a list
    /// must not pass for the whole.
    pub(crate) async fn list<T: DeserializeOwned>(&self, path: &str, what: &str) -> Result<Vec<T>, Failure> {
        self.kept(path, what, Shape::Whole).await
    }

    /// The same for the metadata of the objects.
    pub(crate) async fn list_metadata<T: DeserializeOwned>(&self, path: &str, what: &str) -> Result<Vec<T>, Failure> {
        self.kept(path, what, Shape::Metadata).await
    }

    async fn kept<T: DeserializeOwned>(&self, path: &str, what: &str, shape: Shape) -> Result<Vec<T>, Failure> {
        let mut objects = Vec::new();
        self.each(path, what, shape, MOST_KEPT, |object| objects.push(object)).await?;
        Ok(objects)
    }

    /// Hands every object of a list on, at most `most`; a longer list ends with a failure after that many. Returns how many
    /// there were.
    pub(crate) async fn each<T: DeserializeOwned>(
        &self,
        path: &str,
        what: &str,
        shape: Shape,
        most: usize,
        mut take: impl FnMut(T),
    ) -> Result<usize, Failure> {
        let (mut seen, mut limit, mut token) = (0, PAGE, String::new());
        let first = if path.contains('?') { '&' } else { '?' };
        loop {
            let from = if token.is_empty() { String::new() } else { format!("&continue={}", encode(&token)) };
            let answer = match self.get_as(&format!("{path}{first}limit={limit}{from}"), shape.accept()).await {
                Err(failure) if failure.at == At::TooLarge && limit > 100 => {
                    limit /= 2;
                    continue;
                }
                answer => answer?,
            };
            if let Some(failure) = answer.failure(what) {
                return Err(failure);
            }
            let mut page = Page { take: &mut take, room: most - seen, read: 0, full: false, of: PhantomData };
            let next = page.read(&answer.body).map_err(|e| answer.no_api(&e))?;
            let (read, full) = (page.read, page.full);
            seen += read;
            match next {
                _ if full => return Err(Failure::new(At::TooLarge, format!("more than {most} objects ({what})"))),
                next if next.is_empty() => return Ok(seen),
                next if read == 0 || next == token => {
                    return Err(Failure::new(At::NotApi, format!("a list that does not go on ({what})")));
                }
                next => token = next,
            }
        }
    }
}

/// For fuzzers: objects of a page.
pub(crate) fn kept(body: &[u8]) -> usize {
    let mut kept = 0;
    let mut take = |_: serde_json::Value| kept += 1;
    let _ = Page { take: &mut take, room: 1000, read: 0, full: false, of: PhantomData }.read(body);
    kept
}

/// Reads one page: objects go on to `take`, the token of the next page comes back.
struct Page<'a, T, F> {
    take: &'a mut F,
    room: usize,
    read: usize,
    full: bool,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned, F: FnMut(T)> Page<'_, T, F> {
    fn read(&mut self, body: &[u8]) -> Result<String, serde_json::Error> {
        let mut json = serde_json::Deserializer::from_slice(body);
        match self.deserialize(&mut json) {
            Ok(token) => json.end().map(|()| token),
            Err(_) if self.full => Ok(String::new()),
            Err(error) => Err(error),
        }
    }
}

impl<'de, T: DeserializeOwned, F: FnMut(T)> DeserializeSeed<'de> for &mut Page<'_, T, F> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<String, D::Error> {
        json.deserialize_map(self)
    }
}

#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(default, rename = "continue")]
    token: Option<String>,
}

impl<'de, T: DeserializeOwned, F: FnMut(T)> Visitor<'de> for &mut Page<'_, T, F> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<String, A::Error> {
        let (mut token, mut items) = (String::new(), false);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "metadata" => token = map.next_value::<Metadata>()?.token.unwrap_or_default(),
                "items" => {
                    items = true;
                    map.next_value_seed(Items(&mut *self))?;
                }
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        // An object without `items` is no list.
        if items { Ok(token) } else { Err(A::Error::missing_field("items")) }
    }
}

struct Items<'p, 'a, T, F>(&'p mut Page<'a, T, F>);

impl<'de, T: DeserializeOwned, F: FnMut(T)> DeserializeSeed<'de> for Items<'_, '_, T, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de, T: DeserializeOwned, F: FnMut(T)> Visitor<'de> for Items<'_, '_, T, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of objects")
    }

    /// Go writes `null` for a list that was never filled.
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(object) = items.next_element::<T>()? {
            if self.0.read == self.0.room {
                self.0.full = true;
                return Err(A::Error::custom("too many objects"));
            }
            self.0.read += 1;
            (self.0.take)(object);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn page(body: &str, room: usize) -> (Result<String, String>, Vec<Value>, bool) {
        let mut objects = Vec::new();
        let mut take = |object: Value| objects.push(object);
        let mut page = Page { take: &mut take, room, read: 0, full: false, of: PhantomData };
        let token = page.read(body.as_bytes()).map_err(|e| e.to_string());
        let full = page.full;
        (token, objects, full)
    }

    #[test]
    fn a_page_is_read_whatever_the_order_of_its_fields() {
        let (token, objects, full) = page(r#"{"items":[1,2],"kind":"List","metadata":{"continue":"x","resourceVersion":"7"}}"#, 9);
        assert_eq!((token.unwrap().as_str(), objects.len(), full), ("x", 2, false));
        let (token, objects, _) = page(r#"{"metadata":{},"items":null}"#, 9);
        assert_eq!((token.unwrap().as_str(), objects.len()), ("", 0));
    }

    #[test]
    fn what_is_no_list_is_refused_and_what_is_too_long_is_told() {
        for bad in ["{}", "[]", r#"{"items":{}}"#, r#"{"items":[1,"#, r#"{"items":[]} {}"#, ""] {
            assert!(page(bad, 9).0.is_err(), "{bad}");
        }
        let (_, objects, full) = page(r#"{"items":[1,2,3]}"#, 2);
        assert_eq!((objects.len(), full), (2, true));
    }
}
