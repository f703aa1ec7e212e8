//! The files that settings name: opened and verified before a role starts, and by `anomaly check`, which thereby sees all
//! that a start would fail with.

use std::path::Path;

use crate::config::Settings;
use crate::config::resolved::SourceKind;
use crate::config::schema::File;
use crate::error::{Error, Result};
use crate::event::Instant;
use crate::finding::{self, Finding, Grade};
use crate::page::door;
use crate::page::listener::tls;
use crate::{store, stream};

/// What was found of the files that the role of `file` uses; of all roles without one.
pub fn look(settings: &Settings, file: Option<File>) -> Vec<Finding> {
    let (now, is_used) = (Instant::now(), |of: File| file.is_none_or(|file| file == of));
    let mut found = Vec::new();
    if file != Some(File::Dashboard) {
        found.extend(stream::kafka::tls::look(&settings.kafka, now));
    }
    if file != Some(File::Producer) {
        found.extend(store::authorities::look(&settings.postgres, now));
        found.extend(store::authorities::client(&settings.postgres));
    }
    if is_used(File::Producer) {
        found.extend(replayed(settings));
    }
    let dashboard = &settings.dashboard;
    if is_used(File::Dashboard) && !dashboard.tls_certificate.is_empty() {
        found.extend(tls::look(dashboard.tls_certificate.as_ref(), dashboard.tls_key.as_ref(), now));
    }
    if is_used(File::Dashboard) && !dashboard.users.is_empty() {
        found.push(door::look(dashboard.users.as_ref()));
    }
    found
}

/// The file that the producer replays.
fn replayed(settings: &Settings) -> Option<Finding> {
    let (producer, path) = (&settings.producer, Path::new(&settings.producer.file));
    if producer.source != SourceKind::Replay || producer.file == "-" {
        return None;
    }
    Some(match std::fs::File::open(path) {
        Ok(_) => Finding::new("producer.file", Grade::Good, format!("{}: readable", path.display())),
        // The role itself stops with the exit code of an input that cannot be read.
        Err(e) => Finding::new("producer.file", Grade::Wrong, finding::unreadable(path, &e)),
    })
}

/// What is not in order and still lets the role start.
///
/// # Errors
/// 78 with all that does not.
pub fn usable(settings: &Settings, file: File) -> Result<Vec<Finding>> {
    let found = look(settings, Some(file));
    let (unusable, rest): (Vec<_>, Vec<_>) = found.into_iter().partition(|one| one.grade == Grade::Unusable);
    if unusable.is_empty() {
        return Ok(rest.into_iter().filter(|one| one.grade > Grade::Good).collect());
    }
    let lines = unusable.iter().map(|one| format!("{}: {}", one.what, one.text)).collect::<Vec<_>>();
    Err(Error::config(lines.join("\n")))
}
