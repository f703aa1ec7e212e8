//! The file of names, roles and argon2id hashes: a line `name:role:hash` for each. It is read again when it changes.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};

use crate::finding::{self, Finding, Grade};

/// Passwords that are checked at once: each takes 19 MiB and some tens of milliseconds of a core.
const AT_ONCE: usize = 2;
/// Longest password in bytes: hashing must not be a way to keep us busy.
const LONGEST: usize = 1024;

/// What someone may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum UserRole {
    /// Look.
    Viewer,
    /// Look, and mark anomalies.
    Operator,
}

impl UserRole {
    /// As in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            UserRole::Viewer => "viewer",
            UserRole::Operator => "operator",
        }
    }
}

/// Too many passwords are being checked.
#[derive(Debug)]
pub struct HashingBusy;

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
    users: HashMap<String, (UserRole, String)>,
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
    pub fn role(&self, name: &str) -> Option<UserRole> {
        self.find(name).map(|(role, _)| role)
    }

    fn find(&self, name: &str) -> Option<(UserRole, String)> {
        let changed = std::fs::metadata(&self.file).and_then(|file| file.modified()).ok();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.read != changed || changed.is_none() {
            match finding::file::read_text(&self.file) {
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
    pub fn check(&self, name: &str, password: &str) -> Result<bool, HashingBusy> {
        if password.len() > LONGEST {
            return Ok(false);
        }
        let user = self.find(name);
        if self.checking.fetch_add(1, Ordering::SeqCst) >= AT_ONCE {
            self.checking.fetch_sub(1, Ordering::SeqCst);
            return Err(HashingBusy);
        }
        let hash = user.as_ref().map_or(self.decoy.as_str(), |(_, hash)| hash);
        let is_right = PasswordHash::new(hash)
            .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok());
        self.checking.fetch_sub(1, Ordering::SeqCst);
        Ok(is_right && user.is_some())
    }
}

/// Lines that are not understood name nobody.
fn parse(text: &str) -> HashMap<String, (UserRole, String)> {
    text.lines().filter_map(user).collect()
}

/// One line: name, role and hash.
fn user(line: &str) -> Option<(String, (UserRole, String))> {
    let mut parts = line.splitn(3, ':');
    let (name, role, hash) = (parts.next()?.trim(), parts.next()?.trim(), parts.next()?.trim());
    let role = [UserRole::Viewer, UserRole::Operator].into_iter().find(|known| known.as_str() == role)?;
    (!name.is_empty() && !name.starts_with('#')).then(|| (name.to_owned(), (role, hash.to_owned())))
}

/// What `anomaly check` says of the file, and a start before it serves.
pub fn look(file: &Path) -> Finding {
    const WHAT: &str = "dashboard.users";
    let text = match finding::file::read(file).map(String::from_utf8) {
        Ok(Ok(text)) => text,
        Ok(Err(_)) => return Finding::new(WHAT, Grade::Unusable, format!("{} is not UTF-8", file.display())),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let why = format!("{0} does not exist: `anomaly passwd NAME --file {0}` makes it", file.display());
            return Finding::new(WHAT, Grade::Unusable, why);
        }
        Err(e) => return Finding::new(WHAT, Grade::Unusable, finding::unreadable(file, &e)),
    };
    let is_text = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let is_wrong =
        |line: &str| is_text(line) && user(line).is_none_or(|(_, (_, hash))| PasswordHash::new(&hash).is_err());
    let wrong =
        (1..).zip(text.lines()).filter(|(_, line)| is_wrong(line)).map(|(number, _): (u32, _)| number.to_string());
    let wrong = wrong.collect::<Vec<_>>().join(", ");
    if !wrong.is_empty() {
        let why = format!(
            "{}: line {wrong} is not name:role:hash, as `anomaly passwd` writes it, and lets no user in",
            file.display()
        );
        return Finding::new(WHAT, Grade::Wrong, why);
    }
    match parse(&text).len() {
        0 => Finding::new(
            WHAT,
            Grade::Wrong,
            format!("{0} names no user, so that no one can log in: anomaly passwd NAME --file {0}", file.display()),
        ),
        n => Finding::new(
            WHAT,
            Grade::Good,
            format!("{}: {n} {}", file.display(), if n == 1 { "user" } else { "users" }),
        ),
    }
}
