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

/// Returns the value of a column.
fn get<'a, T: postgres::types::FromSql<'a>>(row: &'a postgres::Row, column: usize) -> Result<T, Error> {
    row.try_get(column)
}
