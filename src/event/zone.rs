//! The time zone of times without one: UTC, a fixed offset, or a name of the IANA database.
//!
//! The rules of named zones are compiled into the program, so that the same log gives the same times on every machine.

use jiff::Timestamp as JiffTimestamp;
use jiff::tz::{Offset, TimeZone};

use super::Timestamp;

const MINUTE: i64 = 60_000;

/// Converts a local time to UTC.
#[derive(Debug, Clone, PartialEq)]
pub enum Zone {
    /// Fixed offset, in milliseconds east of UTC.
    Fixed(i64),
    /// Named zone, with daylight saving time.
    Named(TimeZone),
}

impl Zone {
    /// Coordinated Universal Time, without an offset.
    pub const UTC: Zone = Zone::Fixed(0);

    /// Parses `UTC`, `GMT`, `Z`, an offset such as `+01:00`, `+0100` or `+01`, or an IANA name such as `Europe/Berlin`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(offset) = offset(text) {
            return Some(Zone::Fixed(offset));
        }
        // Other names without a slash (EST, CET) have several meanings.
        text.contains('/').then(|| TimeZone::get(text).ok().map(Zone::Named)).flatten()
    }

    /// Returns the instant at which clocks in this zone show a time; `local` is that time in milliseconds, read as UTC.
    /// A time that is skipped in spring uses the offset before the change. A time that occurs twice is the first one.
    pub fn instant(&self, local: i64) -> Option<Timestamp> {
        let millis = match self {
            Zone::Fixed(east) => local - east,
            Zone::Named(zone) => {
                let shown = Offset::UTC.to_datetime(JiffTimestamp::from_millisecond(local).ok()?);
                zone.to_ambiguous_timestamp(shown).compatible().ok()?.as_millisecond()
            }
        };
        Timestamp::from_millis(millis)
    }
}

/// Parses `Z`, `UTC`, `GMT`, `+01`, `+0100` or `+01:00` as milliseconds east of UTC.
pub(crate) fn offset(text: &str) -> Option<i64> {
    if ["Z", "UTC", "GMT"].iter().any(|name| text.eq_ignore_ascii_case(name)) {
        return Some(0);
    }
    let (sign, digits) = match text.as_bytes() {
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = match *digits {
        [a, b] => (two(a, b)?, 0),
        [a, b, c, d] | [a, b, b':', c, d] => (two(a, b)?, two(c, d)?),
        _ => return None,
    };
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes) * MINUTE)
}

fn two(a: u8, b: u8) -> Option<i64> {
    (a.is_ascii_digit() && b.is_ascii_digit()).then(|| i64::from(a - b'0') * 10 + i64::from(b - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(zone: &str, local: &str) -> String {
        let local = Timestamp::parse_rfc3339(&format!("{local}Z")).unwrap().millis();
        Zone::parse(zone).unwrap().instant(local).unwrap().to_string()
    }

    #[test]
    fn a_zone_is_utc_an_offset_or_an_iana_name() {
        assert_eq!(at("UTC", "2026-07-01T12:00:00"), "2026-07-01T12:00:00.000Z");
        assert_eq!(at("-05:30", "2026-07-01T12:00:00"), "2026-07-01T17:30:00.000Z");
        assert_eq!(at("Europe/Berlin", "2026-07-01T12:00:00"), "2026-07-01T10:00:00.000Z");
        assert_eq!(at("Europe/Berlin", "2026-12-01T12:00:00"), "2026-12-01T11:00:00.000Z");
        for wrong in ["", "CET", "Europe", "Europe/Atlantis", "+25", "+1", "01:00", "local"] {
            assert_eq!(Zone::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_local_time_is_some_instant_also_when_clocks_are_changed() {
        assert_eq!(at("Europe/Berlin", "2026-03-29T02:30:00"), "2026-03-29T01:30:00.000Z");
        assert_eq!(at("Europe/Berlin", "2026-10-25T02:30:00"), "2026-10-25T00:30:00.000Z");
    }
}
