//! The clock of this machine. Core does not know it: times are passed in.

use time::OffsetDateTime;

use crate::event::Timestamp;

impl Timestamp {
    /// Returns the current time of the machine's clock.
    pub fn now() -> Self {
        Self::from(OffsetDateTime::now_utc())
    }
}
