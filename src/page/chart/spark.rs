//! The chart of one table row, 30 pixels high: the stored window in its expected band, then the abnormal value. It is
//! scaled in units of the deviation that was used for judging, so that rows can be compared.

use std::fmt::Write;

use super::{Percent, symbol};
use crate::anomaly::{Anomaly, Direction, Severity};
use crate::method::critical_from;

const HEIGHT: f64 = 30.0;
/// Multiple of the threshold at which the meter is full.
const FULL_METER: f64 = 100.0 / 3.0;
/// Space for the symbol above and below, in pixels.
const EDGE: f64 = 4.5;
/// Share of the width that the window takes.
const WINDOW: f64 = 0.93;
/// Multiple of the threshold beyond which the stem is drawn broken.
const BREAK_FROM: f64 = 4.0;
/// Minimum space for the value, and space on the other side of the mean, as multiples of the threshold.
const ROOM: (f64, f64) = (4.6 / 3.0, 3.7 / 3.0);

/// Returns the threshold; without one, the unit is half of the band.
fn threshold(anomaly: &Anomaly) -> f64 {
    anomaly.threshold.unwrap_or(1.0)
}

/// Returns the distance of a value from the expected one, in deviations used for judging; `None` if the deviation is 0.
fn distance(anomaly: &Anomaly, value: f64) -> Option<f64> {
    let deviation = (anomaly.upper / 2.0 - anomaly.lower / 2.0) / threshold(anomaly);
    let half = anomaly.expected.map_or(anomaly.upper / 4.0 + anomaly.lower / 4.0, |expected| expected / 2.0);
    let distance = (value / 2.0 - half) / deviation * 2.0;
    (deviation > 0.0 && distance.is_finite()).then_some(distance)
}

/// Draws the chart; `title` describes it in words.
pub(crate) fn draw(anomaly: &Anomaly, title: &str) -> String {
    let z = distance(anomaly, anomaly.metric_value);
    let is_low = anomaly.direction == Direction::Low;
    let [most, least, other] = [BREAK_FROM, ROOM.0, ROOM.1].map(|times| times * threshold(anomaly));
    let reach = z.map_or(most, f64::abs);
    let far = (1.08 * reach).max(least).min(most);
    let (below, above) = if is_low { (far, other) } else { (other, far) };
    let y = |d: f64| EDGE + (above - d.clamp(-below, above)) / (above + below) * (HEIGHT - 2.0 * EDGE);
    let mut svg = format!(
        "<svg class=\"spark\" width=\"100%\" height=\"{HEIGHT}\" role=\"img\" aria-label=\"{}\">",
        super::escape(title)
    );
    let _ = write!(
        svg,
        "<svg width=\"{}\" height=\"{HEIGHT}\" viewBox=\"0 0 99 {HEIGHT}\" preserveAspectRatio=\"none\">",
        Percent(WINDOW)
    );
    let (top, bottom) = (y(threshold(anomaly)), y(-threshold(anomaly)));
    if z.is_some() {
        let _ = write!(svg, "<rect class=\"b\" y=\"{top:.1}\" width=\"99\" height=\"{:.1}\"/>", bottom - top);
    }
    let step = 99.0 / anomaly.window.len().saturating_sub(1).max(1) as f64;
    svg += "<polyline class=\"l\" points=\"";
    for (i, value) in anomaly.window.iter().enumerate() {
        let _ = write!(svg, "{:.1},{:.1} ", i as f64 * step, y(distance(anomaly, *value).unwrap_or(0.0)));
    }
    svg += "\"/></svg>";
    let end = y(if is_low { -reach } else { reach });
    let x = Percent(WINDOW / 2.0 + 0.5);
    let is_critical = anomaly.severity == Severity::Critical;
    let class = if is_critical { "c" } else { "r" };
    let middle = y(0.0);
    if reach > most {
        // The gap shows that the stem is longer than drawn.
        let (near, beyond) = (middle + (end - middle) * 0.45, middle + (end - middle) * 0.62);
        let _ = write!(svg, "<line class=\"s {class}\" x1=\"{x}\" x2=\"{x}\" y1=\"{middle:.1}\" y2=\"{near:.1}\"/>");
        let _ = write!(svg, "<line class=\"s {class}\" x1=\"{x}\" x2=\"{x}\" y1=\"{beyond:.1}\" y2=\"{end:.1}\"/>");
    } else {
        let _ = write!(svg, "<line class=\"s {class}\" x1=\"{x}\" x2=\"{x}\" y1=\"{middle:.1}\" y2=\"{end:.1}\"/>");
    }
    svg += &symbol(is_critical, x, end, 9.0, "");
    svg + "</svg>"
}

