//! The file of user names, roles and argon2id hashes, with a line `name:role:hash` for each user. It is read again when
//! it changes.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use sha2::{Digest, Sha256};

use super::queue::{HashingBusy, PasswordQueue};
use crate::finding::{self, Finding, Grade};

/// Maximum length of a password in bytes, so that hashing long passwords cannot overload the server.
const MAX_PASSWORD_BYTES: usize = 1024;
/// Longest time that a check waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// The permissions of a user.
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

/// Computes the hash of a password with a random salt, in the format of the file.
///
/// # Errors
/// If the password is too long, or the system provides no random numbers.
pub fn hash(password: &str) -> Result<String, String> {
    if password.len() > MAX_PASSWORD_BYTES {
        return Err(format!("a password has at most {MAX_PASSWORD_BYTES} bytes"));
    }
    Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string()).map_err(|e| e.to_string())
}

/// The role and the password hash of a user, as in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct User {
    role: UserRole,
    hash: String,
}

/// SHA-256 of the line that names a user. It changes with the password, even if the same one is set again, because each
/// hash has a salt of its own.
pub(crate) type UserFingerprint = [u8; 32];

impl User {
    fn fingerprint(&self) -> UserFingerprint {
        Sha256::digest(format!("{}:{}", self.role.as_str(), self.hash)).into()
    }
}

/// Identifies a version of the file. A file that replaces it, or a change within one tick of the clock, differs in the
/// inode or the length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileVersion {
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileVersion {
    fn of(file: &Path) -> Option<FileVersion> {
        let about = std::fs::metadata(file).ok()?;
        Some(FileVersion {
            inode: about.ino(),
            length: about.len(),
            modified: (about.mtime(), about.mtime_nsec()),
            changed: (about.ctime(), about.ctime_nsec()),
        })
    }
}

#[derive(Default)]
struct LoadedUsers {
    read: Option<FileVersion>,
    /// Whether the last attempt to read the file failed, so that this is logged once.
    is_unreadable: bool,
    users: HashMap<String, User>,
}

/// Whether a session's user is still the one who logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The file still has the line, with this role.
    Same(UserRole),
    /// The line was removed or changed.
    Gone,
    /// The file cannot be read, so that no user has access now.
    Unknown,
}

/// The users that the file names.
pub struct Users {
    file: PathBuf,
    known: Mutex<LoadedUsers>,
    queue: PasswordQueue,
    /// The hash that unknown users are checked against, so that their check takes equally long.
    decoy: String,
}

impl Users {
    /// Creates the list without reading the file.
    pub fn new(file: PathBuf) -> Users {
        let decoy = if file.as_os_str().is_empty() { String::new() } else { hash("nobody").unwrap_or_default() };
        Users { file, known: Mutex::default(), queue: PasswordQueue::new(TURN_TIMEOUT), decoy }
    }

    /// Returns whether the file still has the line with which a user logged in.
    pub(crate) fn standing(&self, name: &str, fingerprint: &UserFingerprint) -> Standing {
        let Ok(user) = self.find(name) else { return Standing::Unknown };
        match user.filter(|user| user.fingerprint() == *fingerprint) {
            Some(user) => Standing::Same(user.role),
            None => Standing::Gone,
        }
    }

    /// Finds a user; the error means that the file cannot be read.
    fn find(&self, name: &str) -> Result<Option<User>, UnreadableUsers> {
        let version = FileVersion::of(&self.file);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.read != version || version.is_none() {
            match read_users(&self.file) {
                Ok(text) => *known = LoadedUsers { read: version, is_unreadable: false, users: parse(&text) },
                Err(error) => {
                    if !known.is_unreadable {
                        tracing::error!(%error, file = %self.file.display(), "cannot read the file of users, so no user can log in");
                    }
                    *known = LoadedUsers { is_unreadable: true, ..LoadedUsers::default() };
                    return Err(UnreadableUsers);
                }
            }
        }
        Ok(known.users.get(name).cloned())
    }

    /// Returns the fingerprint of the user's line if the password is right. The check waits for the turn of the network
    /// that asks.
    pub(crate) fn check(&self, name: &str, password: &str, from: IpAddr) -> Result<Option<UserFingerprint>, Unchecked> {
        if password.len() > MAX_PASSWORD_BYTES {
            return Ok(None);
        }
        let _turn = self.queue.wait(from)?;
        let user = self.find(name)?;
        let hash = user.as_ref().map_or(self.decoy.as_str(), |user| &user.hash);
        let is_right = PasswordHash::new(hash)
            .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok());
        Ok(user.filter(|_| is_right).map(|user| user.fingerprint()))
    }
}

/// Error: the file of users cannot be read.
struct UnreadableUsers;

/// Reasons why a password was not checked. They say nothing about the password.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unchecked {
    /// Too many passwords are being checked.
    Busy,
    /// The file of users cannot be read.
    Unreadable,
}

impl From<HashingBusy> for Unchecked {
    fn from(_: HashingBusy) -> Self {
        Unchecked::Busy
    }
}

impl From<UnreadableUsers> for Unchecked {
    fn from(_: UnreadableUsers) -> Self {
        Unchecked::Unreadable
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
fn parse(text: &str) -> HashMap<String, User> {
    text.lines().filter_map(user).collect()
}

/// Parses one line: name, role and hash.
fn user(line: &str) -> Option<(String, User)> {
    let mut parts = line.splitn(3, ':');
    let (name, role, hash) = (parts.next()?.trim(), parts.next()?.trim(), parts.next()?.trim());
    let role = [UserRole::Viewer, UserRole::Operator].into_iter().find(|known| known.as_str() == role)?;
    (!name.is_empty() && !name.starts_with('#')).then(|| (name.to_owned(), User { role, hash: hash.to_owned() }))
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
        |line: &str| is_text(line) && user(line).is_none_or(|(_, user)| PasswordHash::new(&user.hash).is_err());
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
