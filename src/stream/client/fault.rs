//! A fault: a failed call, and its remedy.

use std::fmt;

/// Remedy for a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Repeat the call with the same arguments.
    Retry,
    /// Abort the transaction, rewind and continue.
    Abort,
    /// The outcome is unknown, or the client is fenced or broken: rebuild everything from the committed offsets.
    Rebuild,
    /// Another process may have replaced this member under the same name. If it stays, the member must stop.
    Yield,
    /// Stop: an operator must act. The message says how.
    Stop,
    /// Stop: the settings, or the configuration of a topic, must be corrected. The message says how.
    Correct,
}

/// A failed call, with its remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Action that the caller must take.
    pub remedy: Remedy,
    /// Description of the fault for people.
    pub message: String,
    /// Whether a record was larger than its topic accepts.
    pub is_too_large: bool,
    /// Whether the topic refuses a record for its size, key or time, however often it is sent.
    pub is_refused: bool,
}

impl Fault {
    /// Creates a fault with its remedy.
    pub(crate) fn new(remedy: Remedy, message: impl fmt::Display) -> Self {
        Fault { remedy, message: message.to_string(), is_too_large: false, is_refused: false }
    }

    /// Changes the remedy to `Rebuild`, unless it is `Yield`, `Stop` or `Correct`. It is for calls that cannot be repeated.
    pub(crate) fn or_rebuild(self) -> Self {
        match self.remedy {
            Remedy::Stop | Remedy::Correct | Remedy::Yield => self,
            _ => Fault { remedy: Remedy::Rebuild, ..self },
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
