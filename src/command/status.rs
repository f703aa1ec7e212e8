//! `anomaly status`: prints the last report of the detector in the database.

use super::migrate::unreachable;
use super::output;
use crate::archive::{ConditionRow, StatusRow};
use crate::config::Settings;
use crate::error::Result;
use crate::store;

/// Age of a heartbeat after which the detector counts as stopped. Heartbeats come every 5 s, so three are missing.
const STALE_SECONDS: f64 = 15.0;

/// Prints one line for each partition, then the active conditions.
///
/// # Errors
/// 69 if the database is unavailable.
pub fn run(settings: &Settings) -> Result<()> {
    // A pool would wait only for a second, and would not report the reason of a failure.
    let (rows, conditions) = store::status(&settings.postgres).map_err(|e| unreachable(&settings.postgres, &e))?;
    if rows.is_empty() {
        output::line("no detector has reported yet")?;
    } else {
        output::line(format_args!(
            "{:<18} {:<20} {:>9} {:>14} {:>10} {:>12} {:>10} {:>10} {:>10} {:>9}  {:<26} STATE",
            "GROUP",
            "TOPIC",
            "PARTITION",
            "COMMITTED",
            "LAG",
            "JUDGED",
            "LEARNING",
            "REJECTED",
            "EXCLUDED",
            "SERIES",
            "NEWEST EVENT"
        ))?;
    }
    for row in &rows {
        print(row)?;
    }
    for condition in &conditions {
        print_condition(condition)?;
    }
    Ok(())
}

fn print(row: &StatusRow) -> Result<()> {
    let number = |n: Option<i64>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
    // By the database's clock, because the clocks of two hosts may differ.
    let state = if row.age > STALE_SECONDS {
        format!("not reporting for {:.0} s (last: {})", row.age, row.state)
    } else {
        row.state.clone()
    };
    output::line(format_args!(
        "{:<18} {:<20} {:>9} {:>14} {:>10} {:>12} {:>10} {:>10} {:>10} {:>9}  {:<26} {state}",
        row.group,
        row.topic,
        row.partition,
        number(row.committed),
        number(row.lag),
        number(row.judged),
        number(row.learning),
        number(row.rejected),
        number(row.excluded),
        row.series,
        row.event_time.map(|at| at.to_string()).unwrap_or_default(),
    ))
}

fn print_condition(condition: &ConditionRow) -> Result<()> {
    let ConditionRow { worker, code, severity, message, since, age, .. } = condition;
    let old = if *age > STALE_SECONDS { format!(" (last reported {age:.0} s ago)") } else { String::new() };
    output::line(format_args!("{}: {worker} since {since}{old}: {message} [{code}]", severity.as_str()))
}

/// Removes and lists partitions that have not reported for an hour.
///
/// # Errors
/// 69 if the database is unavailable.
pub fn forget(settings: &Settings) -> Result<()> {
    let forgotten = store::forget(&settings.postgres).map_err(|e| unreachable(&settings.postgres, &e))?;
    for row in &forgotten {
        output::line(format_args!(
            "forgot {} partitions of topic {} in group {}, last reported {:.0} h ago",
            row.partitions,
            row.topic,
            row.group,
            row.age / 3600.0
        ))?;
    }
    if forgotten.is_empty() {
        output::line("nothing to forget: every partition has reported within the last hour")?;
    }
    Ok(())
}
