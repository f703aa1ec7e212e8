//! Sources of a field: a path in the object, the record's key, one of its headers, or several of these combined.

use super::fields::{FieldProblem, several};

/// Maximum number of different paths in the settings.
pub(crate) const MOST_PATHS: usize = 16;

/// One part of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SourcePart {
    /// Literal text of the setting.
    Text(Box<str>),
    /// The path with this number.
    Path(usize),
    /// The record's key.
    Key,
    /// The header with this name.
    Header(Box<str>),
}

/// Source of one of the four fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FieldSource {
    /// The record's own time.
    Record,
    /// One part.
    One(SourcePart),
    /// Several parts, joined.
    Several(Vec<SourcePart>),
}

/// The paths that the settings name, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PathIndex(pub Vec<String>);

impl PathIndex {
    /// Returns the number of a path.
    pub(crate) fn path(&mut self, path: &str) -> usize {
        self.0.iter().position(|known| known == path).unwrap_or_else(|| {
            self.0.push(path.to_owned());
            self.0.len() - 1
        })
    }

    /// Parses a setting; `key` is its name.
    ///
    /// # Errors
    /// If the setting names no valid source.
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
    /// As [`place`](Self::place).
    pub(crate) fn part(&mut self, key: &'static str, text: &str) -> Result<SourcePart, FieldProblem> {
        if let Some(problem) = several(key, text) {
            return Err(problem);
        }
        match (text, text.strip_prefix("$header.")) {
            ("$key", _) => Ok(SourcePart::Key),
            (_, Some(name)) if !name.is_empty() => Ok(SourcePart::Header(name.into())),
            _ if text.starts_with('$') => {
                let time = if key == "time" { ", or $timestamp for the record's own time" } else { "" };
                let title = format!("`fields.{key}` is `{text}`, which names no part of a record");
                Err(FieldProblem::new(key, title, format!("expected a path, $key or $header.NAME{time}")))
            }
            _ => Ok(SourcePart::Path(self.path(text))),
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
            // {a}{b} would make the same device of "1" with "23" and of "12" with "3".
            if parts.last().is_some_and(|last| !matches!(last, SourcePart::Text(_))) {
                return Err(wrong("two paths follow one another without text between them"));
            }
            parts.push(self.part(key, inner)?);
            rest = after;
        }
        Ok(parts)
    }
}
