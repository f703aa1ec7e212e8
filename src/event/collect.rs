//! Finds the values at some paths in a JSON text in one pass, and skips everything else without reading it.
//!
//! A path is matched name by name. A name in the object may contain dots itself: `a.b` matches `{"a":{"b":1}}` and
//! `{"a.b":1}`.

use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Raw JSON text at each path that has been found so far.
pub(crate) struct CollectedFields<'a, const N: usize> {
    pub slots: [Option<&'a RawValue>; N],
    /// Whether each path occurred twice.
    pub twice: [bool; N],
}

impl<const N: usize> Default for CollectedFields<'_, N> {
    fn default() -> Self {
        CollectedFields { slots: [None; N], twice: [false; N] }
    }
}

/// The rest of each path at one level of the object. `None` if the path does not lead below this level.
pub(crate) type Paths<'p, const N: usize> = [Option<&'p str>; N];

/// Reads one object, and the objects below it that a path leads to.
pub(crate) fn collect<'a, const N: usize>(
    text: &'a str,
    paths: &Paths<'_, N>,
    found: &mut CollectedFields<'a, N>,
) -> serde_json::Result<()> {
    let mut json = serde_json::Deserializer::from_str(text);
    Object { paths, found }.deserialize(&mut json)?;
    json.end()
}

struct Object<'p, 'f, 'a, const N: usize> {
    paths: &'p Paths<'p, N>,
    found: &'f mut CollectedFields<'a, N>,
}

impl<'a, const N: usize> DeserializeSeed<'a> for Object<'_, '_, 'a, N> {
    type Value = ();
    fn deserialize<D: serde::Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a, const N: usize> Visitor<'a> for Object<'_, '_, 'a, N> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(below) = map.next_key_seed(Key(self.paths))? {
            if below.iter().all(Option::is_none) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let raw = map.next_value::<&'a RawValue>()?;
            for (at, _) in below.iter().enumerate().filter(|(_, rest)| **rest == Some("")) {
                self.found.twice[at] |= self.found.slots[at].replace(raw).is_some();
            }
            let goes_on = below.iter().any(|rest| rest.is_some_and(|rest| !rest.is_empty()));
            if goes_on && raw.get().starts_with('{') {
                let below = below.map(|rest| rest.filter(|rest| !rest.is_empty()));
                collect(raw.get(), &below, self.found).map_err(serde::de::Error::custom)?;
            }
        }
        Ok(())
    }
}

/// Compares a key with the first names of the paths, without copying it. Returns the rest of the matching paths.
struct Key<'p, const N: usize>(&'p Paths<'p, N>);

impl<'a, 'p, const N: usize> DeserializeSeed<'a> for Key<'p, N> {
    type Value = Paths<'p, N>;
    fn deserialize<D: serde::Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'p, const N: usize> Visitor<'_> for Key<'p, N> {
    type Value = Paths<'p, N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.map(|path| {
            let rest = path?.strip_prefix(key)?;
            if rest.is_empty() { Some("") } else { rest.strip_prefix('.') }
        }))
    }
}
