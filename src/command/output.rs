//! Standard output and standard error of all commands. Nothing else writes there, and a lint holds that: `println!` panics
//! when the reader has gone or the disk is full.
//!
//! A reader that has gone (`anomaly status | head`) ends the command, quietly and with exit code 0. Any other failure to
//! write is an error with exit code 74, since a script would take half of the output for all of it.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, StdoutLock, Write};

use crate::error::{Error, ExitKind, Result};
use crate::foreign;

/// Writes one line to standard output. Control characters in it are escaped.
///
/// # Errors
/// Those of [`written`].
pub fn line(text: impl Display) -> Result<()> {
    written(writeln!(io::stdout(), "{}", foreign::line(&text.to_string())))
}

/// Writes a text of several lines, which ends with a newline, to standard output. Control characters in it are escaped.
///
/// # Errors
/// Those of [`written`].
pub fn lines(text: impl Display) -> Result<()> {
    written(write!(io::stdout(), "{}", foreign::lines(&text.to_string())))
}

/// Standard output for what programs read: as it is, byte for byte.
pub fn raw() -> StdoutLock<'static> {
    io::stdout().lock()
}

/// What a write to standard output means for the command.
///
/// # Errors
/// [`ExitKind::Closed`] when the reader has gone, 74 when the output cannot be written.
pub fn written<T>(result: io::Result<T>) -> Result<T> {
    result.map_err(|e| match e.kind() {
        ErrorKind::BrokenPipe => Error::new(ExitKind::Closed, ""),
        _ => Error::new(
            ExitKind::Output,
            format_args!("cannot write to standard output: {e}; what was written is incomplete"),
        ),
    })
}

/// Writes out what is still buffered.
///
/// # Errors
/// Those of [`written`].
pub fn finish() -> Result<()> {
    written(io::stdout().flush())
}

/// Writes one line to standard error. If that fails, there is no place left to say so.
pub fn note(text: impl Display) {
    let _ = writeln!(io::stderr(), "{}", foreign::line(&text.to_string()));
}

/// Writes a text of several lines to standard error, as [`note`] does.
pub fn notes(text: impl Display) {
    let _ = writeln!(io::stderr(), "{}", foreign::lines(text.to_string().trim_end()));
}

/// Replaces the line of progress on a terminal; an empty text removes it. Without a terminal there is no such line.
pub fn progress(text: impl Display) {
    if shows_progress() {
        let _ = write!(io::stderr(), "\r\u{1b}[K{text}");
    }
}

/// Whether a person sees standard error.
pub fn shows_progress() -> bool {
    io::stderr().is_terminal()
}

/// Whether a person sees standard output.
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}
