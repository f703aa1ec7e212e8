//! Spellings of times beyond RFC 3339. Each accepted spelling means one instant, once the zone of times without one is
//! known. Spellings with two meanings (02/03/2026, week dates, names of zones) are not accepted.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::zone::{Zone, offset};
use super::{TimeUnit, Timestamp};

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Parses a time: RFC 3339, ISO 8601 (also basic form, without seconds, or a date alone), RFC 2822, or an epoch number.
/// Ignores blanks around it, and truncates to milliseconds.
pub(crate) fn read(text: &str, unit: TimeUnit, zone: &Zone) -> Option<Timestamp> {
    let text = text.trim_ascii();
    Timestamp::parse_rfc3339(text)
        .or_else(|| calendar(text, zone))
        .or_else(|| epoch(text, unit))
        .or_else(|| rfc2822(text))
}

/// Returns whether a text has decimal digits with an optional sign, point and exponent: no words, hexadecimal digits or
/// separators.
pub(crate) fn is_number(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = text.split_once(['e', 'E']).map_or((text, None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_exponent = |text: &str| {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        !digits.is_empty() && are_digits(digits)
    };
    !(whole.is_empty() && fraction.is_empty())
        && are_digits(whole)
        && are_digits(fraction)
        && exponent.is_none_or(is_exponent)
}

/// Parses an epoch number in quotes. Rejects digits that may also be a date (20261123, 20261123170000).
fn epoch(text: &str, unit: TimeUnit) -> Option<Timestamp> {
    let looks_like_a_date = unit == TimeUnit::Auto
        && matches!(text.len(), 8 | 12 | 14)
        && (text.starts_with("19") || text.starts_with("20"))
        && Rest(text.as_bytes()).basic_date().is_some();
    let is_number = is_number(text);
    (is_number && !looks_like_a_date).then(|| Timestamp::parse_epoch(text.trim_start_matches('+'), unit)).flatten()
}

/// Parses `Mon, 23 Nov 2026 17:00:00 +0100`; the year has four digits.
fn rfc2822(text: &str) -> Option<Timestamp> {
    let has_year = text.split(' ').any(|word| word.len() == 4 && word.bytes().all(|byte| byte.is_ascii_digit()));
    has_year.then(|| OffsetDateTime::parse(text, &Rfc2822).ok()).flatten().map(Timestamp::from)
}

/// Parses a date, optionally with a time and an offset.
fn calendar(text: &str, zone: &Zone) -> Option<Timestamp> {
    let mut rest = Rest(text.as_bytes());
    let is_basic = rest.0.len() > 8 && rest.0[..8].iter().all(u8::is_ascii_digit);
    let days = if is_basic { rest.basic_date()? } else { rest.date()? };
    if rest.0.is_empty() {
        return zone.instant(days * DAY);
    }
    rest.any(b"Tt ").filter(|mark| !is_basic || *mark != b' ')?;
    let (hour, minute) = (rest.digits(2)?, rest.part(is_basic)?.unwrap_or(60));
    let second = rest.part(is_basic)?.unwrap_or(0);
    let millis = rest.fraction()?;
    let is_end_of_day = (hour, minute, second, millis) == (24, 0, 0, 0);
    if minute > 59 || second > 60 || (hour > 23 && !is_end_of_day) {
        return None;
    }
    // A leap second counts as the end of the second before it.
    let is_leap = second == 60;
    let (second, millis) = if is_leap { (59, 999) } else { (second, millis) };
    let local = days * DAY + hour * HOUR + minute * MINUTE + second * SECOND + millis;
    let instant = match std::str::from_utf8(rest.0).ok()?.trim_ascii() {
        "" => zone.instant(local)?,
        // RFC 9557 allows the name of the zone after the offset: 17:00:00+01:00[Europe/Paris]
        given => {
            let end = given.find('[').filter(|at| *at > 0 && given.ends_with(']')).unwrap_or(given.len());
            Timestamp::from_millis(local - offset(&given[..end])?)?
        }
    };
    (!is_leap || instant.millis().rem_euclid(DAY) == DAY - 1).then_some(instant)
}

/// The part of a text that is still to be read.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    /// Reads exactly this number of digits.
    fn digits(&mut self, count: usize) -> Option<i64> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        digits.iter().try_fold(0, |sum, d| d.is_ascii_digit().then(|| sum * 10 + i64::from(d - b'0')))
    }

    /// Reads one of these bytes.
    fn any(&mut self, marks: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        marks.contains(first).then_some(*first)
    }

    /// Reads `2026-11-23` or `2026/11/23` as days since the epoch.
    fn date(&mut self) -> Option<i64> {
        let year = self.digits(4)?;
        let mark = self.any(b"-/")?;
        let month = self.digits(2)?;
        self.any(&[mark])?;
        days(year, month, self.digits(2)?)
    }

    /// Reads `20261123` as days since the epoch.
    fn basic_date(&mut self) -> Option<i64> {
        days(self.digits(4)?, self.digits(2)?, self.digits(2)?)
    }

    /// Reads minutes or seconds, if any: two digits, after a colon in the extended form.
    #[allow(clippy::option_option)] // None: wrong; Some(None): not there.
    fn part(&mut self, is_basic: bool) -> Option<Option<i64>> {
        match (is_basic, self.0) {
            (false, [b':', ..]) => {
                self.any(b":")?;
                self.digits(2).map(Some)
            }
            (true, [b'0'..=b'9', ..]) => self.digits(2).map(Some),
            _ => Some(None),
        }
    }

    /// Reads milliseconds after a point or a comma, 0 without one; `None` if no digit follows it.
    fn fraction(&mut self) -> Option<i64> {
        let [b'.' | b',', rest @ ..] = self.0 else { return Some(0) };
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.0 = &rest[count..];
        let digit = |at: usize| if at < count { i64::from(rest[at] - b'0') } else { 0 };
        (count > 0).then(|| digit(0) * 100 + digit(1) * 10 + digit(2))
    }
}

fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let month = time::Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = time::Date::from_calendar_date(i32::try_from(year).ok()?, month, u8::try_from(day).ok()?).ok()?;
    Some(i64::from(date.to_julian_day()) - i64::from(time::macros::date!(1970 - 01 - 01).to_julian_day()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> Option<String> {
        read(text, TimeUnit::Auto, &Zone::UTC).map(|at| at.to_string())
    }

    #[test]
    fn common_spellings_of_one_instant_are_the_same_instant() {
        for text in [
            "2026-11-23T17:00:00.123Z",
            "2026-11-23t17:00:00.123z",
            "2026-11-23T18:00:00.123+0100",
            "2026-11-23T18:00:00.123+01",
            "2026-11-23T18:00:00,123+01:00",
            "2026-11-23 18:00:00.123 +0100",
            "2026-11-23T11:30:00.123456789-0530",
            "2026-11-23 17:00:00.123 UTC",
            "2026-11-23T17:00:00.123 GMT",
            "2026-11-23T17:00:00.123",
            " 2026-11-23 17:00:00,123 ",
            "2026/11/23 17:00:00.123",
            "20261123T170000.123Z",
            "2026-11-23T18:00:00.123+01:00[Europe/Paris]",
            "1795453200.123",
            "1795453200123",
            "1795453200123456",
            "1795453200123456789",
            " 1795453200123 ",
        ] {
            assert_eq!(utc(text).as_deref(), Some("2026-11-23T17:00:00.123Z"), "{text}");
        }
        for (text, at) in [
            ("2026-11-23", "2026-11-23T00:00:00.000Z"),
            ("2026-11-23T17:00Z", "2026-11-23T17:00:00.000Z"),
            ("20261123T1700+01", "2026-11-23T16:00:00.000Z"),
            ("2026-11-23T24:00:00Z", "2026-11-24T00:00:00.000Z"),
            ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.999Z"),
            ("2016-12-31T18:59:60-0500", "2016-12-31T23:59:59.999Z"),
            ("Mon, 23 Nov 2026 18:00:00 +0100", "2026-11-23T17:00:00.000Z"),
            ("23 Nov 2026 17:00:00 GMT", "2026-11-23T17:00:00.000Z"),
            ("-1", "1969-12-31T23:59:59.000Z"),
            ("1.764e9", "2025-11-24T16:00:00.000Z"),
        ] {
            assert_eq!(utc(text).as_deref(), Some(at), "{text}");
        }
    }

    #[test]
    fn ambiguous_and_invalid_times_are_rejected() {
        for text in [
            "",
            " ",
            "yesterday",
            "nan",
            "NaN",
            "inf",
            "Infinity",
            "0x6565",
            "1_000",
            "1,5",
            "true",
            "--1",
            "1e400",
            "02/03/2026",
            "23.11.2026",
            "2026-W48-1",
            "2026-W48-1T17:00:00Z",
            "2026-327",
            "2026-13-01",
            "2026-02-30",
            "2026-11-23T25:00:00",
            "2026-11-23T24:00:01",
            "2026-11-23T17",
            "2026-11-23T17:60",
            "2026-11-23T17:00:61Z",
            "2026-11-23T17:00:60Z",
            "2026-11-23T17:00:00.Z",
            "2026-11-23T17:00:00 CET",
            "2026-11-23T17:00:00+1",
            "2026-11-23T17:00:00+25:00",
            "2026-11-23T17:00:00Zulu",
            "2026-11-23T17:00:00[Europe/Paris]",
            "17:00:00",
            "26-11-23 17:00:00",
            "2026-1-2 17:00:00",
            "20261123",
            "20261123170000",
            "202611231700",
            "2026-11-2317:00:00",
            "2026-11/23",
            "Mon, 23 Nov 26 17:00:00 GMT",
            "9999999999999999999999",
            "[2026,11,23]",
        ] {
            assert_eq!(utc(text), None, "{text}");
        }
    }
}
