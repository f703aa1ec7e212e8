//! `anomaly passwd`: adds, changes and removes dashboard users.

use std::fs::File;
use std::io::{BufRead, ErrorKind, IsTerminal, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::output;
use crate::cli::Passwd;
use crate::error::{Error, Result};
use crate::finding;
use crate::foreign;
use crate::page::auth::{hash, read_users};

/// Minimum length of a password in characters (NIST SP 800-63B requires at least 8).
const SHORTEST: usize = 8;

/// Adds, changes or removes one line of the file.
///
/// # Errors
/// 64 if the name or the password is not allowed, 66 if the file cannot be read, 69 if it cannot be written.
pub fn run(passwd: &Passwd, file: &Path) -> Result<()> {
    let name = passwd.name.trim();
    if name.is_empty() || name.len() > 256 || name.starts_with('#') || name.contains([':', '\n', '\0']) {
        return Err(Error::usage("a name has 1 to 256 bytes, no colon, and does not begin with #"));
    }
    let target = resolved(file)?;
    let is_theirs = |line: &&str| line.split(':').next().is_some_and(|other| other.trim() == name);
    let unknown = || Error::usage(format_args!("{} has no {name}", foreign::path(file)));
    // An unusable file is reported before a password is asked for.
    if !old_text(&target)?.lines().any(|line| is_theirs(&line)) && passwd.remove {
        return Err(unknown());
    }
    let added = match passwd.remove {
        true => None,
        false => Some(format!("{name}:{}:{}", passwd.role.as_str(), hash(&ask()?).map_err(Error::usage)?)),
    };
    // From here on no other `passwd` changes the file, so that no user is lost.
    let _lock = lock(&target)?;
    let old = old_text(&target)?;
    let known = old.lines().find(is_theirs);
    let mut lines = old.lines().filter(|line| !is_theirs(line)).map(str::to_owned).collect::<Vec<_>>();
    let done = match (&added, known) {
        (None, None) => return Err(unknown()),
        (None, Some(_)) => "removed",
        (Some(_), None) => "added",
        (Some(_), Some(_)) => "changed",
    };
    lines.extend(added);
    let text = lines.iter().fold(String::new(), |text, line| format!("{text}{line}\n"));
    replace(&target, &text)
        .map_err(|e| Error::unavailable(format_args!("cannot write {}: {e}", foreign::path(file))))?;
    output::line(format_args!("{name} {done} in {}", file.display()))
}

/// Returns the regular file to change: that which a symbolic link leads to. It may be missing, but not behind a link.
fn resolved(file: &Path) -> Result<PathBuf> {
    let unusable = |e: std::io::Error| Error::no_input(format_args!("cannot read {}: {e}", foreign::path(file)));
    match std::fs::symlink_metadata(file) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(file.to_owned()),
        about => about.map_err(unusable)?,
    };
    let target = file.canonicalize().map_err(|e| match e.kind() {
        ErrorKind::NotFound => {
            Error::no_input(format_args!("{} is a symbolic link to a file that does not exist", foreign::path(file)))
        }
        _ => unusable(e),
    })?;
    finding::file::is_replaceable(&target).map_err(unusable)?;
    Ok(target)
}

/// Returns the text of the file; a missing file is empty.
fn old_text(file: &Path) -> Result<String> {
    match read_users(file) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(String::new()),
        text => text.map_err(|e| Error::no_input(format_args!("cannot read {}: {e}", foreign::path(file)))),
    }
}

/// Waits until no other `passwd` changes a file of this directory. The file itself cannot be locked, because each change
/// replaces it.
fn lock(file: &Path) -> Result<File> {
    let dir = directory(file);
    let cannot = |e: std::io::Error| Error::unavailable(format_args!("cannot lock {}: {e}", foreign::path(dir)));
    let opened = File::open(dir).map_err(cannot)?;
    loop {
        match flock(&opened, FlockOperation::LockExclusive) {
            Err(Errno::INTR) => {}
            // Some network file systems cannot lock a directory.
            Ok(()) | Err(Errno::BADF | Errno::NOLCK | Errno::NOTSUP) => return Ok(opened),
            Err(e) => return Err(cannot(e.into())),
        }
    }
}

fn directory(file: &Path) -> &Path {
    file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Reads the password twice from a terminal, without showing it; otherwise from one line of standard input.
fn ask() -> Result<String> {
    let unreadable = |e: std::io::Error| Error::no_input(format_args!("cannot read a password: {e}"));
    let password = if std::io::stdin().is_terminal() {
        let first = rpassword::prompt_password("Password: ").map_err(unreadable)?;
        if first != rpassword::prompt_password("Again: ").map_err(unreadable)? {
            return Err(Error::usage("the two passwords differ"));
        }
        first
    } else {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map_err(unreadable)?;
        line.trim_end_matches(['\r', '\n']).to_owned()
    };
    if password.chars().count() < SHORTEST {
        return Err(Error::usage(format_args!("a password has at least {SHORTEST} characters")));
    }
    Ok(password)
}

/// Writes the file atomically, with its old mode and owner. A new file is readable by the group of its directory.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let dir = directory(file);
    let mut new = tempfile::NamedTempFile::new_in(dir)?;
    new.write_all(text.as_bytes())?;
    let (mode, uid, gid) = match std::fs::metadata(file) {
        Ok(old) => (old.mode() & 0o777, old.uid(), old.gid()),
        Err(_) => {
            let dir = std::fs::metadata(dir)?;
            (0o640, dir.uid(), dir.gid())
        }
    };
    new.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
    // Only root may change the owner. For other users it is already right.
    let _ = chown(new.path(), Some(uid), Some(gid));
    new.as_file().sync_all()?;
    new.persist(file)?;
    Ok(())
}
