//! Formats numbers, times and ages for pages. Minus is U+2212, ages are relative to the server's clock, times are UTC.

use time::format_description::StaticFormatDescription;
use time::macros::format_description;

use crate::anomaly::{Anomaly, Direction};
use crate::event::Timestamp;

const CLOCK: StaticFormatDescription = format_description!("[hour]:[minute]:[second]");
const MINUTE: StaticFormatDescription = format_description!("[hour]:[minute]");
const DAY: StaticFormatDescription = format_description!("[day padding:none] [month repr:short]");
const DATE: StaticFormatDescription = format_description!("[day padding:none] [month repr:short] [year]");

fn written(time: Timestamp, how: StaticFormatDescription) -> String {
    time.to_time().format(how).unwrap_or_default()
}

/// Formats a time of day: `18:42:19`.
pub(crate) fn clock(time: Timestamp) -> String {
    written(time, CLOCK)
}

/// Formats a time of day without seconds: `18:42`.
pub(crate) fn minute(time: Timestamp) -> String {
    written(time, MINUTE)
}

/// Formats a day: `23 Nov`.
pub(crate) fn day(time: Timestamp) -> String {
    written(time, DAY)
}

/// Formats a date: `23 Nov 2026`.
pub(crate) fn date(time: Timestamp) -> String {
    written(time, DATE)
}

/// Formats the time of a row; includes the day if it is not today's, and the year if it is not this year's.
pub(crate) fn moment(time: Timestamp, now: Timestamp) -> String {
    let (then, today) = (time.to_time(), now.to_time());
    let day = match () {
        () if then.date() == today.date() => return clock(time),
        () if then.year() == today.year() => written(time, DAY),
        () => date(time),
    };
    format!("{day} {}", clock(time))
}

/// Formats how long ago a time was, or how far ahead it is, in one suitable unit.
pub(crate) fn age(time: Timestamp, now: Timestamp) -> String {
    match now.millis() - time.millis() {
        // A time in the future comes from a clock that is ahead.
        i64::MIN..-1_500 => format!("{} ahead", duration(time.millis() - now.millis())),
        -1_500..1_000 => "now".to_owned(),
        millis => format!("{} ago", duration(millis)),
    }
}

/// Formats a duration in milliseconds, as the nearest number of a unit: `12 s`, `4 min`, `3 h`, `9 d`, `56 years`.
pub(crate) fn duration(millis: i64) -> String {
    let nearest = |n: i64, unit: i64| n.saturating_add(unit / 2) / unit;
    let seconds = nearest(millis, 1000);
    match seconds {
        i64::MIN..100 => format!("{seconds} s"),
        100..7_170 => format!("{} min", nearest(seconds, 60)),
        7_170..172_800 => format!("{} h", nearest(seconds, 3_600)),
        63_072_000.. => format!("{} years", grouped(nearest(seconds, 31_556_952).unsigned_abs())),
        _ => format!("{} d", grouped(nearest(seconds, 86_400).unsigned_abs())),
    }
}

/// Formats an integer with separators: `1,234,567`.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
    }
    text
}

/// Formats a large integer with one decimal, `15.2 million`; below a million it writes all digits.
pub(crate) fn rough(n: u64) -> String {
    match n {
        0..1_000_000 => grouped(n),
        1_000_000..1_000_000_000 => format!("{:.1} million", n as f64 / 1e6),
        _ => format!("{:.1} billion", n as f64 / 1e9),
    }
}

/// Formats a number with its noun: `1 anomaly`, `2 anomalies`.
pub(crate) fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(n), if n == 1 { one } else { many })
}

/// Formats a number with the given number of decimals; very large and very small ones as powers of ten.
pub(crate) fn number(x: f64, decimals: usize) -> String {
    let size = x.abs();
    let text = if size >= 1e15 || (size > 0.0 && size < 1e-9) { format!("{x:.3e}") } else { format!("{x:.decimals$}") };
    // Zero has no sign, also when it is the result of rounding.
    let is_zero = text.chars().all(|c| !c.is_ascii_digit() || c == '0');
    match text.strip_prefix('-') {
        Some(digits) if is_zero => digits.to_owned(),
        _ => text.replace('-', "\u{2212}"),
    }
}

/// Formats a number with all its digits.
pub(crate) fn signed(x: f64) -> String {
    let size = x.abs();
    let text = if size >= 1e15 || (size > 0.0 && size < 1e-9) { format!("{x:e}") } else { x.to_string() };
    text.replace('-', "\u{2212}")
}

/// Formats a z-score with its sign: `+10.9σ`. Without a deviation (`None`) it is infinite.
pub(crate) fn sigma(z: Option<f64>, direction: Direction) -> String {
    let sign = if direction == Direction::Low { '\u{2212}' } else { '+' };
    format!("{sign}{}σ", times(z))
}

/// Formats the magnitude of a z-score: `10.9`.
pub(crate) fn times(z: Option<f64>) -> String {
    match z.map(f64::abs) {
        None => "\u{221e}".to_owned(),
        Some(z) if z >= 1e6 => format!("{z:.1e}"),
        Some(z) if z >= 999.95 => grouped(z.round() as u64),
        Some(z) => format!("{z:.1}"),
    }
}

/// Stands for a number that the record does not have.
pub(crate) const DASH: &str = "\u{2014}";

/// Formats the z-score of an anomaly. A method without one has a dash.
pub(crate) fn sigma_of(anomaly: &Anomaly) -> String {
    match anomaly.z_score {
        None if anomaly.score < f64::MAX => DASH.to_owned(),
        z => sigma(z, anomaly.direction),
    }
}

