//! Patterns of records to ignore: a topic may carry other messages, which are not errors.

use super::field_source::{PathIndex, SourcePart};
use super::fields::FieldProblem;

/// One entry of the setting `fields.ignore`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// Source of the value to compare.
    pub part: SourcePart,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    /// The value is present and not null.
    Present,
    Absent,
    Is(Box<str>),
    IsNot(Box<str>),
}

impl Pattern {
    /// Parses `PATH`, `!PATH`, `PATH=TEXT` or `PATH!=TEXT`.
    ///
    /// # Errors
    /// Fails if the text contains no path.
    pub(crate) fn parse(text: &str, named: &mut PathIndex) -> Result<Self, FieldProblem> {
        let (path, test) = match (text.split_once("!="), text.split_once('='), text.strip_prefix('!')) {
            (Some((path, value)), ..) => (path, Test::IsNot(value.trim_ascii().into())),
            (_, Some((path, value)), _) => (path, Test::Is(value.trim_ascii().into())),
            (.., Some(path)) => (path, Test::Absent),
            _ => (text, Test::Present),
        };
        let path = path.trim_ascii();
        if path.is_empty() || path.starts_with('!') {
            let title = format!("`fields.ignore` has `{text}`, which names no path");
            return Err(FieldProblem::new("ignore", title, "expected PATH, !PATH, PATH=TEXT or PATH!=TEXT"));
        }
        Ok(Pattern { part: named.part("ignore", path)?, test })
    }

    /// Returns whether the pattern compares the value with a text, which needs a value.
    pub(crate) fn compares(&self) -> bool {
        matches!(self.test, Test::Is(_) | Test::IsNot(_))
    }

    /// Returns whether a record with this value is ignored.
    pub(crate) fn matches(&self, found: Option<&str>) -> bool {
        match (&self.test, found) {
            (Test::Present, found) => found.is_some(),
            (Test::Absent, found) => found.is_none(),
            (Test::Is(text), found) => found == Some(text),
            (Test::IsNot(text), found) => found != Some(text),
        }
    }
}
