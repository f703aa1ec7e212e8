//! Opens and verifies the files that settings name, and finds settings that weaken access control. Both happen before a
//! role starts, and in `anomaly check`, which therefore finds every problem of a start.

use std::path::Path;

use crate::config::Settings;
use crate::config::resolved::SourceKind;
use crate::config::schema::ShippedFile;
use crate::error::{Error, Result};
use crate::event::Timestamp;
use crate::finding::{self, Finding, Grade, sandbox};
use crate::http::tls;
use crate::page::auth;
use crate::{store, stream};

/// Checks the files that the role of `file` uses; without a role, those of all roles.
pub fn check(settings: &Settings, file: Option<ShippedFile>) -> Vec<Finding> {
    let (now, is_used) = (Timestamp::now(), |of: ShippedFile| file.is_none_or(|file| file == of));
    let mut found = Vec::new();
    if file != Some(ShippedFile::Dashboard) {
        found.extend(stream::kafka::tls::check(&settings.kafka, now));
    }
    if file != Some(ShippedFile::Producer) {
        found.extend(store::authorities::check(&settings.postgres, now));
        found.extend(store::authorities::client(&settings.postgres));
    }
    if is_used(ShippedFile::Producer) {
        found.extend(replayed(settings));
    }
    let dashboard = &settings.dashboard;
    if is_used(ShippedFile::Dashboard) && !dashboard.tls_certificate.is_empty() {
        found.extend(tls::check(dashboard.tls_certificate.as_ref(), dashboard.tls_key.as_ref(), now));
    }
    if is_used(ShippedFile::Dashboard) && !dashboard.users.is_empty() {
        found.push(auth::check_users(dashboard.users.as_ref()));
    }
    if is_used(ShippedFile::Dashboard)
        && !dashboard.proxy_header.is_empty()
        && dashboard.proxy_secret.reveal().is_empty()
    {
        let why = format!(
            "is not set: every program on an address of dashboard.proxy_addresses can act as any user, by sending {}",
            dashboard.proxy_header
        );
        found.push(Finding::new("dashboard.proxy_secret", Grade::Doubtful, why));
    }
    found
}

/// Returns files that a service cannot read although this process can: paths as configured, and with symbolic links
/// resolved.
pub fn unseen(settings: &Settings, paths: &[(String, String)]) -> Vec<Finding> {
    let is_read = |key: &str, name: &str| {
        key != "producer.file" || (settings.producer.source == SourceKind::Replay && name != "-")
    };
    let paths = paths.iter().filter(|(key, name)| is_read(key, name));
    let found = paths.filter_map(|(key, name)| {
        let path = Path::new(name);
        let resolved = std::fs::canonicalize(path).ok();
        let why = match sandbox::hides(path).or_else(|| sandbox::hides(resolved.as_deref()?)) {
            _ if path.is_relative() => {
                format!(
                    "{name}: is relative to the directory of this command; a service starts in /. Write the whole path"
                )
            }
            Some(why) => format!("{name}: {why}. {}", elsewhere(key)),
            None => return None,
        };
        Some(Finding::new(key.as_str(), Grade::Doubtful, why))
    });
    found.collect()
}

/// Says where to put a file that a service cannot see.
fn elsewhere(key: &str) -> &'static str {
    match key {
        "postgres.host" => "Use a socket directory such as /run/postgresql, or a host name",
        "producer.file" => "Move it, for example to /var/lib/anomaly, where user anomaly may read it",
        _ if key.ends_with("password_file") => {
            "Move it, for example to /etc/anomaly/tls with mode 640 and group anomaly, or keep the secret in \
             /etc/anomaly/credentials"
        }
        _ => "Move it to /etc/anomaly/tls, with mode 640 and group anomaly",
    }
}

/// Checks the file that the producer replays.
fn replayed(settings: &Settings) -> Option<Finding> {
    let (producer, path) = (&settings.producer, Path::new(&settings.producer.file));
    if producer.source != SourceKind::Replay || producer.file == "-" {
        return None;
    }
    Some(match finding::file::opens(path) {
        Ok(()) => Finding::new("producer.file", Grade::Good, format!("{}: readable", path.display())),
        // The role itself exits with the code for an unreadable input.
        Err(e) => Finding::new("producer.file", Grade::Wrong, finding::unreadable(path, &e)),
    })
}

/// Returns the problems with which the role still starts.
///
/// # Errors
/// 78 with all problems that prevent a start.
pub fn usable(settings: &Settings, file: ShippedFile) -> Result<Vec<Finding>> {
    refuse_unusable(check(settings, Some(file)))
}

/// Verifies the files of TLS to Kafka, for a command that connects to Kafka and starts no role.
///
/// # Errors
/// 78 with all that cannot be used.
pub fn usable_for_kafka(settings: &Settings) -> Result<()> {
    refuse_unusable(stream::kafka::tls::check(&settings.kafka, Timestamp::now())).map(drop)
}

fn refuse_unusable(found: Vec<Finding>) -> Result<Vec<Finding>> {
    let (unusable, rest): (Vec<_>, Vec<_>) = found.into_iter().partition(|one| one.grade == Grade::Unusable);
    if unusable.is_empty() {
        return Ok(rest.into_iter().filter(|one| one.grade > Grade::Good).collect());
    }
    let lines = unusable.iter().map(|one| format!("{}: {}", one.what, one.text)).collect::<Vec<_>>();
    Err(Error::config(lines.join("\n")))
}
