//! The checks next to the sentence. A tick means that something is known to work; a dash means that its state is not
//! known.

use super::{BannerContext, Facts};
use crate::archive::StatusRow;
use crate::health::ConditionCode;
use crate::page::view::banner::StatusCheck;
use crate::page::view::format::{age, counted, duration, grouped, rough};
use crate::page::view::text::isolated;

/// Lag, in seconds of input, up to which it is not a problem.
const SMALL_LAG_SECONDS: f64 = 10.0;

fn glyph(is_well: bool) -> &'static str {
    if is_well { "tick" } else { "cross" }
}

/// Makes all checks of the banner.
pub(crate) fn all(facts: &Facts<'_>, seen: BannerContext) -> Vec<StatusCheck> {
    let mut all = vec![detector(facts), lag(facts, seen.is_shrinking), judged(facts), database(facts), series(facts)];
    all.extend(clocks(facts, seen.ahead));
    all
}

fn detector(facts: &Facts<'_>) -> StatusCheck {
    let current = &facts.current;
    let (partitions, fresh) = (current.rows.len(), current.fresh());
    let mut states = current.rows.iter().map(|row| row.state.as_str()).collect::<Vec<_>>();
    states.sort_unstable();
    states.dedup();
    let is_running = states.iter().all(|state| *state == "running");
    let value = match states.as_slice() {
        _ if partitions == 0 || current.newest().is_none() => "not known".into(),
        _ if fresh < partitions => format!("{} of {partitions} partitions silent", partitions - fresh),
        // The sentence or one of its lines contains the reason.
        _ if current.degrading().next().is_some() => "degraded".into(),
        [one] if one.chars().count() <= 40 => isolated(one),
        states => counted(states.len() as u64, "state", "states"),
    };
    let mut note = match current.newest() {
        Some(age) => format!("reported {} ago", short(age)),
        None if partitions == 0 => "no report".to_owned(),
        None => "no report up to now".to_owned(),
    };
    if let [(group, topic, last), rest @ ..] = current.others.as_slice() {
        let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
        note += &format!(" \u{b7} {} on {}{more}: ended {}", isolated(group), isolated(topic), age(*last, facts.now));
    }
    let is_well = fresh == partitions && is_running && current.degrading().next().is_none();
    let is_known = current.newest().is_some();
    StatusCheck { glyph: if is_known { glyph(is_well) } else { "dash" }, name: "Detector", value, note }
}

/// Checks the lag. It is good if it is small or shrinking, measured in seconds of input at the current rate.
fn lag(facts: &Facts<'_>, is_shrinking: Option<bool>) -> StatusCheck {
    let (current, name) = (&facts.current, "Kafka lag");
    // A partition that does not report may have got more records since.
    let is_known = |row: &StatusRow| !current.is_reporting() || !current.is_silent(row);
    let lags = current.rows.iter().map(|row| row.lag.filter(|_| is_known(row))).collect::<Vec<_>>();
    let sum = lags.iter().flatten().map(|lag| (*lag).max(0) as u64).sum::<u64>();
    let unknown = lags.iter().filter(|lag| lag.is_none()).count();
    let value = if unknown == lags.len() { "not known".into() } else { counted(sum, "event", "events") };
    if !current.is_reporting() {
        let last = current.last(current.rows.iter().copied());
        let note = last.map_or("no report".into(), |since| format!("as of {}", age(since, facts.now)));
        return StatusCheck { glyph: "dash", name, value, note };
    }
    if unknown > 0 {
        return StatusCheck {
            glyph: "dash",
            name,
            value,
            note: format!("not known of {}", counted(unknown as u64, "partition", "partitions")),
        };
    }
    let pace = facts.data.reports.pace(facts.taken).map_or(0.0, |pace| pace.iter().sum::<f64>());
    let seconds = sum as f64 / pace;
    let of_input =
        format!("{} of input", if seconds < 10.0 { short(seconds) } else { duration((seconds * 1000.0) as i64) });
    let (glyph, note) = match is_shrinking {
        _ if sum == 0 => {
            (glyph(!current.has(ConditionCode::FallingBehind)), counted(lags.len() as u64, "partition", "partitions"))
        }
        _ if pace <= 0.0 => ("cross", "records wait, none was taken lately".to_owned()),
        _ if current.has(ConditionCode::FallingBehind) => ("cross", of_input),
        _ if seconds <= SMALL_LAG_SECONDS => ("tick", of_input),
        Some(true) => ("tick", format!("{of_input}, shrinking")),
        Some(false) => ("cross", format!("{of_input}, not shrinking")),
        None => ("dash", of_input),
    };
    StatusCheck { glyph, name, value, note }
}

