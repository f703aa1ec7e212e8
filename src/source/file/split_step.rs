//! Result of one step of splitting a file into records.

use super::batch::MAX_RECORD;
use super::input::InputFile;
use crate::error::Error;

/// The result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SplitStep {
    /// A record was split off.
    Record,
    /// A line that is not a record was skipped.
    Passed,
    /// The next record does not end within the available bytes.
    Hungry,
    /// There is no further record.
    End,
}

/// The error for a record that exceeds the limit.
pub(crate) fn too_long(input: &InputFile, what: &str, line: u64) -> Error {
    Error::data(format_args!(
        "{}:{line}: the {what} that begins here has more than {} MiB, which is the limit of one record; \
         the rest of the file was not read",
        input.name(),
        MAX_RECORD >> 20
    ))
}
