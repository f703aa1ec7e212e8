//! Standard output and standard error of all commands. No other file writes there, and a lint checks this: `println!`
//! panics if the reader has closed the output or the disk is full.
//!
//! If the reader has closed the output (`anomaly status | head`), the command ends without a message and with exit code
//! 0. Any other failure to write is an error with exit code 74, because a script would take a part of the output for
//! all of it.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, StdoutLock, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::error::{Error, ExitKind, Result};
use crate::foreign;

/// Writes one line to standard output. Escapes control characters.
///
/// # Errors
/// As [`written`].
pub fn line(text: impl Display) -> Result<()> {
    written(writeln!(io::stdout(), "{}", foreign::line(&text.to_string())))
}

/// Writes a text of several lines, which ends with a newline, to standard output. Escapes control characters.
///
/// # Errors
/// As [`written`].
pub fn lines(text: impl Display) -> Result<()> {
    written(write!(io::stdout(), "{}", foreign::lines(&text.to_string())))
}

/// Returns standard output for programs: bytes are written unchanged.
pub fn raw() -> StdoutLock<'static> {
    io::stdout().lock()
}

/// Converts the result of a write to standard output.
///
/// # Errors
/// [`ExitKind::Closed`] if the reader has closed the output, 74 if the output cannot be written.
pub fn written<T>(result: io::Result<T>) -> Result<T> {
    result.map_err(|e| match e.kind() {
        ErrorKind::BrokenPipe => Error::new(ExitKind::Closed, ""),
        _ => Error::new(
            ExitKind::Output,
            format_args!("cannot write to standard output: {e}; what was written is incomplete"),
        ),
    })
}

/// Flushes the buffered output.
///
/// # Errors
/// As [`written`].
pub fn finish() -> Result<()> {
    written(io::stdout().flush())
}

/// Writes one line to standard error. A failure is ignored, because there is no other place to report it.
pub fn note(text: impl Display) {
    let _ = writeln!(io::stderr(), "{}", foreign::line(&text.to_string()));
}

/// Writes a text of several lines to standard error, as [`note`] does.
pub fn notes(text: impl Display) {
    let _ = writeln!(io::stderr(), "{}", foreign::lines(text.to_string().trim_end()));
}

/// Replaces the progress line on a terminal; an empty text removes it. Without a terminal it does nothing.
pub fn progress(text: impl Display) {
    if shows_progress() {
        let _ = write!(io::stderr(), "\r\u{1b}[K{text}");
    }
}

/// Returns whether standard error is a terminal.
pub fn shows_progress() -> bool {
    io::stderr().is_terminal()
}

/// Returns whether a path is the file or the pipe that standard output goes to, under any name. `/dev/null` and terminals
/// are not: nothing in them can be mixed up.
pub fn is_output(path: &Path) -> bool {
    let output = io::stdout().as_fd().try_clone_to_owned().and_then(|output| File::from(output).metadata());
    let output = output.ok().filter(|output| !output.file_type().is_char_device());
    output
        .zip(std::fs::metadata(path).ok())
        .is_some_and(|(output, path)| (output.dev(), output.ino()) == (path.dev(), path.ino()))
}

/// Returns whether standard output is a terminal.
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}
