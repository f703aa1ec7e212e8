//! A point in time with millisecond resolution, as in events: parses the accepted forms, and writes one form.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Milliseconds since 1970-01-01T00:00:00Z, between the years 0 and 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Earliest time: 0000-01-01T00:00:00Z.
const FIRST: i64 = -62_167_219_200_000;
/// Latest time: 9999-12-31T23:59:59.999Z.
const LAST: i64 = 253_402_300_799_999;
/// Size from which on an epoch number is in milliseconds: 1e11 seconds would be the year 5138.
const MILLISECONDS_FROM: f64 = 1e11;
/// Size from which on an epoch number is in microseconds; the next constant is for nanoseconds.
const MICROSECONDS_FROM: f64 = 1e14;
const NANOSECONDS_FROM: f64 = 1e17;

/// Unit of an epoch number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum TimeUnit {
    /// The unit follows from the size, which is right for times after March 1973: seconds below 1e11, milliseconds
    /// below 1e14, microseconds below 1e17.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// Seconds or milliseconds by size, as in the first versions of the program.
    #[serde(skip)]
    SecondsOrMillis,
    /// Epoch numbers are in seconds.
    #[serde(rename = "s")]
    Seconds,
    /// Epoch numbers are in milliseconds.
    #[serde(rename = "ms")]
    Millis,
    /// Epoch numbers are in microseconds.
    #[serde(rename = "us")]
    Micros,
    /// Epoch numbers are in nanoseconds.
    #[serde(rename = "ns")]
    Nanos,
}

impl TimeUnit {
    /// Returns the number of units per second for a number of this size.
    fn per_second(self, size: f64) -> i64 {
        match self {
            TimeUnit::Auto if size >= NANOSECONDS_FROM => 1_000_000_000,
            TimeUnit::Auto if size >= MICROSECONDS_FROM => 1_000_000,
            TimeUnit::Auto | TimeUnit::SecondsOrMillis if size >= MILLISECONDS_FROM => 1_000,
            TimeUnit::Auto | TimeUnit::SecondsOrMillis | TimeUnit::Seconds => 1,
            TimeUnit::Millis => 1_000,
            TimeUnit::Micros => 1_000_000,
            TimeUnit::Nanos => 1_000_000_000,
        }
    }
}

impl Timestamp {
    /// Creates a time; `None` outside the years 0 to 9999.
    pub fn from_millis(millis: i64) -> Option<Self> {
        (FIRST..=LAST).contains(&millis).then_some(Timestamp(millis))
    }

    /// Returns the milliseconds since the epoch.
    pub fn millis(self) -> i64 {
        self.0
    }

