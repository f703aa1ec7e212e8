//! Paths to several values of one record. `metrics[*].value` is a value of each element of an array. `sensors.*` is
//! each member of an object, whose name is the metric.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::decoded::MAX_EVENTS;
use super::fields::FieldProblem;

/// Kind of JSON value that contains the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContainerKind {
    /// An array, written `[*]` in the settings.
    Array,
    /// An object, written `.*` in the settings.
    Object,
}

/// The container of the values, and the paths within each of its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    /// Kind of the container: array or object.
    pub kind: ContainerKind,
    /// Path to the container; empty for a record that is an array itself.
    pub path: String,
    /// Paths within an element, each once; empty for the element itself.
    pub inner: Vec<String>,
    /// Number of the container's path among the paths of the record. `None` if the record itself is the container.
    pub at: Option<usize>,
}

impl Container {
    /// Returns the path of the elements as in the settings.
    pub(crate) fn star(&self) -> String {
        match self.kind {
            ContainerKind::Array => format!("{}[*]", self.path),
            ContainerKind::Object => format!("{}.*", self.path),
        }
    }

    /// Returns a path within the elements as in the settings.
    pub(crate) fn label(&self, at: usize) -> String {
        let dot = if self.inner[at].is_empty() { "" } else { "." };
        format!("{}{dot}{}", self.star(), self.inner[at])
    }
}

/// Splits a path at `[*]` or `.*` into the container and the path within its elements; `None` if it has neither.
///
/// # Errors
/// Fails if the path leads to several containers, or has an index.
pub(crate) fn split(key: &'static str, path: &str) -> Result<Option<(ContainerKind, String, String)>, FieldProblem> {
    let mut found = None;
    let mut start = 0;
    for name in path.split('.') {
        let end = start + name.len();
        let bracket = name.split_once('[').and_then(|(_, inner)| inner.strip_suffix(']'));
        let kind = match bracket {
            Some("*") => Some(ContainerKind::Array),
            Some(index) if index.bytes().all(|byte| byte.is_ascii_digit()) => {
                let title = format!("`fields.{key}` is `{path}`, which asks for an element by its number");
                return Err(FieldProblem::new(key, title, "name all elements of the array, as in `metrics[*].value`"));
            }
            _ if name == "*" => Some(ContainerKind::Object),
            _ => None,
        };
        if let Some(kind) = kind {
            if found.is_some() {
                let title = format!("`fields.{key}` is `{path}`, which leads into several arrays or objects");
                let expected = "a record's values are in one array (`metrics[*].value`) or object (`sensors.*`): use `*` \
                                once, and let the producer write one record for each inner array or object";
                return Err(FieldProblem::new(key, title, expected));
            }
            let container = match kind {
                ContainerKind::Array => &path[..end - 3],
                ContainerKind::Object => path[..start].strip_suffix('.').unwrap_or_default(),
            };
            found = Some((kind, container.to_owned(), path[end..].trim_start_matches('.').to_owned()));
        }
        start = end + 1;
    }
    match &found {
        Some((ContainerKind::Object, container, _)) if container.is_empty() => {
            let title = format!("`fields.{key}` is `{path}`, which names no object");
            Err(FieldProblem::new(key, title, "name the object whose members are the values, as in `sensors.*`"))
        }
        _ => Ok(found),
    }
}

/// One element of the container.
pub(crate) struct Element<'a> {
    /// Name of the member of an object.
    pub name: Option<Cow<'a, str>>,
    /// JSON text of the element.
    pub text: &'a str,
}

/// Reads the elements of a container.
///
/// # Errors
/// Returns what is wrong, as the words that follow the container's name in a message.
pub(crate) fn elements(kind: ContainerKind, text: &str) -> Result<Vec<Element<'_>>, String> {
    let (first, what) = match kind {
        ContainerKind::Array => ('[', "an array"),
        ContainerKind::Object => ('{', "an object"),
    };
    if !text.trim_ascii_start().starts_with(first) {
        return Err(format!("is no {}; expected {what} of values", what.trim_start_matches("an ")));
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let read = match kind {
        ContainerKind::Array => serde::Deserializer::deserialize_seq(&mut json, Elements),
        ContainerKind::Object => serde::Deserializer::deserialize_map(&mut json, Elements),
    };
    let all = read.and_then(|all| json.end().map(|()| all)).map_err(|e| format!("cannot be read: {e}"))?;
    match all.len() {
        count if count > MAX_EVENTS => Err(format!(
            "has {count} values; at most {MAX_EVENTS} values of one record are judged: let the producer write smaller records"
        )),
        _ => Ok(all),
    }
}

/// Returns a member's name that occurs twice, if there is one.
pub(crate) fn repeated<'e>(elements: &'e [Element<'_>]) -> Option<&'e str> {
    let mut names = elements.iter().filter_map(|element| element.name.as_deref()).collect::<Vec<_>>();
    names.sort_unstable();
    names.windows(2).find(|two| two[0] == two[1]).map(|two| two[0])
}

struct Elements;

impl<'a> Visitor<'a> for Elements {
    type Value = Vec<Element<'a>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array or an object")
    }

    fn visit_seq<S: SeqAccess<'a>>(self, mut seq: S) -> Result<Self::Value, S::Error> {
        let mut all = Vec::new();
        while let Some(raw) = seq.next_element::<&'a RawValue>()? {
            all.push(Element { name: None, text: raw.get() });
        }
        Ok(all)
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut all = Vec::new();
        while let Some(name) = map.next_key_seed(NameSeed)? {
            let raw = map.next_value::<&'a RawValue>()?;
            all.push(Element { name: Some(name), text: raw.get() });
        }
        Ok(all)
    }
}

/// Reads a name without copying it, if it has no escapes.
struct NameSeed;

impl<'a> DeserializeSeed<'a> for NameSeed {
    type Value = Cow<'a, str>;
    fn deserialize<D: serde::Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for NameSeed {
    type Value = Cow<'a, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'a str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}
