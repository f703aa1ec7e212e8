//! Reads the files of the settings. Only "not found" counts as absent: every other error stops the start, with its
//! remedy.

use std::fmt::Write;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::account::{Account, SERVICE, acting, name_of, reader};
use super::report::{SettingOrigin, SettingsReport};
use crate::finding::{self, sandbox};
use crate::foreign;

/// Byte order mark, which Windows editors write before UTF-8 text.
const MARK: char = '\u{feff}';

/// Returns the metadata of a path, followed through symbolic links; `None` if nothing is there.
///
/// # Errors
/// When it cannot be determined, and when the target of a symbolic link does not exist.
pub fn metadata(path: &Path, account: Option<&Account>) -> io::Result<Option<Metadata>> {
    acting(account, || found(path, fs::metadata(path)))?
}

/// Returns the paths in a directory, sorted; `None` if the directory does not exist.
///
/// # Errors
/// When it cannot be read completely, or is not a directory.
pub fn list(dir: &Path, account: Option<&Account>) -> io::Result<Option<Vec<PathBuf>>> {
    let entries = || fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    let found = acting(account, || found(dir, entries()))??;
    Ok(found.map(|mut paths| {
        paths.sort();
        paths
    }))
}

/// Returns the text of a file; `None` if it does not exist.
///
/// # Errors
/// When it cannot be read, or is not UTF-8.
pub fn text(path: &Path, account: Option<&Account>) -> io::Result<Option<String>> {
    acting(account, || found(path, finding::file::read(path)))??.map(utf8).transpose()
}

/// Converts "not found" to `None`. A symbolic link whose target does not exist stays an error.
fn found<T>(path: &Path, result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        Err(_) => match fs::symlink_metadata(path) {
            Ok(there) if there.is_symlink() => Err(io::Error::other("it is a symbolic link that leads nowhere")),
            Ok(_) => Err(io::Error::other("it changed while it was read")),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        },
    }
}

fn utf8(bytes: Vec<u8>) -> io::Result<String> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(io::Error::new(ErrorKind::InvalidData, "it is UTF-16: save it as UTF-8"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = valid.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        let why = format!("it is not UTF-8: byte {column} of line {line} belongs to no character. Save it as UTF-8");
        io::Error::new(ErrorKind::InvalidData, why)
    })
}

/// Reports a path that cannot be read, with the remedy.
pub fn unreadable(path: &Path, error: &io::Error, account: Option<&Account>, report: &mut SettingsReport) {
    let title = format!("cannot read {}", foreign::path(path));
    report.add(&SettingOrigin::Secret(path.to_owned()), title, error, remedy(path, error, account));
}

/// Reads the secret in a file that contains nothing else, without its line end. Problems are reported.
pub fn secret(path: &Path, account: Option<&Account>, target: &str, report: &mut SettingsReport) -> Option<String> {
    let none = || io::Error::new(ErrorKind::NotFound, "it does not exist");
    let text = match text(path, account).and_then(|text| text.ok_or_else(none)) {
        Ok(text) => text,
        Err(e) => {
            unreadable(path, &e, account, report);
            return None;
        }
    };
    let text = text.trim_start_matches(MARK).trim_end_matches(['\r', '\n']);
    let has_lines = ["pem", "jaas", "config"].iter().any(|word| target.contains(word));
    let problem = match text {
        "" => format!("{} is empty", foreign::path(path)),
        _ if text.contains('\n') && !has_lines => format!("{} has more than one line", foreign::path(path)),
        _ => return Some(text.to_owned()),
    };
    let expected = format!("expected the value of `{target}` and nothing else");
    let help = Some("write the secret into the file, or remove the file and what names it".to_owned());
    report.add(&SettingOrigin::Secret(path.to_owned()), problem, expected, help);
    None
}

/// Says how to let this user read the path; `None` if the error itself is sufficient.
pub fn remedy(path: &Path, error: &io::Error, account: Option<&Account>) -> Option<String> {
    let is_absent = error.kind() == ErrorKind::NotFound;
    if !is_absent && error.kind() != ErrorKind::PermissionDenied {
        return None;
    }
    // In a service, hidden files look absent or unreadable.
    if let Some(why) = sandbox::hides(path).filter(|_| reader(account) == SERVICE) {
        return Some(format!("{why}: move it below /etc/anomaly"));
    }
    if is_absent {
        return None;
    }
    let mut text = format!("user {} may not read it", reader(account));
    if let Some((closed, metadata)) = closed(path, account) {
        let (owner, mode) = (name_of(metadata.uid()), metadata.mode() & 0o7777);
        let shown = foreign::path(&closed);
        let (what, remedy) = match metadata.is_dir() {
            true => ("directory", format!("chmod 0755 {shown} (or: chgrp anomaly {shown}; chmod 0750 {shown})")),
            false => ("file", format!("chgrp anomaly {shown}; chmod 0640 {shown}")),
        };
        let place = if closed == path { "it".to_owned() } else { format!("{what} {shown}") };
        let _ = write!(text, ": {place} is {owner}'s with mode {mode:04o}. As root: {remedy}");
    }
    Some(text)
}

/// Returns the outermost part of a path that this user may not enter or read.
fn closed(path: &Path, account: Option<&Account>) -> Option<(PathBuf, Metadata)> {
    let path = std::path::absolute(path).ok()?;
    let mut parts = path.ancestors().collect::<Vec<_>>();
    parts.reverse();
    let is_denied = |part: &Path| {
        let looked = acting(account, || fs::metadata(part)).and_then(|looked| looked);
        looked.is_err_and(|e| e.kind() == ErrorKind::PermissionDenied)
    };
    let at = parts.iter().position(|part| is_denied(part)).unwrap_or(parts.len());
    let closed = parts.get(at.checked_sub(1)?)?;
    // Read as the process's own user, which may see more than the account.
    fs::metadata(closed).ok().map(|metadata| (closed.to_path_buf(), metadata))
}
