//! `anomaly passwd`: adds, changes and removes dashboard users.

use std::io::{BufRead, IsTerminal, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use super::output;
use crate::cli::Passwd;
use crate::error::{Error, Result};
use crate::finding;
use crate::foreign;
use crate::page::auth::hash;

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
    let old = match finding::file::read_text(file) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(Error::no_input(format_args!("cannot read {}: {e}", foreign::path(file)))),
    };
    let is_theirs = |line: &&str| line.split(':').next().is_some_and(|other| other.trim() == name);
    let known = old.lines().find(is_theirs);
    let mut lines = old.lines().filter(|line| !is_theirs(line)).map(str::to_owned).collect::<Vec<_>>();
    let done = if passwd.remove {
        if known.is_none() {
            return Err(Error::usage(format_args!("{} has no {name}", foreign::path(file))));
        }
        "removed"
    } else {
        let role = passwd.role.as_str();
        lines.push(format!("{name}:{role}:{}", hash(&ask()?).map_err(Error::usage)?));
        if known.is_some() { "changed" } else { "added" }
    };
    let text = lines.iter().fold(String::new(), |text, line| format!("{text}{line}\n"));
    replace(file, &text).map_err(|e| Error::unavailable(format_args!("cannot write {}: {e}", foreign::path(file))))?;
    output::line(format_args!("{name} {done} in {}", file.display()))
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
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
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
