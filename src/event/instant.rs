//! A point in time with millisecond resolution, as events carry it: the readings that are accepted, and the one that is written.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::StaticFormatDescription;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// Milliseconds since 1970-01-01T00:00:00Z, between the years 0 and 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(i64);

/// 0000-01-01T00:00:00Z
const FIRST: i64 = -62_167_219_200_000;
/// 9999-12-31T23:59:59.999Z
const LAST: i64 = 253_402_300_799_999;
/// From here on an epoch number is in milliseconds: 1e11 seconds would be the year 5138.
const MILLISECONDS_FROM: f64 = 1e11;

const WRITTEN: StaticFormatDescription =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

impl Instant {
    /// `None` outside the years 0 to 9999.
    pub fn from_millis(millis: i64) -> Option<Self> {
        (FIRST..=LAST).contains(&millis).then_some(Instant(millis))
    }

    /// Now, by the wall clock.
    pub fn now() -> Self {
        Self::from(OffsetDateTime::now_utc())
    }

    /// Milliseconds since the epoch.
    pub fn millis(self) -> i64 {
        self.0
    }

    /// RFC 3339 with an offset; a space may stand for the T. Finer than a millisecond is cut.
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

    /// `2026-11-23T17:00:00.123Z`, in a few nanoseconds; `None` says nothing about other forms.
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
        // The last days of a month, a leap second and the year 0 are for the careful reading.
        let is_plain = largest <= 9
            && year > 0
            && (1..=12).contains(&month)
            && (1..=28).contains(&day)
            && hour < 24
            && minute < 60
            && second < 60;
        is_plain.then_some(())?;
        // Days since the epoch, the year beginning in March: H. Hinnant, "chrono-compatible low-level date algorithms".
        let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
        Self::from_millis((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000 + milli)
    }

    /// Epoch seconds or milliseconds, as a JSON number's text.
    pub fn parse_epoch(text: &str) -> Option<Self> {
        if let Ok(whole) = text.parse::<i64>() {
            let is_millis = whole.unsigned_abs() as f64 >= MILLISECONDS_FROM;
            return Self::from_millis(if is_millis { whole } else { whole * 1000 });
        }
        let number = text.parse::<f64>().ok()?;
        let millis = if number.abs() >= MILLISECONDS_FROM { number.floor() } else { (number * 1000.0).round() };
        Self::from_millis(millis as i64)
    }

    /// What tables hold: RFC 3339, the same without an offset (UTC), a bare date, or epoch numbers.
    pub fn parse_table(text: &str) -> Option<Self> {
        Self::parse_rfc3339(text)
            .or_else(|| Self::parse_rfc3339(&format!("{text}Z")))
            .or_else(|| Self::parse_rfc3339(&format!("{text}T00:00:00Z")))
            .or_else(|| Self::parse_epoch(text))
    }

    fn from_time(time: OffsetDateTime) -> Option<Self> {
        Self::from_millis(i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok()?)
    }

    /// The same as the `time` crate's type, in UTC.
    pub fn to_time(self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

impl From<OffsetDateTime> for Instant {
    /// Cut to milliseconds; a time outside the range becomes its nearer end.
    fn from(time: OffsetDateTime) -> Self {
        Self::from_time(time).unwrap_or(if time.year() < 0 { Instant(FIRST) } else { Instant(LAST) })
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_time().format(&WRITTEN).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Instant::parse_rfc3339(&text).ok_or_else(|| serde::de::Error::custom("not an RFC 3339 time"))
    }
}