/// Draws a bar of the score, logarithmic from the threshold to [`FULL_METER`] times the threshold. It has a notch where the
/// severity becomes critical, if this program has the method.
pub(crate) fn meter(anomaly: &Anomaly) -> String {
    let share = |times: f64| (times.ln() / FULL_METER.ln()).clamp(0.03, 1.0);
    let class = if anomaly.severity == Severity::Critical { "c" } else { "r" };
    let width = Percent(share(anomaly.times_threshold()));
    let notch = critical_from(&anomaly.method, 1.0).map_or_else(String::new, |times| {
        format!("<rect class=\"n\" x=\"{}\" width=\"1.5\" height=\"6\"/>", Percent(share(times)))
    });
    format!(
        "<svg class=\"meter\" width=\"100%\" height=\"6\" aria-hidden=\"true\"><rect class=\"m\" width=\"100%\" height=\"6\" rx=\"3\"/>\
         <rect class=\"{class}\" width=\"{width}\" height=\"6\" rx=\"3\"/>{notch}</svg>"
    )
}

#[cfg(test)]
pub(crate) mod tests {
    pub(crate) use crate::anomaly::tests::sample;

    use super::*;

    #[test]
    fn the_band_and_the_window_lie_where_the_figures_say() {
        // 8 deviations above the mean. The scale goes from 8.64 at the top to -3.7 at the bottom of the 21 pixels in
        // between.
        let svg = draw(&sample(18.0), "t");
        let y = |d: f64| 4.5 + (8.64 - d) / 12.34 * 21.0;
        assert!(svg.contains(&format!("<rect class=\"b\" y=\"{:.1}\"", y(3.0))), "{svg}");
        assert!(svg.contains(&format!("points=\"0.0,{:.1} 33.0,{:.1} ", y(-1.0), y(1.0))), "{svg}");
        assert!(svg.contains(&format!("y2=\"{:.1}\"", y(8.0))), "{svg}");
    }

    #[test]
    fn far_values_have_a_broken_stem_and_no_deviation_has_no_band() {
        assert_eq!(draw(&sample(30.0), "t").matches("<line").count(), 2);
        let flat = Anomaly {
            std_dev: Some(0.0),
            lower: 10.0,
            upper: 10.0,
            z_score: None,
            window: vec![10.0; 4],
            ..sample(11.0)
        };
        let svg = draw(&flat, "t");
        assert!(!svg.contains("class=\"b\"") && svg.matches("<line").count() == 1 && !svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn the_position_depends_on_the_multiple_of_the_threshold_only() {
        let other = |value: f64| {
            let plain = sample(value);
            let (lower, upper) = (10.0 - 1.5, 10.0 + 1.5);
            Anomaly {
                threshold: Some(1.5),
                lower,
                upper,
                metric_value: 10.0 + (value - 10.0) / 2.0,
                score: plain.score / 2.0,
                ..plain
            }
        };
        let flat = |anomaly: Anomaly| Anomaly { window: vec![10.0; 4], ..anomaly };
        for value in [13.5, 18.0, 60.0, -5.0] {
            assert_eq!(draw(&flat(other(value)), "t"), draw(&flat(sample(value)), "t"));
            assert_eq!(meter(&other(value)), meter(&sample(value)));
        }
    }

    #[test]
    fn without_a_threshold_half_of_the_band_is_the_unit() {
        let none = |value: f64| Anomaly {
            mean: None,
            std_dev: None,
            z_score: None,
            threshold: None,
            expected: None,
            score: 0.5,
            ..sample(value)
        };
        for value in [13.5, 18.0, 60.0, -5.0] {
            assert_eq!(draw(&none(value), "t"), draw(&sample(value), "t"));
            assert_eq!(meter(&none(value)), meter(&sample(value)));
        }
        assert!(meter(&Anomaly { upper: 10.0, lower: 10.0, ..none(11.0) }).contains("100.00%"));
    }

    #[test]
    fn the_meter_is_logarithmic() {
        assert!(meter(&sample(-90.0)).contains("class=\"c\" width=\"100.00%\""));
        assert!(meter(&sample(27.32)).contains("class=\"c\" width=\"50.00%\""));
        assert!(
            meter(&Anomaly { z_score: None, score: f64::MAX, ..sample(11.0) })
                .contains("width=\"100.00%\" height=\"6\" rx=\"3\"/><rect class=\"n\"")
        );
    }
}
