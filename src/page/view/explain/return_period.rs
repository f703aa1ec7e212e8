//! Says how rarely a series has a value that is at least as abnormal as an anomaly.

use crate::anomaly::Anomaly;
use crate::page::view::format::{duration, grouped};

/// Longer return periods are not measured, but follow from the shape of the tail.
const MAX_SHOWN_MILLIS: f64 = 1_000.0 * 31_556_952_000.0;
/// Numbers from here on are shown as powers of ten.
const MAX_SHOWN_COUNT: f64 = 1e6;

/// Returns the return period in time and in values; `None` while unknown.
pub(super) fn text(anomaly: &Anomaly) -> Option<String> {
    let in_values = anomaly.return_period_events.map(|count| format!("once in {} values", rounded(count)));
    let Some(seconds) = anomaly.return_period_seconds else { return in_values };
    // Longer than this is not measured, but follows from the shape of the tail.
    let in_time = match seconds * 1_000.0 {
        millis if millis < MAX_SHOWN_MILLIS => format!("once in {}", duration(millis as i64)),
        _ => "less than once in 1,000 years".to_owned(),
    };
    Some(in_values.map_or(in_time.clone(), |values| format!("{in_time}, {values}")))
}

/// Formats a number with two significant digits, or as a power of ten from a million on.
fn rounded(count: f64) -> String {
    if count >= MAX_SHOWN_COUNT {
        return format!("10^{:.0}", count.log10());
    }
    let unit = 10f64.powf((count.max(1.0).log10().floor() - 1.0).max(0.0));
    grouped(((count / unit).round() * unit) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anomaly::tests::sample;

    #[test]
    fn a_return_period_is_rounded_and_one_beyond_all_measuring_has_no_false_digits() {
        let of = |events, seconds| {
            text(&Anomaly { return_period_events: events, return_period_seconds: seconds, ..sample(18.0) })
        };
        assert_eq!(of(None, None), None);
        assert_eq!(of(Some(3_162.3), Some(777_600.0)).unwrap(), "once in 9 d, once in 3,200 values");
        assert_eq!(of(Some(12.4), None).unwrap(), "once in 12 values");
        assert_eq!(of(Some(3e12), Some(1e20)).unwrap(), "less than once in 1,000 years, once in 10^12 values");
    }
}
