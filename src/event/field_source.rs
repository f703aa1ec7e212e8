//! Sources of a field: a path in the object, the record's key, one of its headers, or several of these combined.

use super::each::{self, Container, ContainerKind};
use super::fields::{FieldProblem, Fields, several};

/// Maximum number of distinct paths in the settings.
pub(crate) const MOST_PATHS: usize = 16;

/// One part of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SourcePart {
    /// Literal text of the setting.
    Text(Box<str>),
    /// The path with this number in [`PathIndex::paths`].
    Path(usize),
    /// The path with this number within each element of the [`Container`].
    Inner(usize),
    /// The name of the element: `*`.
    Name,
    /// Key of the record.
    Key,
    /// The header with this name.
    Header(Box<str>),
}

/// Source of one of the four fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FieldSource {
    /// Time of the record itself, which is not a field of the object.
    Record,
    /// A single part.
    One(SourcePart),
    /// Several parts that are joined.
    Several(Vec<SourcePart>),
}

/// The distinct paths in the settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PathIndex {
    /// Paths in the record, in the order of their numbers.
    pub paths: Vec<String>,
    /// The container of several values, if a path leads into one.
    pub container: Option<Container>,
    /// First setting that names the container, and its path.
    named_by: Option<(&'static str, String)>,
}

/// Returns the number of a path, and adds the path if it is new.
fn number(paths: &mut Vec<String>, path: &str) -> usize {
    paths.iter().position(|known| known == path).unwrap_or_else(|| {
        paths.push(path.to_owned());
        paths.len() - 1
    })
}

impl PathIndex {
    /// Returns the number of a path in the record.
    pub(crate) fn path(&mut self, path: &str) -> usize {
        number(&mut self.paths, path)
    }

    /// Returns the source of a path that may lead into the container.
    fn place_of(&mut self, key: &'static str, text: &str) -> Result<SourcePart, FieldProblem> {
        let Some((kind, path, inner)) = each::split(key, text)? else { return Ok(SourcePart::Path(self.path(text))) };
        if key == "ignore" {
            let title = format!("`fields.ignore` has `{text}`, which leads to several values");
            return Err(FieldProblem::new(key, title, "a pattern applies to the whole record: name one path"));
        }
        let at = (!path.is_empty()).then(|| self.path(&path));
        self.named_by.get_or_insert_with(|| (key, text.to_owned()));
        let container = self.container.get_or_insert_with(|| Container { kind, path, inner: Vec::new(), at });
        if (container.kind, container.at) != (kind, at) {
            let (other, first) = self.named_by.clone().unwrap_or_default();
            let title = format!("`fields.{key}` is `{text}`, and `fields.{other}` is `{first}`: two arrays or objects");
            return Err(FieldProblem::new(key, title, "all fields with `*` must be in the same array or object"));
        }
        Ok(SourcePart::Inner(number(&mut container.inner, &inner)))
    }

    /// Parses a setting; `key` is its name.
    ///
    /// # Errors
    /// Fails if the setting names no valid source.
    pub(crate) fn place(&mut self, key: &'static str, text: &str) -> Result<FieldSource, FieldProblem> {
        if text == "$timestamp" && key == "time" {
            return Ok(FieldSource::Record);
        }
        if !text.contains(['{', '}']) {
            return self.part(key, text).map(FieldSource::One);
        }
        if !["device", "metric"].contains(&key) {
            let title = format!("`fields.{key}` is `{text}`, which puts several values together");
            return Err(FieldProblem::new(key, title, "only device and metric can be put together: name one path"));
        }
        self.several(key, text).map(FieldSource::Several)
    }

    /// Parses a path, `$key` or `$header.NAME`.
    ///
    /// # Errors
    /// Fails if the text names no valid source.
    pub(crate) fn part(&mut self, key: &'static str, text: &str) -> Result<SourcePart, FieldProblem> {
        if let Some(problem) = several(key, text) {
            return Err(problem);
        }
        match (text, text.strip_prefix("$header.")) {
            ("$key", _) => Ok(SourcePart::Key),
            ("*", _) if ["device", "metric"].contains(&key) => Ok(SourcePart::Name),
            (_, Some(name)) if !name.is_empty() => Ok(SourcePart::Header(name.into())),
            _ if text.starts_with('$') => {
                let time = if key == "time" { ", or $timestamp for the record's own time" } else { "" };
                let title = format!("`fields.{key}` is `{text}`, which names no part of a record");
                Err(FieldProblem::new(key, title, format!("expected a path, $key or $header.NAME{time}")))
            }
            _ => self.place_of(key, text),
        }
    }

