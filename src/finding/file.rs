//! Reads a file that a setting names as a whole. Only a regular file of bounded size is read: a named pipe would block the
//! reader, and a device such as `/dev/zero` has no end.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{OFlags, major, minor};
use rustix::io::Errno;

/// Size in bytes of the largest file of settings, secrets or users.
const LARGEST_TEXT: u64 = 1 << 20;
/// Size in bytes of the largest file of certificates. The authorities of a whole system take about 0.3 MB.
const LARGEST_CERTIFICATES: u64 = 16 << 20;

/// Content of a file of settings, secrets or users, followed through symbolic links. `/dev/null` is an empty file.
///
/// # Errors
/// When the file cannot be read, is not a regular file, or has more than 1 MiB.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_at_most(path, LARGEST_TEXT)
}

/// Reads a file as [`read`] does, and returns it as text.
///
/// # Errors
/// As [`read`], and when the file is not UTF-8.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8"))
}

/// Verifies that a file that is replaced as a whole is a regular file, followed through symbolic links. `/dev/null` is
/// none: a new file would take the place of the device.
///
/// # Errors
/// When the file is missing or not a regular file.
pub(crate) fn is_replaceable(path: &Path) -> io::Result<()> {
    match is_empty_device(&std::fs::metadata(path)?)? {
        true => Err(io::Error::new(ErrorKind::InvalidInput, "it is a device, not a regular file")),
        false => Ok(()),
    }
}

/// Content of a file of certificates or keys, as [`read`] with a limit of 16 MiB.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_certificates(path: &Path) -> io::Result<Vec<u8>> {
    read_at_most(path, LARGEST_CERTIFICATES)
}

/// Verifies that a file of input can be opened, without waiting for the writer of a named pipe.
///
/// # Errors
/// When it cannot be opened, and when it is a directory.
pub(crate) fn opens(path: &Path) -> io::Result<()> {
    let kind = std::fs::metadata(path)?.file_type();
    match () {
        // A writer that waits for its reader would take this one for its reader.
        () if kind.is_fifo() => Ok(()),
        // Opening a directory succeeds, but reading it fails.
        () if kind.is_dir() => Err(Errno::ISDIR.into()),
        () => open(path).map(drop),
    }
}

/// Verifies that a regular file of any size can be opened.
///
/// # Errors
/// When it cannot be opened, or is not a regular file.
pub(crate) fn opens_regular(path: &Path) -> io::Result<()> {
    is_empty_device(&std::fs::metadata(path)?)?;
    open(path).map(drop)
}

fn read_at_most(path: &Path, largest: u64) -> io::Result<Vec<u8>> {
    // Checked before the file is opened, since opening a device may have an effect.
    if is_empty_device(&std::fs::metadata(path)?)? {
        return Ok(Vec::new());
    }
    let file = open(path)?;
    // The opened file may be another one than the file that was checked above.
    if is_empty_device(&file.metadata()?)? {
        return Ok(Vec::new());
    }
    let mut content = Vec::new();
    file.take(largest + 1).read_to_end(&mut content)?;
    if content.len() as u64 > largest {
        let why = format!("it has more than {} MiB: is it the right file?", largest >> 20);
        return Err(io::Error::new(ErrorKind::FileTooLarge, why));
    }
    Ok(content)
}

/// Opens a file without waiting for the writer of a named pipe and without taking over a terminal.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)
}

/// Returns whether the file is `/dev/null`, which has no content. Any other file that is not regular is an error.
fn is_empty_device(metadata: &Metadata) -> io::Result<bool> {
    let kind = metadata.file_type();
    let name = match kind {
        _ if kind.is_file() => return Ok(false),
        _ if kind.is_char_device() && (major(metadata.rdev()), minor(metadata.rdev())) == (1, 3) => return Ok(true),
        _ if kind.is_dir() => return Err(Errno::ISDIR.into()),
        _ if kind.is_fifo() => "a named pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    };
    let why = format!("it is {name}, not a regular file: replace it with a regular file, or remove it");
    Err(io::Error::new(ErrorKind::InvalidInput, why))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::mpsc;
    use std::time::Duration;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    /// Returns the result of a call that must not wait.
    fn soon<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || sender.send(call()));
        receiver.recv_timeout(Duration::from_secs(20)).expect("the call waits")
    }

    fn why(path: &Path) -> String {
        let path = path.to_owned();
        soon(move || read(&path)).expect_err("it was read").to_string()
    }

    #[test]
    fn only_a_regular_file_of_bounded_size_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        mkfifoat(CWD, at("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for (name, target) in [("pipe", at("fifo")), ("zero", "/dev/zero".into()), ("null", "/dev/null".into())] {
            symlink(target, at(name)).unwrap();
        }
        assert!(why(&at("fifo")).contains("a named pipe, not a regular file"));
        assert!(why(&at("pipe")).contains("a named pipe, not a regular file"));
        assert!(why(&at("socket")).contains("a socket, not a regular file"));
        assert!(why(&at("zero")).contains("a device, not a regular file"));
        assert_eq!(read(dir.path()).unwrap_err().kind(), ErrorKind::IsADirectory);
        assert_eq!(opens(dir.path()).unwrap_err().kind(), ErrorKind::IsADirectory);
        assert_eq!(opens_regular(&at("pipe")).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(read(&at("null")).unwrap(), b"");
        for name in ["fifo", "socket", "zero", "null"] {
            assert!(is_replaceable(&at(name)).is_err_and(|e| e.to_string().contains("not a regular file")), "{name}");
        }
        assert!(is_replaceable(dir.path()).is_err());
        assert!(
            soon({
                let pipe = at("pipe");
                move || opens(&pipe)
            })
            .is_ok()
        );

        std::fs::write(at("file"), "a = 1\n").unwrap();
        symlink(at("file"), at("link")).unwrap();
        assert_eq!(read_text(&at("link")).unwrap(), "a = 1\n");
        assert!(is_replaceable(&at("link")).is_ok());
        std::fs::write(at("large"), vec![b'#'; 1 << 20]).unwrap();
        assert_eq!(read(&at("large")).unwrap().len(), 1 << 20);
        std::fs::write(at("larger"), vec![b'#'; (1 << 20) + 1]).unwrap();
        assert!(why(&at("larger")).contains("more than 1 MiB"));
        assert!(read_certificates(&at("larger")).is_ok());
    }
}
