//! Names the files of the settings directory that look like settings and are not read.

use std::path::Path;

use super::account::Account;
use super::read;
use super::schema::ShippedFile;
use crate::foreign;

/// Returns a sentence for each such file, and for a directory that may be entered but not listed.
pub(super) fn notices(dir: &Path, account: Option<&Account>) -> Vec<String> {
    let described = |path: &Path| {
        format!(
            "{} is not read: the files are common.toml, producer.toml, detector.toml, dashboard.toml and conf.d/*.toml",
            foreign::path(path)
        )
    };
    match read::list(dir, account) {
        Ok(listed) => listed.iter().flatten().filter(|path| is_mistaken(path)).map(|path| described(path)).collect(),
        Err(e) => vec![format!(
            "{} cannot be listed, so it is not known whether it has files with other names: {e}",
            foreign::path(dir)
        )],
    }
}

/// Returns whether a path of the settings directory looks like settings, but has another name than those that are read.
fn is_mistaken(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_known = name.starts_with('.') || name == "conf.d" || ShippedFile::ALL.iter().any(|file| file.name() == name);
    !is_known && [".toml", ".conf", ".d"].iter().any(|end| name.to_ascii_lowercase().ends_with(end))
}
