//! Problems in settings: each with its place and remedy, all of them at once.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::schema;
use crate::foreign;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq)]
pub enum SettingOrigin {
    /// The schema.
    Default,
    /// A file, with its text and the bytes of the value.
    File {
        /// Path as given.
        path: Rc<PathBuf>,
        /// Whole text.
        text: Rc<str>,
        /// Bytes in the text.
        span: Range<usize>,
    },
    /// An environment variable.
    Env(String),
    /// A file that holds one secret.
    Secret(PathBuf),
}

impl fmt::Display for SettingOrigin {
    /// Shape: `default`, `/etc/anomaly/common.toml:3:8`, `ANOMALY__KAFKA__…`, a path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingOrigin::Default => f.write_str("default"),
            SettingOrigin::Env(name) => foreign::name(name).fmt(f),
            SettingOrigin::Secret(path) => foreign::path(path).fmt(f),
            SettingOrigin::File { path, text, span } => {
                let before = &text[..span.start.min(text.len())];
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
                write!(f, "{}:{line}:{column}", foreign::path(path))
            }
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct SettingProblem {
    /// Place.
    pub origin: SettingOrigin,
    /// What is wrong; names the key.
    pub title: String,
    /// What was expected, beside the caret.
    pub expected: String,
    /// The remedy, if one is known.
    pub help: Option<String>,
    /// The value may be a secret: what stands behind the `=` is not shown.
    pub is_secret: bool,
}

/// Everything that is wrong, and what is worth knowing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SettingsReport {
    /// What stops the start.
    pub problems: Vec<SettingProblem>,
    /// What does not; one sentence each.
    pub notices: Vec<String>,
}

impl SettingsReport {
    /// Adds one problem.
    pub fn add(
        &mut self,
        origin: &SettingOrigin,
        title: impl fmt::Display,
        expected: impl fmt::Display,
        help: Option<String>,
    ) {
        self.problems.push(SettingProblem {
            origin: origin.clone(),
            title: foreign::line(&title.to_string()).to_string(),
            expected: foreign::line(&expected.to_string()).to_string(),
            help,
            is_secret: false,
        });
    }

    /// The last problem is about a value that may be a secret.
    pub fn hide_value(&mut self) {
        if let Some(problem) = self.problems.last_mut() {
            problem.is_secret = true;
        }
    }
}

impl fmt::Display for SettingsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n\n")?;
            }
            problem.fmt(f)?;
        }
        match self.problems.len() {
            0 | 1 => Ok(()),
            n => write!(f, "\n\n{n} problems in the settings"),
        }
    }
}

impl fmt::Display for SettingProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = Level::ERROR.primary_title(self.title.as_str());
        let mut group = match &self.origin {
            SettingOrigin::File { path, text, span } => {
                let annotation = AnnotationKind::Primary.span(span.clone()).label(self.expected.as_str());
                let shown = if self.is_secret { masked(text, span) } else { text.to_string() };
                title.element(Snippet::source(shown).path(foreign::path(path).to_string()).annotation(annotation))
            }
            other => title.element(Level::NOTE.message(format!("{other}: {}", self.expected))),
        };
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        f.write_str(&Renderer::plain().render(&[group]))
    }
}

/// Bytes of the key at the beginning of a line, which is no secret: what stands before a `=` and a value, or a setting's
/// name. A line inside a string of several lines has none, and Base64 may end with `=`.
fn key_length(line: &str) -> usize {
    match line.find('=').map(|at| at + 1) {
        Some(behind) if line[behind..].contains(|c: char| c != '=' && !c.is_whitespace()) => behind,
        _ => {
            let word = line.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default();
            let is_setting = schema::keys().any(|key| key.name == word);
            if is_setting { word.len() } else { 0 }
        }
    }
}

/// The text with everything but keys starred out in the lines that the span touches; bytes keep their places.
fn masked(text: &str, span: &Range<usize>) -> String {
    let mut at = 0;
    let mask = |line: &str| {
        let behind = key_length(line);
        let stars =
            line[behind..].chars().map(|c| if c.is_whitespace() { c.to_string() } else { "*".repeat(c.len_utf8()) });
        line[..behind].to_owned() + &stars.collect::<String>()
    };
    text.split_inclusive('\n')
        .map(|line| {
            let from = at;
            at += line.len();
            // An error at the very end of a line belongs to it too.
            if from <= span.end && span.start <= at { mask(line) } else { line.to_owned() }
        })
        .collect()
}
