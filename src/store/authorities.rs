//! The file of authorities that the database's certificate is verified with.

use std::path::Path;

use crate::config::resolved::Postgres;
use crate::event::Instant;
use crate::finding::{self, Finding, Grade};
use crate::pem;

/// What a start needs of the file, and how long the authorities last; `None` without one.
pub fn look(settings: &Postgres, now: Instant) -> Option<Finding> {
    const WHAT: &str = "postgres.sslrootcert";
    if settings.sslrootcert.is_empty() {
        return None;
    }
    let path = Path::new(&settings.sslrootcert);
    let bytes = match std::fs::read(path) {
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
