//! Checks the TLS files of the database connection: the authorities for the server's certificate, and the client's
//! certificate and key.

use std::path::Path;

use crate::config::resolved::PostgresSettings;
use crate::event::Timestamp;
use crate::finding::{self, Finding, Grade};
use crate::pem;
use crate::store::tls;

/// Checks the client's certificate and key before a start; returns `None` without them. It never asks for the key's
/// passphrase.
pub fn client(settings: &PostgresSettings) -> Option<Finding> {
    if settings.sslcert.is_empty() && settings.sslkey.is_empty() {
        return None;
    }
    Some(match tls::connector(settings) {
        Ok(_) => Finding::new("postgres.sslcert", Grade::Good, format!("{} and its key", settings.sslcert)),
        Err(error) => Finding::new("postgres.sslcert", Grade::Unusable, error.message),
    })
}

/// Checks the file of authorities before a start, and how long they remain valid; returns `None` without a file.
pub fn check(settings: &PostgresSettings, now: Timestamp) -> Option<Finding> {
    const WHAT: &str = "postgres.sslrootcert";
    if settings.sslrootcert.is_empty() {
        return None;
    }
    let path = Path::new(&settings.sslrootcert);
    let bytes = match finding::file::read_certificates(path) {
        Ok(bytes) => bytes,
        Err(e) => return Some(Finding::new(WHAT, Grade::Unusable, finding::unreadable(path, &e))),
    };
    Some(match pem::certificates(&bytes) {
        Err(why) => Finding::new(WHAT, Grade::Unusable, format!("{}: {why}", path.display())),
        Ok(_) if settings.sslmode == "disable" => {
            Finding::new(WHAT, Grade::Doubtful, "is not used: postgres.sslmode is \"disable\"")
        }
        Ok(all) => {
            let (grade, life) = pem::authorities_life(&all, now);
            Finding::new(WHAT, grade, format!("{}: {life}", path.display()))
        }
    })
}
