//! A device's anomalies over time, one lane for each metric: the higher the mark, the farther from what was expected.
//! Logarithmic, from 3 to 20 deviations and a little beyond.

use std::fmt::Write;

use super::minutes::{Coverage, CoverageRun};
use super::{Percent, mark, timed_title};
use crate::anomaly::{Anomaly, Severity};
use crate::archive::Bins;
use crate::page::view::format::{clock, sigma};

/// Height of one lane.
pub const HEIGHT: f64 = 72.0;

fn y(z: f64) -> f64 {
    let share = ((z / 3.0).ln() / (20f64 / 3.0).ln()).clamp(-0.05, 1.25);
    62.0 - share * 42.0
}

/// The marks of one metric.
pub fn lane<'a>(bins: &Bins, runs: &[CoverageRun], anomalies: impl Iterator<Item = &'a Anomaly>) -> String {
    let mut svg = format!("<svg class=\"chart\" width=\"100%\" height=\"{HEIGHT}\" aria-hidden=\"true\">");
    for (z, class) in [(20.0, "grid"), (6.0, "grid"), (3.0, "axis")] {
        let y = y(z);
        let _ = write!(svg, "<line class=\"{class}\" x2=\"100%\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
    }
    let first =
        runs.iter().position(|run| !matches!(run.state, Coverage::Missing | Coverage::Pending)).unwrap_or(usize::MAX);
    for run in runs.iter().skip(first).filter(|run| run.state == Coverage::Missing) {
        let (x, w) = (Percent(run.start), Percent(run.end - run.start));
        let _ = write!(svg, "<rect class=\"hatch\" x=\"{x}\" width=\"{w}\" y=\"4\" height=\"62\"/>");
    }
    let span = (bins.width * bins.count as i64).max(1) as f64;
    for anomaly in anomalies {
        let Some(time) = anomaly.timestamp else { continue };
        let share = (time.millis() - bins.from.millis()) as f64 / span;
        let title = timed_title(time, &clock(time), &sigma(anomaly.z_score, anomaly.direction));
        let is_critical = anomaly.severity == Severity::Critical;
        let z = anomaly.z_score.map_or(f64::INFINITY, f64::abs);
        svg += &mark(is_critical, Percent(share), y(z), 10.0, &title);
    }
    svg + "</svg>"
}

/// Names of its lines.
pub fn scale() -> String {
    let mut svg = format!("<svg class=\"chart\" width=\"100%\" height=\"{HEIGHT}\" aria-hidden=\"true\">");
    for z in [20, 6, 3] {
        let _ = write!(svg, "<text class=\"t\" x=\"12\" y=\"{:.1}\">{z}σ</text>", y(f64::from(z)) + 4.0);
    }
    svg + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Timestamp;
    use crate::page::chart::spark::tests::sample;

    #[test]
    fn a_mark_lies_at_its_time_and_distance() {
        let from = Timestamp::parse_rfc3339("2026-11-23T16:30:00.123Z").unwrap();
        let bins = Bins { from, width: 60_000, count: 60 };
        let (near, far) = (sample(13.0), sample(30.0));
        let svg = lane(&bins, &[], [&near, &far].into_iter());
        assert!(svg.contains("cx=\"50.00%\" cy=\"62.0\""), "{svg}");
        assert!(svg.contains("<svg x=\"50.00%\" y=\"20.0\""), "{svg}");
        let none = Anomaly { z_score: None, ..far };
        assert!(!lane(&bins, &[], std::iter::once(&none)).contains("inf"));
    }
}