fn judged(facts: &Facts<'_>) -> StatusCheck {
    let (judged, is_known) = (facts.judged, facts.current.is_reporting());
    let pace = facts.data.reports.pace(facts.taken);
    let is_learning = pace.is_some_and(|[judged, learning, ..]| learning > judged);
    StatusCheck {
        glyph: match judged {
            _ if is_learning && is_known => "clock",
            0 => "dash",
            _ => glyph(is_known),
        },
        name: "Judged",
        value: match judged {
            0 if facts.current.rows.is_empty() => "not known".into(),
            0 => "nothing".into(),
            n => format!("{} values", rough(n)),
        },
        note: match pace {
            Some([judged, learning, ..]) if learning > 0.0 => {
                format!("{} a second, {} learning", rate(judged), rate(learning))
            }
            Some([judged, ..]) => format!("{} a second", rate(judged)),
            None if facts.current.rows.is_empty() => "no report".into(),
            None => "nothing arrives at present".into(),
        },
    }
}

fn database(facts: &Facts<'_>) -> StatusCheck {
    let took = format!("answers in {:.1} ms", facts.data.took.as_secs_f64() * 1000.0);
    match facts.data.reports.refused {
        0 => StatusCheck {
            glyph: "tick",
            name: "Database",
            value: took,
            note: format!("asked {}", age(facts.taken, facts.now)),
        },
        n => StatusCheck {
            glyph: "cross",
            name: "Database",
            value: format!("{} refused", counted(n, "row", "rows")),
            note: "kept in sink_rejects".into(),
        },
    }
}

fn series(facts: &Facts<'_>) -> StatusCheck {
    let current = &facts.current;
    let series = current.rows.iter().map(|row| row.series.max(0) as u64).sum::<u64>();
    let rejected =
        facts.data.reports.arrived.tally.rejected.max(facts.data.coverage.iter().map(|row| row.rejected).sum());
    let is_split = facts.split_series();
    let mut note = match rejected {
        0 if current.rows.is_empty() => "no report".to_owned(),
        0 => "no record rejected".to_owned(),
        n => format!("{} rejected", counted(n, "record", "records")),
    };
    if is_split {
        note = format!("devices are split over partitions \u{b7} {note}");
    }
    StatusCheck {
        glyph: match rejected {
            _ if current.rows.is_empty() || is_split => "dash",
            0 => glyph(current.is_reporting()),
            _ => "cross",
        },
        name: "Series",
        value: match series {
            _ if current.rows.is_empty() => "not known".into(),
            n if is_split => counted(n, "window", "windows"),
            n => format!("{} watched", grouped(n)),
        },
        note,
    }
}

/// Checks the clocks; returns a check only for a clock that differs.
fn clocks(facts: &Facts<'_>, ahead: Option<f64>) -> Vec<StatusCheck> {
    let line = |whose: &str, seconds: f64| {
        let side = if seconds > 0.0 { "ahead" } else { "behind" };
        let value = format!("{} {side}", duration((seconds.abs() * 1000.0) as i64));
        StatusCheck { glyph: "cross", name: "Clocks", value, note: format!("{whose}, against the database's") }
    };
    let detector = facts.data.reports.skew().map(|seconds| line("the detector's clock", seconds));
    let own = ahead.map(|seconds| line("this dashboard's clock", seconds));
    detector.into_iter().chain(own).collect()
}

/// Formats a rate per second, with one decimal if it is small.
fn rate(n: f64) -> String {
    match n {
        0.0 => "0".to_owned(),
        n if n < 0.1 => "under 0.1".to_owned(),
        n if n < 10.0 => format!("{n:.1}"),
        n => grouped(n.round() as u64),
    }
}

/// Formats seconds, with one decimal below ten.
fn short(seconds: f64) -> String {
    if seconds < 10.0 { format!("{seconds:.1} s") } else { duration((seconds * 1000.0) as i64) }
}
