//! The one error type that crosses rooms. Its kind is the exit code that `main` returns (sysexits.h),
//! so whoever makes an error decides what the service manager will do about it.

use std::fmt;

/// What went wrong, as sysexits.h names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitKind {
    /// 64: the command line.
    Usage,
    /// 65: data that the policy does not allow to pass.
    Data,
    /// 66: an input file that cannot be read.
    NoInput,
    /// 69: a service that is not there (broker, database).
    Unavailable,
    /// 70: a broken promise of this program's own.
    Internal,
    /// 74: the output cannot be written.
    Output,
    /// 78: settings.
    Config,
    /// 0: whoever reads the output has gone, which ends the command. Nothing is wrong, and there is no message.
    Closed,
}

impl ExitKind {
    /// The process exit code.
    pub fn code(self) -> u8 {
        match self {
            ExitKind::Usage => 64,
            ExitKind::Data => 65,
            ExitKind::NoInput => 66,
            ExitKind::Unavailable => 69,
            ExitKind::Internal => 70,
            ExitKind::Output => 74,
            ExitKind::Config => 78,
            ExitKind::Closed => 0,
        }
    }
}

/// An error that ends the command or the role. The message says the place and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Decides the exit code.
    pub kind: ExitKind,
    /// For people; may have several lines.
    pub message: String,
}

/// Shorthand used all over the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of a kind, with a message for people.
    pub fn new(kind: ExitKind, message: impl fmt::Display) -> Self {
        Error { kind, message: message.to_string() }
    }

    /// Whether the message has lines of its own: a report of settings. Other messages are one line.
    pub fn is_report(&self) -> bool {
        self.message.starts_with("error")
    }

    /// 64
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(ExitKind::Usage, message)
    }

    /// 65
    pub fn data(message: impl fmt::Display) -> Self {
        Self::new(ExitKind::Data, message)
    }

    /// 66
    pub fn no_input(message: impl fmt::Display) -> Self {
        Self::new(ExitKind::NoInput, message)
    }

    /// 69
    pub fn unavailable(message: impl fmt::Display) -> Self {
        Self::new(ExitKind::Unavailable, message)
    }

    /// 70
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(ExitKind::Internal, message)
    }

    /// 78
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