    /// Parses a template such as `{tags.host}/{tags.cpu}`: text, and sources in braces.
    fn several(&mut self, key: &'static str, text: &str) -> Result<Vec<SourcePart>, FieldProblem> {
        let wrong = |what: &str| {
            let title = format!("`fields.{key}` is `{text}`: {what}");
            FieldProblem::new(key, title, "expected paths in braces with text between them: {tags.host}/{tags.cpu}")
        };
        let (mut parts, mut rest) = (Vec::new(), text);
        while !rest.is_empty() {
            let (before, after) = rest.split_once('{').unwrap_or((rest, ""));
            if before.contains('}') || (after.is_empty() && rest.len() > before.len()) {
                return Err(wrong("a brace has no partner"));
            }
            if !before.is_empty() {
                parts.push(SourcePart::Text(before.into()));
            }
            rest = after;
            if rest.is_empty() {
                break;
            }
            let (inner, after) = rest.split_once('}').ok_or_else(|| wrong("a brace has no partner"))?;
            if inner.is_empty() || inner.contains('{') {
                return Err(wrong("there is no path between two braces"));
            }
            // {a}{b} would give the same name for "1" with "23" and for "12" with "3".
            if parts.last().is_some_and(|last| !matches!(last, SourcePart::Text(_))) {
                return Err(wrong("two paths follow one another without text between them"));
            }
            parts.push(self.part(key, inner)?);
            rest = after;
        }
        Ok(parts)
    }
}

/// Checks that the settings with `*` are consistent, and takes the metrics from the names of an object's members.
///
/// # Errors
/// Returns the first inconsistent setting.
pub(crate) fn check_values(
    fields: &Fields,
    places: &mut [FieldSource; 4],
    named: &PathIndex,
) -> Result<(), FieldProblem> {
    let has = |place: &FieldSource, is: fn(&SourcePart) -> bool| match place {
        FieldSource::Record => false,
        FieldSource::One(part) => is(part),
        FieldSource::Several(parts) => parts.iter().any(is),
    };
    let is_inner = |part: &SourcePart| matches!(part, SourcePart::Inner(_));
    let is_name = |part: &SourcePart| *part == SourcePart::Name;
    let first = |is| Fields::KEYS.into_iter().zip(places.iter()).find(|(_, place)| has(place, is)).map(|(key, _)| key);
    let kind = named.container.as_ref().map(|container| container.kind);
    if let Some(key) = first(is_name).filter(|_| kind != Some(ContainerKind::Object)) {
        let title =
            format!("`fields.{key}` has `*`, the name of an object's member, but fields.value names no such object");
        return Err(FieldProblem::new(
            key,
            title,
            "expected a path; or set fields.value to the object, as in `sensors.*`",
        ));
    }
    let Some(kind) = kind else { return Ok(()) };
    if !has(&places[2], is_inner) {
        let key = first(is_inner).unwrap_or("value");
        let title =
            format!("`fields.{key}` leads to several values, but `fields.value` is `{}`, one value", fields.value);
        return Err(FieldProblem::new(key, title, "fields.value must be in the same array or object"));
    }
    let container = named.container.as_ref().and_then(|container| container.at);
    let is_whole = |place: &&FieldSource| match place {
        FieldSource::Record => false,
        FieldSource::One(part) => container.map(SourcePart::Path).as_ref() == Some(part),
        FieldSource::Several(parts) => container.is_some_and(|at| parts.contains(&SourcePart::Path(at))),
    };
    if let Some(key) =
        Fields::KEYS.into_iter().zip(places.iter()).find(|(_, place)| is_whole(place)).map(|(key, _)| key)
    {
        let title = format!("`fields.{key}` names the array or object that fields.value leads into");
        return Err(FieldProblem::new(key, title, "name a path outside of it, or in each of its elements"));
    }
    if kind == ContainerKind::Object {
        let is_distinct = |place: &FieldSource| has(place, is_inner) || has(place, is_name);
        if is_distinct(&places[0]) || is_distinct(&places[1]) {
            return Ok(());
        }
        if fields.metric != Fields::default().metric {
            let title =
                format!("`fields.metric` is `{}`, the same for all members of `{}`", fields.metric, fields.value);
            let expected = "remove it, so that each member's name is its metric, or put the name in it: {name}/{*}";
            return Err(FieldProblem::new("metric", title, expected));
        }
        places[1] = FieldSource::One(SourcePart::Name);
    }
    Ok(())
}
