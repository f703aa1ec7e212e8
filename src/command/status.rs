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
            "{:<18} {:<20} {:>9} {:>14} {:>10} {:>12} {:>10} {:>10} {:>10} {:>10} {:>9}  {:<26} STATE",
            "GROUP",
            "TOPIC",
            "PARTITION",
            "COMMITTED",
            "LAG",
            "JUDGED",
            "LEARNING",
            "REJECTED",
            "IGNORED",
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
    let state = state(row);
    output::line(format_args!(
        "{:<18} {:<20} {:>9} {:>14} {:>10} {:>12} {:>10} {:>10} {:>10} {:>10} {:>9}  {:<26} {state}",
        row.group,
        row.topic,
        row.partition,
        number(row.committed),
        number(lag(row)),
        number(row.judged),
        number(row.learning),
        number(row.rejected),
        number(row.ignored),
        number(row.excluded),
        row.series,
        row.event_time.map(|at| at.to_string()).unwrap_or_default(),
    ))
}

/// Describes the state. The age is by the database's clock, because the clocks of two hosts may differ.
fn state(row: &StatusRow) -> String {
    match row.age {
        age if age > STALE_SECONDS => format!("not reporting for {age:.0} s (last: {})", row.state),
        age if age < -STALE_SECONDS => {
            format!("not known (last: {}, dated {:.0} s ahead of the database's clock)", row.state, -age)
        }
        _ => row.state.clone(),
    }
}

/// Returns the lag; `None` if the partition does not report, because it may have got more records since.
fn lag(row: &StatusRow) -> Option<i64> {
    row.lag.filter(|_| row.age.abs() <= STALE_SECONDS)
}

fn print_condition(condition: &ConditionRow) -> Result<()> {
    let ConditionRow { worker, code, severity, message, since, age, .. } = condition;
    let old = match *age {
        age if age > STALE_SECONDS => format!(" (last reported {age:.0} s ago)"),
        age if age < -STALE_SECONDS => format!(" (reported {:.0} s ahead of the database's clock)", -age),
        _ => String::new(),
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_does_not_report_has_no_known_lag() {
        let of = |age| {
            let row = StatusRow { lag: Some(0), ..StatusRow::sample(age) };
            (lag(&row), state(&row))
        };
        assert_eq!(of(2.0), (Some(0), "running".into()));
        assert_eq!(of(40.0), (None, "not reporting for 40 s (last: running)".into()));
        let ahead = "not known (last: running, dated 86400 s ahead of the database's clock)";
        assert_eq!(of(-86_400.0), (None, ahead.into()));
    }
}