/// The numbers of an anomaly, formatted with the same decimals.
#[derive(Debug, Clone)]
pub(crate) struct DisplayedNumbers {
    /// Formatted `metric_value` of the anomaly
    pub value: String,
    /// Formatted `expected` value of the anomaly
    pub expected: String,
    /// Formatted `lower` limit of the anomaly
    pub lower: String,
    /// Formatted `upper` limit of the anomaly
    pub upper: String,
    /// Formatted `z_score` with its sign.
    pub z: String,
    /// Number of decimals of the mean and the limits.
    pub decimals: usize,
}

impl DisplayedNumbers {
    /// Formats with as many decimals as the values have, but not beyond the third significant digit of the deviation.
    pub(crate) fn of(anomaly: &Anomaly) -> DisplayedNumbers {
        let own = |x: &f64| decimals_of(*x);
        let stored = anomaly.window.iter().map(own).fold(own(&anomaly.metric_value), usize::max);
        let half = anomaly.upper / 2.0 - anomaly.lower / 2.0;
        let spread = anomaly.std_dev.unwrap_or(0.0).max(half / anomaly.threshold.unwrap_or(1.0).max(1e-9));
        let telling = if spread > 0.0 && spread.is_finite() {
            (1.0 - spread.log10().floor()).clamp(0.0, 12.0) as usize
        } else {
            stored.min(12)
        };
        let value = stored.min(telling + 1);
        let decimals = telling.max(value);
        DisplayedNumbers {
            value: number(anomaly.metric_value, value),
            expected: anomaly.expected.map_or_else(|| DASH.to_owned(), |expected| number(expected, decimals)),
            lower: number(anomaly.lower, decimals),
            upper: number(anomaly.upper, decimals),
            z: sigma_of(anomaly),
            decimals,
        }
    }
}

/// Returns the number of decimals of the shortest text that is read back as the same number.
fn decimals_of(x: f64) -> usize {
    x.to_string().split_once('.').map_or(0, |(_, decimals)| decimals.len())
}

/// Describes an interval: `Every 5 s`.
pub(crate) fn every(seconds: u64) -> String {
    match seconds {
        _ if seconds.is_multiple_of(3_600) => format!("Every {} h", seconds / 3_600),
        _ if seconds.is_multiple_of(60) => format!("Every {} min", seconds / 60),
        _ => format!("Every {seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::chart::spark::tests::sample;

    #[test]
    fn numbers_have_their_windows_decimals() {
        let anomaly = Anomaly { std_dev: Some(0.294), lower: 20.5508, upper: 22.315, ..sample(24.64) };
        let anomaly = Anomaly { window: vec![21.43, 21.5], ..anomaly };
        let figures = DisplayedNumbers::of(&anomaly);
        assert_eq!([figures.value, figures.lower, figures.upper], ["24.64", "20.55", "22.32"]);
        let whole = DisplayedNumbers::of(&Anomaly { window: vec![9.0, 11.0], ..sample(14.0) });
        assert_eq!([whole.value, whole.lower], ["14", "7.0"]);
    }

    #[test]
    fn signs_sizes_and_the_infinite() {
        assert_eq!(number(-0.04, 1), "0.0");
        assert_eq!(number(-1.25e18, 2), "\u{2212}1.250e18");
        assert_eq!(sigma(Some(-5.14), Direction::Low), "\u{2212}5.1σ");
        assert_eq!(sigma(None, Direction::High), "+\u{221e}σ");
        assert_eq!(sigma(Some(12_345.6), Direction::High), "+12,346σ");
        assert_eq!(sigma(Some(f64::MAX), Direction::High), "+1.8e308σ");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }

    #[test]
    fn a_number_that_a_method_does_not_have_is_a_dash() {
        let none =
            Anomaly { mean: None, std_dev: None, z_score: None, threshold: None, expected: None, ..sample(18.0) };
        let figures = DisplayedNumbers::of(&none);
        assert_eq!([figures.z.as_str(), &figures.expected, &figures.lower], [DASH, DASH, "7.0"]);
        let infinite = Anomaly { z_score: None, score: f64::MAX, ..sample(18.0) };
        assert_eq!(DisplayedNumbers::of(&infinite).z, "+\u{221e}σ");
    }

    #[test]
    fn ages_and_moments() {
        let at = |text| Timestamp::parse_rfc3339(text).unwrap();
        let now = at("2026-11-23T18:42:31Z");
        assert_eq!(age(at("2026-11-23T18:42:19Z"), now), "12 s ago");
        assert_eq!(age(at("2026-11-23T18:40:10Z"), now), "2 min ago");
        assert_eq!(age(at("2026-11-23T10:40:10Z"), now), "8 h ago");
        assert_eq!(age(at("2025-11-23T10:40:10Z"), now), "365 d ago");
        assert_eq!(age(at("2026-11-23T18:43:31Z"), now), "60 s ahead");
        assert_eq!(age(at("1970-01-01T00:00:01Z"), now), "57 years ago");
        // The nearest number of each unit, as in the condition `times_differ`.
        let nearest = [(99_600, "2 min"), (7_169_000, "119 min"), (7_199_000, "2 h"), (89_990_000, "25 h")];
        for (millis, text) in nearest.into_iter().chain([(228_960_000, "3 d"), (12_600, "13 s")]) {
            assert_eq!(duration(millis), text);
        }
        assert_eq!(moment(at("2026-11-23T08:00:01Z"), now), "08:00:01");
        assert_eq!(moment(at("2026-11-22T08:00:01Z"), now), "22 Nov 08:00:01");
        assert_eq!(moment(at("2025-11-22T08:00:01Z"), now), "22 Nov 2025 08:00:01");
    }
}
