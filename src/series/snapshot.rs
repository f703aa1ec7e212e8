//! One series as bytes: what the topic of windows holds of it. A record's key is `s` and the series' key; its value:
//!
//! ```text
//! version     1 byte
//! checksum    CRC-32 of the record's key and of all that follows, 4 bytes
//! content     1 byte: 0 a window, 1 evicted
//! settings    6 bytes: fingerprint of the settings that were in force
//! as of       8 bytes: every record of the partition before this offset is accounted for, none from it on
//! last        8 bytes: offset of the series' newest record
//! touched     4 bytes: the partition's clock at that record, in seconds
//! values      8 bytes each, the exact bits, oldest first
//! ```
//! Numbers are little-endian. Of an evicted series nothing follows `as of`, which is then where it begins anew.

use std::fmt;

use crate::fail;

/// Newest format that is understood, and the one that is written.
pub const VERSION: u8 = 1;
/// First byte of a series' record key.
const SERIES: u8 = b's';

/// Of settings: two that differ in anything that decides a verdict have different ones.
pub type Fingerprint = [u8; 6];

/// A series as it was before an offset.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesSnapshot {
    /// See the module.
    pub settings: Fingerprint,
    /// See the module.
    pub as_of: i64,
    /// What was known of the series.
    pub content: SnapshotContent,
}

/// What a snapshot holds.
#[derive(Debug, Clone, PartialEq)]
pub enum SnapshotContent {
    /// Its window.
    Window {
        /// See the module.
        last: i64,
        /// See the module.
        touched: u32,
        /// Oldest first.
        values: Vec<f64>,
    },
    /// It was forgotten.
    Evicted,
}

/// Why a record cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamagedRecord {
    /// Too short, or the checksum does not fit.
    Broken,
    /// Of a version that this program does not know.
    Newer(u8),
}

impl fmt::Display for DamagedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DamagedRecord::Broken => f.write_str("it is damaged: its checksum does not fit"),
            DamagedRecord::Newer(version) => write!(f, "its format {version} is newer than this program's, {VERSION}"),
        }
    }
}

/// Puts version and checksum before a body.
pub fn seal(key: &[u8], body: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(5 + body.len());
    sealed.push(fail::version(VERSION));
    sealed.extend(checksum(key, body).to_le_bytes());
    sealed.extend(body);
    sealed
}

/// The body behind version and checksum.
///
/// # Errors
/// See [`DamagedRecord`].
pub fn unseal<'v>(key: &[u8], value: &'v [u8]) -> Result<&'v [u8], DamagedRecord> {
    let (version, rest) = value.split_first().ok_or(DamagedRecord::Broken)?;
    let newest = fail::version(VERSION);
    if *version > newest {
        return Err(DamagedRecord::Newer(*version));
    }
    let (sum, body) = rest.split_first_chunk::<4>().ok_or(DamagedRecord::Broken)?;
    // No older layout is different so far.
    let fits = (1..=newest).contains(version) && u32::from_le_bytes(*sum) == checksum(key, body);
    if fits { Ok(body) } else { Err(DamagedRecord::Broken) }
}

fn checksum(key: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(body);
    hasher.finalize()
}

/// Whether a sealed value holds a window, not an eviction.
pub fn is_window(sealed: &[u8]) -> bool {
    sealed.get(5) == Some(&0)
}

/// Key of a series' record.
pub fn record_key(series: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + series.len());
    key.push(SERIES);
    key.extend(series.as_bytes());
    key
}

/// The reverse of [`record_key`]; `None` for records of other kinds.
pub fn series_of(record_key: &[u8]) -> Option<&str> {
    let (kind, series) = record_key.split_first()?;
    (*kind == SERIES).then(|| std::str::from_utf8(series).ok())?
}

