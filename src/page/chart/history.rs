//! A device's anomalies over time, with one lane for each metric. A higher position means a larger distance from the
//! expected value. The scale is logarithmic, from the threshold of each anomaly to slightly more than [`FAR`] times the
//! threshold.

use std::fmt::Write;

use super::minutes::{Coverage, CoverageRun};
use super::{Percent, symbol, timed_title};
use crate::anomaly::{Anomaly, Severity};
use crate::archive::Bins;
use crate::method::critical_from;
use crate::page::view::format::{clock, sigma_of};
use crate::policy::Policy;

/// Height of one lane in pixels.
pub(crate) const HEIGHT: f64 = 72.0;

/// Multiple of the threshold at the upper line: 20 deviations at a threshold of 3.
const FAR: f64 = 20.0 / 3.0;

/// Returns the vertical position of a score, given as a multiple of the threshold.
fn y(times: f64) -> f64 {
    let share = (times.ln() / FAR.ln()).clamp(-0.05, 1.25);
    62.0 - share * 42.0
}

/// Returns the scores of the three lines, the upper one first. The middle one is where the method of the newest anomaly
/// becomes critical; it is missing if this program does not have the method. Without an anomaly, the default applies.
fn lines(newest: Option<&Anomaly>, threshold: f64) -> [Option<f64>; 3] {
    let critical = match newest {
        Some(anomaly) => critical_from(&anomaly.method, threshold),
        None => critical_from(&Policy::default().method, threshold),
    };
    [Some(FAR * threshold), critical, Some(threshold)]
}

/// Draws the anomalies of one metric. `newest` is the anomaly whose scale is drawn, as in [`scale`].
pub(crate) fn lane<'a>(
    bins: &Bins,
    runs: &[CoverageRun],
    newest: Option<&Anomaly>,
    anomalies: impl Iterator<Item = &'a Anomaly>,
) -> String {
    let mut svg = format!("<svg class=\"chart\" width=\"100%\" height=\"{HEIGHT}\" aria-hidden=\"true\">");
    for (times, class) in lines(newest, 1.0).into_iter().zip(["grid", "grid", "axis"]) {
        let Some(y) = times.map(y) else { continue };
        let _ = write!(svg, "<line class=\"{class}\" x2=\"100%\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
    }
    let first = runs.iter().position(|run| run.state.has_events()).unwrap_or(usize::MAX);
    for run in runs.iter().skip(first).filter(|run| matches!(run.state, Coverage::Missing | Coverage::Excluded)) {
        let (x, w) = (Percent(run.start), Percent(run.end - run.start));
        let _ = write!(svg, "<rect class=\"hatch\" x=\"{x}\" width=\"{w}\" y=\"4\" height=\"62\"/>");
    }
    let span = (bins.width * bins.count as i64).max(1) as f64;
    for anomaly in anomalies {
        let Some(time) = anomaly.timestamp else { continue };
        let share = (time.millis() - bins.from.millis()) as f64 / span;
        let title = timed_title(time, &clock(time), &sigma_of(anomaly));
        let is_critical = anomaly.severity == Severity::Critical;
        svg += &symbol(is_critical, Percent(share), y(anomaly.times_threshold()), 10.0, &title);
    }
    svg + "</svg>"
}

/// Draws the labels of the lines, with the threshold of the newest anomaly, or the default without any.
pub(crate) fn scale(newest: Option<&Anomaly>) -> String {
    let threshold = newest.and_then(|anomaly| anomaly.threshold).unwrap_or_else(|| Policy::default().threshold);
    let mut svg = format!("<svg class=\"chart\" width=\"100%\" height=\"{HEIGHT}\" aria-hidden=\"true\">");
    for score in lines(newest, threshold).into_iter().flatten() {
        let (y, score) = (y(score / threshold) + 4.0, (score * 10.0).round() / 10.0);
        let _ = write!(svg, "<text class=\"t\" x=\"12\" y=\"{y:.1}\">{score}σ</text>");
    }
    svg + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Timestamp;
    use crate::page::chart::spark::tests::sample;

    #[test]
    fn an_anomaly_is_drawn_at_its_time_and_distance() {
        let from = Timestamp::parse_rfc3339("2026-11-23T16:30:00.123Z").unwrap();
        let bins = Bins { from, width: 60_000, count: 60 };
        let (near, far) = (sample(13.0), sample(30.0));
        let svg = lane(&bins, &[], None, [&near, &far].into_iter());
        assert!(svg.contains("cx=\"50.00%\" cy=\"62.0\""), "{svg}");
        assert!(svg.contains("<svg x=\"50.00%\" y=\"20.0\""), "{svg}");
        let none = Anomaly { z_score: None, score: f64::MAX, ..far };
        assert!(!lane(&bins, &[], None, std::iter::once(&none)).contains("inf"));
        let other = Anomaly { threshold: Some(1.5), score: 10.0, ..sample(20.0) };
        assert!(lane(&bins, &[], None, std::iter::once(&other)).contains("<svg x=\"50.00%\" y=\"20.0\""));
        assert!(scale(None).contains(">20σ<") && scale(None).contains(">6σ<"));
        assert!(scale(Some(&other)).contains(">10σ<") && scale(Some(&other)).contains(">1.5σ<"));
        let unknown = Anomaly { method: "other".into(), ..other };
        assert!(!scale(Some(&unknown)).contains(">3σ<") && scale(Some(&unknown)).contains(">1.5σ<"));
        assert_eq!(lane(&bins, &[], Some(&unknown), std::iter::empty()).matches("<line").count(), 2);
    }
}
