//! The file of names, roles and argon2id hashes: a line `name:role:hash` for each. It is read again when it changes.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};

/// Passwords that are checked at once: each takes 19 MiB and some tens of milliseconds of a core.
const AT_ONCE: usize = 2;
/// Longest password in bytes: hashing must not be a way to keep us busy.
const LONGEST: usize = 1024;

/// What someone may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Look.
    Viewer,
    /// Look, and mark anomalies.
    Operator,
}

impl Role {
    /// As in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
        }
    }
}

/// Too many passwords are being checked.
#[derive(Debug)]
pub struct Busy;

/// The hash of a password with a salt of its own, as the file holds it.
///
/// # Errors
/// When the password is too long, or the system gives no randomness.
pub fn hash(password: &str) -> Result<String, String> {
    if password.len() > LONGEST {
        return Err(format!("a password has at most {LONGEST} bytes"));
    }
    Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string()).map_err(|e| e.to_string())
}

#[derive(Default)]
struct Known {
    read: Option<SystemTime>,
    users: HashMap<String, (Role, String)>,
}

/// Those whom the file names.
pub struct Users {
    file: PathBuf,
    known: Mutex<Known>,
    checking: AtomicUsize,
    /// Who does not exist is checked against this, so that an answer takes as long.
    decoy: String,
}

impl Users {
    /// Reads nothing yet.
    pub fn new(file: PathBuf) -> Users {
        let decoy = if file.as_os_str().is_empty() { String::new() } else { hash("nobody").unwrap_or_default() };
        Users { file, known: Mutex::default(), checking: AtomicUsize::new(0), decoy }
    }

    /// Role of someone; `None` for nobody.
    pub fn role(&self, name: &str) -> Option<Role> {
        self.find(name).map(|(role, _)| role)
    }

    fn find(&self, name: &str) -> Option<(Role, String)> {
        let changed = std::fs::metadata(&self.file).and_then(|file| file.modified()).ok();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.read != changed || changed.is_none() {
            match std::fs::read_to_string(&self.file) {
                Ok(text) => *known = Known { read: changed, users: parse(&text) },
                Err(error) => {
                    tracing::error!(%error, file = %self.file.display(), "the file of passwords cannot be read; nobody may enter");
                    *known = Known::default();
                }
            }
        }
        known.users.get(name).cloned()
    }

    /// Whether this is the password of this user.
    pub fn check(&self, name: &str, password: &str) -> Result<bool, Busy> {
        if password.len() > LONGEST {
            return Ok(false);
        }
        let user = self.find(name);
        if self.checking.fetch_add(1, Ordering::SeqCst) >= AT_ONCE {
            self.checking.fetch_sub(1, Ordering::SeqCst);
            return Err(Busy);
        }
        let hash = user.as_ref().map_or(self.decoy.as_str(), |(_, hash)| hash);
        let is_right = PasswordHash::new(hash)
            .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok());
        self.checking.fetch_sub(1, Ordering::SeqCst);
        Ok(is_right && user.is_some())
    }
}

/// Lines that are not understood name nobody.
fn parse(text: &str) -> HashMap<String, (Role, String)> {
    let line = |line: &str| {
        let mut parts = line.splitn(3, ':');
        let (name, role, hash) = (parts.next()?.trim(), parts.next()?.trim(), parts.next()?.trim());
        let role = [Role::Viewer, Role::Operator].into_iter().find(|known| known.as_str() == role)?;
        (!name.is_empty() && !name.starts_with('#')).then(|| (name.to_owned(), (role, hash.to_owned())))
    };
    text.lines().filter_map(line).collect()
}
