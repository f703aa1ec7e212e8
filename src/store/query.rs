//! Queries of the pages: plain statements that use an index, each with its limits. Counts cover a range of time, never
//! the whole table. Each file implements one trait of [`crate::archive`].

mod anomalies;
mod conditions;
mod counts;
mod reports;
mod reviews;

use postgres::Error;

pub use anomalies::newest;
pub use reports::{conditions, position, status};
pub use reviews::try_add as try_review;

/// The end of the times that the detectors may have given until now: a minute more than the present of the clock that is
/// most ahead. A clock that was ahead once has left later times.
const PRESENT: &str = "now() + interval '1 minute' + greatest(interval '0', \
     (select max(reported_at - updated_at) from detector_status))";

/// Returns the value of a column.
fn get<'a, T: postgres::types::FromSql<'a>>(row: &'a postgres::Row, column: usize) -> Result<T, Error> {
    row.try_get(column)
}
