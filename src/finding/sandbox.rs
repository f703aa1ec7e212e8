//! Directories that the packaged units hide from the services. `anomaly check` can read a file there, but a service
//! cannot.

use std::path::Path;

/// One line of the units' common drop-in, `systemd/anomaly-.service.d/10-anomaly.conf`, that hides directories.
struct Hides {
    line: &'static str,
    dirs: &'static [&'static str],
    /// The line that makes the directories visible again.
    shows: &'static str,
}

const HIDDEN: [Hides; 2] = [
    Hides {
        line: "ProtectHome=yes",
        dirs: &["/home", "/root", "/run/user", "/var/run/user"],
        shows: "ProtectHome=read-only",
    },
    Hides { line: "PrivateTmp=yes", dirs: &["/tmp", "/var/tmp"], shows: "PrivateTmp=no" },
];

/// Says why a service cannot see a path, and how to make it visible. `None` if the units do not hide it.
pub(crate) fn hides(path: &Path) -> Option<String> {
    HIDDEN.iter().find_map(|Hides { line, dirs, shows }| {
        let dir = dirs.iter().find(|dir| path.starts_with(dir))?;
        Some(format!(
            "the services do not see {dir} of this machine ({line}), unless a drop-in of their units has {shows}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hidden_directories_are_those_that_the_units_hide() {
        let units = include_str!("../../systemd/anomaly-.service.d/10-anomaly.conf");
        for Hides { line, .. } in HIDDEN {
            assert!(units.lines().any(|other| other == line), "the units have no {line}");
        }
        // A unit that hides more directories needs an entry here.
        for more in ["ProtectHome=tmpfs", "InaccessiblePaths=", "TemporaryFileSystem=", "RootDirectory=/"] {
            assert!(!units.lines().any(|line| line.starts_with(more)), "the units have {more}");
        }
    }

    #[test]
    fn a_path_is_hidden_by_its_directory_and_not_by_its_beginning() {
        for path in ["/home/ada/key.pem", "/root/users", "/run/user/1000/ca.pem", "/tmp", "/var/tmp/a/b.csv"] {
            assert!(hides(path.as_ref()).is_some(), "{path}");
        }
        for path in ["/homes/key.pem", "/etc/anomaly/tls/key.pem", "/var/lib/anomaly/tmp/a.csv", "/run/users", "tmp/a"]
        {
            assert_eq!(hides(path.as_ref()), None, "{path}");
        }
        assert!(hides("/home/ada/key.pem".as_ref()).is_some_and(|why| why.contains("ProtectHome=read-only")));
        assert!(hides("/tmp/key.pem".as_ref()).is_some_and(|why| why.contains("(PrivateTmp=yes)")));
    }
}
