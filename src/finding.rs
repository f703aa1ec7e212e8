//! What a look at one thing found: a file, a topic, a right. `anomaly check` prints it; a start refuses what it could only
//! fail with.

pub mod sandbox;

use std::io;
use std::path::Path;

/// How good a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// In order.
    Good,
    /// It works, and soon it will not, or not as one would expect.
    Doubtful,
    /// It does not work. A start goes on: it serves what it can, and says this.
    Wrong,
    /// A start is refused.
    Unusable,
}

/// One thing, and what was found of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The thing: a setting with its value, a topic.
    pub what: String,
    /// How good it is.
    pub grade: Grade,
    /// What was found, and what to do about it.
    pub text: String,
}

impl Finding {
    /// A thing and what was found of it.
    pub fn new(what: impl Into<String>, grade: Grade, text: impl Into<String>) -> Self {
        Finding { what: what.into(), grade, text: text.into() }
    }

    /// In order, or wrong.
    pub fn of(what: impl Into<String>, result: Result<String, String>) -> Self {
        match result {
            Ok(text) => Finding::new(what, Grade::Good, text),
            Err(text) => Finding::new(what, Grade::Wrong, text),
        }
    }
}

/// Why a file that a setting names cannot be read, and what to do about it.
pub fn unreadable(path: &Path, error: &io::Error) -> String {
    let (shown, name) = (path.display(), path.file_name().unwrap_or_default().to_string_lossy());
    let dir = path.parent().unwrap_or(path).display();
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