    /// Parses RFC 3339 with an offset; a space may replace the T. Truncates to milliseconds.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        if let Some(usual) = Self::parse_usual(text.as_bytes()) {
            return Some(usual);
        }
        let mut owned;
        let text = match text.as_bytes().get(10) {
            Some(b' ') => {
                owned = text.to_owned();
                owned.replace_range(10..11, "T");
                &owned
            }
            _ => text,
        };
        Self::from_time(OffsetDateTime::parse(text, &Rfc3339).ok()?)
    }

    /// Parses `2026-11-23T17:00:00.123Z` in a few nanoseconds. `None` does not mean that the time is invalid.
    fn parse_usual(text: &[u8]) -> Option<Self> {
        let text: &[u8; 24] = text.try_into().ok()?;
        let mut largest = 0;
        let mut number = |from: usize, to: usize| {
            text[from..to].iter().fold(0, |sum, byte| {
                let digit = byte.wrapping_sub(b'0');
                largest = digit.max(largest);
                sum * 10 + i64::from(digit)
            })
        };
        let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (23, b'Z')];
        marks.iter().all(|(at, mark)| text[*at] == *mark).then_some(())?;
        let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
        let (hour, minute, second, milli) = (number(11, 13), number(14, 16), number(17, 19), number(20, 23));
        // The complete parser decides about the last days of a month, leap seconds and the year 0.
        let is_plain = largest <= 9
            && year > 0
            && (1..=12).contains(&month)
            && (1..=28).contains(&day)
            && hour < 24
            && minute < 60
            && second < 60;
        is_plain.then_some(())?;
        // Days since the epoch, with years that begin in March: H. Hinnant, "chrono-compatible low-level date
        // algorithms".
        let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
        Self::from_millis((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000 + milli)
    }

    /// Parses an epoch number from the text of a JSON number. Truncates to milliseconds; rounds seconds.
    pub fn parse_epoch(text: &str, unit: TimeUnit) -> Option<Self> {
        if let Ok(whole) = text.parse::<i64>() {
            return match unit.per_second(whole.unsigned_abs() as f64) {
                1 => Self::from_millis(whole.checked_mul(1_000)?),
                per_second => Self::from_millis(whole.div_euclid(per_second / 1_000)),
            };
        }
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite())?;
        let millis = match unit.per_second(number.abs()) {
            1 => (number * 1_000.0).round(),
            per_second => (number / (per_second / 1_000) as f64).floor(),
        };
        Self::from_millis(millis as i64)
    }

    /// Formats as `2026-11-23T17:00:00.123Z`; the inverse of [`parse_usual`](Self::parse_usual), from the same source.
    fn text(self) -> [u8; 24] {
        let (days, millis) = (self.0.div_euclid(86_400_000), self.0.rem_euclid(86_400_000));
        let days = days + 719_468;
        let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        // Months are counted from March.
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut put = |from: usize, to: usize, mut number: i64| {
            for digit in text[from..to].iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        };
        let seconds = millis / 1_000;
        for (from, to, number) in [
            (0, 4, year),
            (5, 7, month),
            (8, 10, day),
            (11, 13, seconds / 3_600),
            (14, 16, seconds / 60 % 60),
            (17, 19, seconds % 60),
            (20, 23, millis % 1_000),
        ] {
            put(from, to, number);
        }
        text
    }

    fn from_time(time: OffsetDateTime) -> Option<Self> {
        Self::from_millis(i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok()?)
    }

    /// Converts to the type of the `time` crate, in UTC.
    pub fn to_time(self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

/// Caches the minute of the last parsed time: the next time is usually in the same minute.
#[derive(Debug, Default)]
pub(crate) struct MinuteCache {
    /// Text of the minute: `2026-11-23T17:00:`
    text: [u8; 17],
    /// Start of the minute, in milliseconds since the epoch.
    millis: i64,
}

impl MinuteCache {
    /// Parses `2026-11-23T17:00:00.123Z`. `None` does not mean that the time is invalid.
    pub(crate) fn read(&mut self, text: &[u8]) -> Option<Timestamp> {
        let whole: &[u8; 24] = text.try_into().ok()?;
        if whole[..17] == self.text && (whole[19], whole[23]) == (b'.', b'Z') {
            let digits = [17, 18, 20, 21, 22].map(|at| whole[at].wrapping_sub(b'0'));
            if digits.iter().all(|digit| *digit <= 9) && digits[0] < 6 {
                let millis = digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(*digit));
                return Some(Timestamp(self.millis + millis));
            }
        }
        let read = Timestamp::parse_usual(text)?;
        self.text.copy_from_slice(&whole[..17]);
        self.millis = read.0 - read.0.rem_euclid(60_000);
        Some(read)
    }
}

impl From<OffsetDateTime> for Timestamp {
    /// Truncates to milliseconds. A time outside the range becomes the nearer end.
    fn from(time: OffsetDateTime) -> Self {
        Self::from_time(time).unwrap_or(if time.year() < 0 { Timestamp(FIRST) } else { Timestamp(LAST) })
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(&self.text()).map_err(serde::ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Timestamp::parse_rfc3339(&text).ok_or_else(|| serde::de::Error::custom("not an RFC 3339 time"))
    }
}