/// A window's record value, without building a [`SeriesSnapshot`] first.
pub(super) fn encode_window(
    key: &[u8],
    settings: Fingerprint,
    as_of: i64,
    last: i64,
    touched: u32,
    values: impl Iterator<Item = f64>,
) -> Vec<u8> {
    let mut body = Vec::with_capacity(27 + values.size_hint().0 * 8);
    body.push(0);
    body.extend(settings);
    body.extend(as_of.to_le_bytes());
    body.extend(last.to_le_bytes());
    body.extend(touched.to_le_bytes());
    values.for_each(|value| body.extend(value.to_bits().to_le_bytes()));
    seal(key, &body)
}

/// An evicted series' record value.
pub fn encode_evicted(key: &[u8], settings: Fingerprint, as_of: i64) -> Vec<u8> {
    let mut body = Vec::with_capacity(15);
    body.push(1);
    body.extend(settings);
    body.extend(as_of.to_le_bytes());
    seal(key, &body)
}

/// The reverse of both.
///
/// # Errors
/// See [`DamagedRecord`].
pub fn decode(key: &[u8], value: &[u8]) -> Result<SeriesSnapshot, DamagedRecord> {
    let mut body = unseal(key, value)?;
    let [kind] = take(&mut body)?;
    let settings = take(&mut body)?;
    let as_of = i64::from_le_bytes(take(&mut body)?);
    let content = match kind {
        0 => {
            let (last, touched) = (i64::from_le_bytes(take(&mut body)?), u32::from_le_bytes(take(&mut body)?));
            let (values, rest) = body.as_chunks::<8>();
            if !rest.is_empty() {
                return Err(DamagedRecord::Broken);
            }
            let values = values.iter().map(|bytes| f64::from_bits(u64::from_le_bytes(*bytes))).collect::<Vec<_>>();
            if !values.iter().all(|value| value.is_finite()) {
                return Err(DamagedRecord::Broken);
            }
            SnapshotContent::Window { last, touched, values }
        }
        1 if body.is_empty() => SnapshotContent::Evicted,
        _ => return Err(DamagedRecord::Broken),
    };
    Ok(SeriesSnapshot { settings, as_of, content })
}

fn take<const N: usize>(body: &mut &[u8]) -> Result<[u8; N], DamagedRecord> {
    let (taken, rest) = body.split_first_chunk::<N>().ok_or(DamagedRecord::Broken)?;
    *body = rest;
    Ok(*taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTINGS: Fingerprint = *b"abcdef";

    proptest! {
        #[test]
        fn exact_bits_come_back_and_any_changed_byte_is_noticed(
            values in prop::collection::vec(any::<f64>().prop_filter("finite", |v| v.is_finite()), 0..9),
            at in any::<prop::sample::Index>(),
            flip in 1..255u8,
        ) {
            let key = record_key("pump\0m");
            let value = encode_window(&key, SETTINGS, 77, 70, 5, values.iter().copied());
            let snapshot = decode(&key, &value).unwrap();
            let SnapshotContent::Window { last: 70, touched: 5, values: read } = &snapshot.content else { panic!() };
            let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(read), bits(&values));
            prop_assert_eq!((snapshot.as_of, snapshot.settings), (77, SETTINGS));
            let mut damaged = value.clone();
            let at = at.index(value.len());
            damaged[at] ^= flip;
            prop_assert!(decode(&key, &damaged).is_err());
            prop_assert!(decode(&key, &value[..at]).is_err());
            prop_assert!(decode(&record_key("other"), &value).is_err());
        }
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let key = record_key("d");
        let mut value = encode_evicted(&key, SETTINGS, 9);
        assert_eq!(decode(&key, &value).unwrap().content, SnapshotContent::Evicted);
        value[0] = VERSION + 1;
        assert_eq!(decode(&key, &value), Err(DamagedRecord::Newer(VERSION + 1)));
        assert_eq!(series_of(b"f"), None);
        assert_eq!(series_of(&key), Some("d"));
    }
}
