//! `anomaly status`: what the detector last said of itself in the database.

use super::migrate::unreachable;
use super::output;
use crate::config::Settings;
use crate::error::Result;
use crate::event::Instant;
use crate::store;

/// A heartbeat comes every 5 s; three missed ones mean that nobody is there.
const STALE_MILLIS: i64 = 15_000;

/// Prints one line for each partition.
///
/// # Errors
/// 69 when the database is away.
pub fn run(settings: &Settings) -> Result<()> {
    // Not through a pool, which waits for a second only, and does not say why it waited in vain.
    let rows = store::status(&settings.postgres).map_err(|e| unreachable(&settings.postgres, &e))?;
    if rows.is_empty() {
        return output::line("no detector has reported yet");
    }
    let now = Instant::now();
    let number = |n: Option<i64>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
    output::line(format_args!(
        "{:<18} {:<20} {:>9} {:>14} {:>10} {:>9}  {:<26} STATE",
        "GROUP", "TOPIC", "PARTITION", "COMMITTED", "LAG", "SERIES", "NEWEST EVENT"
    ))?;
    for row in &rows {
        let age = now.millis() - row.updated_at.millis();
        let state = if age > STALE_MILLIS {
            format!("not reporting for {} s (last: {})", age / 1000, row.state)
        } else {
            row.state.clone()
        };
        output::line(format_args!(
            "{:<18} {:<20} {:>9} {:>14} {:>10} {:>9}  {:<26} {state}",
            row.group,
            row.topic,
            row.partition,
            number(row.committed),
            number(row.lag),
            row.series,
            row.event_time.map(|at| at.to_string()).unwrap_or_default(),
        ))?;
    }
    Ok(())
}
