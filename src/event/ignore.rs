//! Patterns of records that are passed over: a topic may carry other messages too, which are not errors.

use super::field_source::{PathIndex, SourcePart};
use super::fields::FieldProblem;

/// One entry of the setting `fields.ignore`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// What is looked at.
    pub part: SourcePart,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    /// It is there, and not null.
    Present,
    Absent,
    Is(Box<str>),
    IsNot(Box<str>),
}

impl Pattern {
    /// `PATH`, `!PATH`, `PATH=TEXT` or `PATH!=TEXT`.
    ///
    /// # Errors
    /// When there is no path in it.
    pub fn parse(text: &str, named: &mut PathIndex) -> Result<Self, FieldProblem> {
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

    /// Whether a record that has this there is passed over.
    pub fn matches(&self, found: Option<&str>) -> bool {
        match (&self.test, found) {
            (Test::Present, found) => found.is_some(),
            (Test::Absent, found) => found.is_none(),
            (Test::Is(text), found) => found == Some(text),
            (Test::IsNot(text), found) => found != Some(text),
        }
    }
}
