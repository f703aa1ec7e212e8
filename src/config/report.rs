//! Problems in settings, each with its place and remedy, reported all at once.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::schema;
use crate::foreign;

/// Maximum number of problems that are shown. More of them have a common cause, such as a file of another program.
const MOST_SHOWN: usize = 50;

/// The place that a value came from.
#[derive(Debug, Clone, PartialEq)]
pub enum SettingOrigin {
    /// The default in the schema.
    Default,
    /// A file, with its text and the position of the value.
    File {
        /// Path of the file as given.
        path: Rc<PathBuf>,
        /// Whole text of the file.
        text: Rc<str>,
        /// Range of the value in bytes of the text.
        span: Range<usize>,
    },
    /// An environment variable of this name.
    Env(String),
    /// A file that contains one secret.
    Secret(PathBuf),
}

impl SettingOrigin {
    /// Returns whether neither of two places has precedence: they are in one file, both are variables, or both are
    /// credentials in one directory.
    pub fn is_rival(&self, other: &SettingOrigin) -> bool {
        match (self, other) {
            (SettingOrigin::File { path: one, .. }, SettingOrigin::File { path: two, .. }) => one == two,
            (SettingOrigin::Env(_), SettingOrigin::Env(_)) => true,
            (SettingOrigin::Secret(one), SettingOrigin::Secret(two)) => one != two && one.parent() == two.parent(),
            _ => false,
        }
    }
}

impl fmt::Display for SettingOrigin {
    /// Formats the place: `default`, `/etc/anomaly/common.toml:3:8`, `ANOMALY__KAFKA__…`, or a path.
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

/// One problem in the settings.
#[derive(Debug, Clone, PartialEq)]
pub struct SettingProblem {
    /// Place that the problem is reported at.
    pub origin: SettingOrigin,
    /// Description of the problem, which names the key.
    pub title: String,
    /// Expected value, shown at the caret.
    pub expected: String,
    /// The remedy, if one is known.
    pub help: Option<String>,
    /// Whether the value may be a secret. Then the text after the `=` is not shown.
    pub is_secret: bool,
}

/// All problems, and notices for the user.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SettingsReport {
    /// Problems that stop the start.
    pub problems: Vec<SettingProblem>,
    /// Notices that do not stop the start, one sentence each.
    pub notices: Vec<String>,
}

impl SettingsReport {
    /// Adds one problem to the report.
    pub fn add(
        &mut self,
        origin: &SettingOrigin,
        title: impl fmt::Display,
        expected: impl fmt::Display,
        help: Option<String>,
    ) {
        self.problems.push(SettingProblem {
            origin: origin.clone(),
            title: foreign::text(&title.to_string()).to_string(),
            expected: foreign::text(&expected.to_string()).to_string(),
            help: help.map(|help| foreign::text(&help).to_string()),
            is_secret: false,
        });
    }

    /// Returns whether the next problem would not be shown, so that a remedy need not be found for it.
    pub fn is_full(&self) -> bool {
        self.problems.len() >= MOST_SHOWN
    }

    /// Marks the value of the last problem as a possible secret.
    pub fn hide_value(&mut self) {
        if let Some(problem) = self.problems.last_mut() {
            problem.is_secret = true;
        }
    }
}

impl fmt::Display for SettingsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().take(MOST_SHOWN).enumerate() {
            if i > 0 {
                f.write_str("\n\n")?;
            }
            problem.fmt(f)?;
        }
        match self.problems.len() {
            0 | 1 => Ok(()),
            n if n > MOST_SHOWN => {
                write!(
                    f,
                    "\n\n{n} problems in the settings: {MOST_SHOWN} are shown, and {} more are not",
                    n - MOST_SHOWN
                )
            }
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

/// Returns the length in bytes of the key at the beginning of a line. The key is not secret: it is the text before a
/// `=` and a value, or a setting's name. A line inside a string of several lines has no key. Base64 may end with `=`.
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

/// Replaces everything but keys with stars in the lines of the span. Bytes keep their positions.
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
            // An error at the very end of a line also belongs to that line.
            if from <= span.end && span.start <= at { mask(line) } else { line.to_owned() }
        })
        .collect()
}
