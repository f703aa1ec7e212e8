//! The result of a check of one file, topic or permission. `anomaly check` prints it. A start is refused if the result
//! is unusable.

pub(crate) mod file;
pub(crate) mod sandbox;

use std::io;
use std::path::Path;

use crate::foreign;

/// The result as a grade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// The checked item works as expected.
    Good,
    /// It works now, but soon it may not, or it does not work as expected.
    Doubtful,
    /// It does not work. A start continues, serves what it can, and reports this.
    Wrong,
    /// It does not work, and a start is refused.
    Unusable,
}

/// One checked item and its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The item: a setting with its value, or a topic.
    pub what: String,
    /// The result as a grade.
    pub grade: Grade,
    /// The result as a sentence, with the remedy.
    pub text: String,
}

impl Finding {
    /// Creates a finding with a grade.
    pub fn new(what: impl Into<String>, grade: Grade, text: impl Into<String>) -> Self {
        Finding { what: what.into(), grade, text: text.into() }
    }

    /// Creates a finding that is good or wrong.
    pub fn of(what: impl Into<String>, result: Result<String, String>) -> Self {
        match result {
            Ok(text) => Finding::new(what, Grade::Good, text),
            Err(text) => Finding::new(what, Grade::Wrong, text),
        }
    }
}

/// Says why a file that a setting names cannot be read, and what to do.
pub(crate) fn unreadable(path: &Path, error: &io::Error) -> String {
    let (shown, name) = (foreign::path(path), foreign::path(Path::new(path.file_name().unwrap_or_default())));
    let dir = foreign::path(path.parent().unwrap_or(path));
    match (sandbox::hides(path), error.kind()) {
        (Some(why), io::ErrorKind::PermissionDenied) => format!(
            "cannot read {shown}: {error}. Note that {why}. Copy it: install -m 640 -g anomaly {name} /etc/anomaly/tls/"
        ),
        (Some(why), io::ErrorKind::NotFound) => format!("cannot read {shown}: {error}. Note that {why}"),
        (None, io::ErrorKind::PermissionDenied) => format!(
            "cannot read {shown}: {error}. The service's user must be able to read it and to enter its directory: \
             install -m 640 -g anomaly {name} {dir}/"
        ),
        _ => format!("cannot read {shown}: {error}"),
    }
}
