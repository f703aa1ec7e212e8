//! The file of user names, roles and argon2id hashes, with a line `name:role:hash` for each user. It is read again when
//! it changes.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};

use crate::finding::{self, Finding, Grade};

/// Maximum number of passwords that are checked at once. Each check needs 19 MiB and some tens of milliseconds of a
/// core.
const AT_ONCE: usize = 2;
/// Maximum length of a password in bytes, so that hashing long passwords cannot overload the server.
const LONGEST: usize = 1024;

/// The rights of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum UserRole {
    /// May see all pages, but not review.
    Viewer,
    /// May see all pages and review anomalies.
    Operator,
}

impl UserRole {
    /// Returns the name of the role in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            UserRole::Viewer => "viewer",
            UserRole::Operator => "operator",
        }
    }
}

/// Error: too many passwords are being checked.
#[derive(Debug)]
pub struct HashingBusy;

/// Computes the hash of a password with a random salt, in the format of the file.
///
/// # Errors
/// If the password is too long, or the system provides no random numbers.
pub fn hash(password: &str) -> Result<String, String> {
    if password.len() > LONGEST {
        return Err(format!("a password has at most {LONGEST} bytes"));
    }
    Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string()).map_err(|e| e.to_string())
}

#[derive(Default)]
struct LoadedUsers {
    read: Option<SystemTime>,
    users: HashMap<String, (UserRole, String)>,
}

/// The users that the file names.
pub struct Users {
    file: PathBuf,
    known: Mutex<LoadedUsers>,
    checking: AtomicUsize,
    /// The hash that unknown users are checked against, so that their check takes equally long.
    decoy: String,
}

impl Users {
    /// Creates the list without reading the file.
    pub fn new(file: PathBuf) -> Users {
        let decoy = if file.as_os_str().is_empty() { String::new() } else { hash("nobody").unwrap_or_default() };
        Users { file, known: Mutex::default(), checking: AtomicUsize::new(0), decoy }
    }

    /// Returns the role of a user; `None` if the file does not name it.
    pub fn role(&self, name: &str) -> Option<UserRole> {
        self.find(name).map(|(role, _)| role)
    }

    fn find(&self, name: &str) -> Option<(UserRole, String)> {
        let changed = std::fs::metadata(&self.file).and_then(|file| file.modified()).ok();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.read != changed || changed.is_none() {
            match read_users(&self.file) {
                Ok(text) => *known = LoadedUsers { read: changed, users: parse(&text) },
                Err(error) => {
                    tracing::error!(%error, file = %self.file.display(), "cannot read the file of users, so no user can log in");
                    *known = LoadedUsers::default();
                }
            }
        }
        known.users.get(name).cloned()
    }

    /// Returns whether the password is that of the user.
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

/// Reads the file as text. Editors may put a byte order mark before it, which belongs to no name.
///
/// # Errors
/// Fails if the file cannot be read as text.
pub fn read_users(file: &Path) -> io::Result<String> {
    let text = finding::file::read_text(file)?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// Parses the file. Lines in another format name no user.
fn parse(text: &str) -> HashMap<String, (UserRole, String)> {
    text.lines().filter_map(user).collect()
}

/// Parses one line: name, role and hash.
fn user(line: &str) -> Option<(String, (UserRole, String))> {
    let mut parts = line.splitn(3, ':');
    let (name, role, hash) = (parts.next()?.trim(), parts.next()?.trim(), parts.next()?.trim());
    let role = [UserRole::Viewer, UserRole::Operator].into_iter().find(|known| known.as_str() == role)?;
    (!name.is_empty() && !name.starts_with('#')).then(|| (name.to_owned(), (role, hash.to_owned())))
}

/// Checks the file for `anomaly check`, and before the dashboard serves.
pub fn check_users(file: &Path) -> Finding {
    const WHAT: &str = "dashboard.users";
    let text = match read_users(file) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::InvalidData => {
            return Finding::new(WHAT, Grade::Unusable, format!("{} is not UTF-8", file.display()));
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let why = format!("{0} does not exist: `anomaly passwd NAME --file {0}` creates it", file.display());
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
