//! The error type that all rooms share. Its kind is the exit code that `main` returns (sysexits.h). The code that
//! creates an error therefore decides how the service manager reacts.

use std::fmt;

/// Kind of an error, as in sysexits.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitKind {
    /// 64: wrong usage of the command line.
    Usage,
    /// 65: data that cannot be judged.
    Data,
    /// 66: an input file cannot be read.
    NoInput,
    /// 69: a service (broker, database) is unavailable.
    Unavailable,
    /// 70: an internal error of the program.
    Internal,
    /// 74: the output cannot be written.
    Output,
    /// 75: a signal ended the command before its work was done.
    Interrupted,
    /// 78: wrong settings, which a person must correct.
    Config,
    /// 0: the reader has closed the output, which ends the command without a message.
    Closed,
}

impl ExitKind {
    /// Returns the exit code of the process.
    pub fn code(self) -> u8 {
        match self {
            ExitKind::Usage => 64,
            ExitKind::Data => 65,
            ExitKind::NoInput => 66,
            ExitKind::Unavailable => 69,
            ExitKind::Internal => 70,
            ExitKind::Output => 74,
            ExitKind::Interrupted => 75,
            ExitKind::Config => 78,
            ExitKind::Closed => 0,
        }
    }
}

/// An error that ends the command or the role. The message contains the place and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Kind of the error, which determines the exit code.
    pub kind: ExitKind,
    /// Message for people; may have several lines.
    pub message: String,
    /// Whether the message is a report of several lines that has its final form.
    pub is_report: bool,
}

/// Result with this error type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Creates an error of a kind.
    pub fn new(kind: ExitKind, message: impl fmt::Display) -> Self {
        Error { kind, message: message.to_string(), is_report: false }
    }

    /// Creates an error with exit code 78 from a report about the settings.
    pub fn report(report: impl fmt::Display) -> Self {
        Error { is_report: true, ..Self::config(report) }
    }

    /// Creates an error with exit code 64.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(ExitKind::Usage, message)
    }

    /// Creates an error with exit code 65.
    pub fn data(message: impl fmt::Display) -> Self {
        Self::new(ExitKind::Data, message)
    }

    /// Creates an error with exit code 66.
    pub fn no_input(message: impl fmt::Display) -> Self {
        Self::new(ExitKind::NoInput, message)
    }

    /// Creates an error with exit code 69.
    pub fn unavailable(message: impl fmt::Display) -> Self {
        Self::new(ExitKind::Unavailable, message)
    }

    /// Creates an error with exit code 70.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(ExitKind::Internal, message)
    }

    /// Creates an error with exit code 78.
    pub fn config(message: impl fmt::Display) -> Self {
        Self::new(ExitKind::Config, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
