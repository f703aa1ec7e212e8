//! Encodes one series as a record of the state topic. The record's key is `s` and the series' key. Its value is:
//!
//! ```text
//! version     1 byte
//! checksum    CRC-32 of the record's key and of all that follows, 4 bytes
//! content     1 byte: 0 a series, 1 evicted
//! settings    6 bytes: fingerprint of the settings that were in force
//! as of       8 bytes: every record of the partition before this offset is accounted for, none from it on
//! sections    each: 1 byte that says which, its length in 4 bytes, and so many bytes
//! ```
//! An evicted series has no sections, and `as of` is the offset from which it starts again. A series has these, in this
//! order:
//!
//! ```text
//! 1 window      8 bytes for each value: the exact bits, oldest first
//! 2 method      length of its name, 1 byte; the name; its version, 4 bytes; 8 bytes for each word of its state
//! 3 provenance  of the newest record: partition, 4 bytes; offset, 8 bytes; the partition's clock there in seconds, 4 bytes; topic
//! 4 episode     reserved
//! ```
//! Numbers are little-endian. A section that this program does not know is written again unchanged.

use std::fmt;

use crate::fail;
use crate::method::MethodId;

/// Version of the format that this program writes, and the newest that it reads. Format 1 had no sections.
pub(crate) const VERSION: u8 = 2;
/// First byte of a series' record key.
const SERIES: u8 = b's';
const WINDOW: u8 = 1;
const METHOD: u8 = 2;
const PROVENANCE: u8 = 3;

/// Fingerprint of settings. Settings that differ in anything that decides a verdict have different fingerprints.
pub(crate) type Fingerprint = [u8; 6];

/// Snapshot of a series as it was before an offset.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SeriesSnapshot {
    /// Fingerprint of the settings that were in force.
    pub settings: Fingerprint,
    /// Offset of the first record that the snapshot does not account for.
    pub as_of: i64,
    /// State of the series, or its eviction.
    pub content: SnapshotContent,
}

/// Content of a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SnapshotContent {
    /// The series has this state.
    Series(SeriesContent),
    /// The series was evicted.
    Evicted,
}

/// The sections of a series.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SeriesContent {
    /// Values of the window, oldest first.
    pub values: Vec<f64>,
    /// Method that the state belongs to.
    pub method: MethodId,
    /// State of the method, of length [`Method::state_len`](crate::method::Method::state_len).
    pub state: Vec<u64>,
    /// Topic of the newest record.
    pub topic: String,
    /// Partition of the newest record.
    pub partition: i32,
    /// Offset of the newest record.
    pub last: i64,
    /// Time of the partition's clock at that record, in seconds.
    pub touched: u32,
    /// Complete sections that this program does not know.
    pub carried: Vec<u8>,
}

/// Values that all snapshots of one sweep have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotOrigin {
    /// Fingerprint of the settings in force.
    pub settings: Fingerprint,
    /// Topic of the input.
    pub topic: String,
    /// Partition of the input.
    pub partition: i32,
}

/// Reason why a record of the state topic cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DamagedRecord {
    /// The record is too short, or the checksum is wrong.
    Broken,
    /// The record has a format that this program does not know.
    Newer(u8),
    /// The record has a format that this program does not read any more.
    Older(u8),
}

impl fmt::Display for DamagedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DamagedRecord::Broken => f.write_str("it is damaged: its checksum does not fit"),
            DamagedRecord::Newer(version) => write!(f, "its format {version} is newer than this program's, {VERSION}"),
            DamagedRecord::Older(version) => {
                write!(f, "its format {version} is older than this program reads; it reads format {VERSION}")
            }
        }
    }
}

/// Prepends version and checksum to a body.
pub(crate) fn seal(key: &[u8], body: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(5 + body.len());
    sealed.push(fail::version(VERSION));
    sealed.extend(checksum(key, body).to_le_bytes());
    sealed.extend(body);
    sealed
}

/// Returns the body after version and checksum.
///
/// # Errors
/// Fails if the record cannot be read; see [`DamagedRecord`].
pub(crate) fn unseal<'v>(key: &[u8], value: &'v [u8]) -> Result<&'v [u8], DamagedRecord> {
    let (version, rest) = value.split_first().ok_or(DamagedRecord::Broken)?;
    if *version > fail::version(VERSION) {
        return Err(DamagedRecord::Newer(*version));
    }
    let (sum, body) = rest.split_first_chunk::<4>().ok_or(DamagedRecord::Broken)?;
    match *version {
        _ if u32::from_le_bytes(*sum) != checksum(key, body) => Err(DamagedRecord::Broken),
        version if version < VERSION => Err(DamagedRecord::Older(version)),
        _ => Ok(body),
    }
}

fn checksum(key: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(body);
    hasher.finalize()
}

/// Returns whether a sealed value contains a series, not an eviction.
pub(crate) fn is_window(sealed: &[u8]) -> bool {
    sealed.get(5) == Some(&0)
}

/// Returns the key of a series' record.
pub(crate) fn record_key(series: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + series.len());
    key.push(SERIES);
    key.extend(series.as_bytes());
    key
}

/// Returns the series of a record key; `None` for records of other kinds.
pub(crate) fn series_of(record_key: &[u8]) -> Option<&str> {
    let (kind, series) = record_key.split_first()?;
    (*kind == SERIES).then(|| std::str::from_utf8(series).ok())?
}

/// The parts of a snapshot that belong to the series.
pub(super) struct EncodedSeries<'s, I> {
    pub last: i64,
    pub touched: u32,
    /// Number of values in the window.
    pub count: usize,
    pub values: I,
    /// Method that the state belongs to.
    pub method: &'s MethodId,
    pub state: &'s [u64],
    pub carried: &'s [u8],
}

/// Encodes a series' record value without building a [`SeriesSnapshot`] first.
pub(super) fn encode_series(
    key: &[u8],
    origin: &SnapshotOrigin,
    as_of: i64,
    series: EncodedSeries<'_, impl Iterator<Item = f64>>,
) -> Vec<u8> {
    let EncodedSeries { last, touched, count, values, method, state, carried } = series;
    let (MethodId { name, version }, SnapshotOrigin { settings, topic, partition }) = (method, origin);
    let name = &name.as_bytes()[..name.len().min(u8::MAX.into())];
    let numbers = count + state.len();
    let mut body = Vec::with_capacity(64 + name.len() + topic.len() + carried.len() + numbers * 8);
    body.push(0);
    body.extend(settings);
    body.extend(as_of.to_le_bytes());
    section(&mut body, WINDOW, count * 8);
    values.for_each(|value| body.extend(value.to_bits().to_le_bytes()));
    section(&mut body, METHOD, 5 + name.len() + state.len() * 8);
    body.push(name.len() as u8);
    body.extend(name);
    body.extend(version.to_le_bytes());
    state.iter().for_each(|word| body.extend(word.to_le_bytes()));
    section(&mut body, PROVENANCE, 16 + topic.len());
    body.extend(partition.to_le_bytes());
    body.extend(last.to_le_bytes());
    body.extend(touched.to_le_bytes());
    body.extend(topic.as_bytes());
    body.extend(carried);
    seal(key, &body)
}

fn section(body: &mut Vec<u8>, which: u8, length: usize) {
    body.push(which);
    body.extend((length as u32).to_le_bytes());
}

/// Encodes the record value of an evicted series.
pub(crate) fn encode_evicted(key: &[u8], settings: Fingerprint, as_of: i64) -> Vec<u8> {
    let mut body = Vec::with_capacity(15);
    body.push(1);
    body.extend(settings);
    body.extend(as_of.to_le_bytes());
    seal(key, &body)
}

/// Decodes the record value of a series or of an eviction.
///
/// # Errors
/// Fails if the record cannot be read; see [`DamagedRecord`].
pub(crate) fn decode(key: &[u8], value: &[u8]) -> Result<SeriesSnapshot, DamagedRecord> {
    let mut body = unseal(key, value)?;
    let [kind] = take(&mut body)?;
    let settings = take(&mut body)?;
    let as_of = i64::from_le_bytes(take(&mut body)?);
    let content = match kind {
        0 => SnapshotContent::Series(sections(body)?),
        1 if body.is_empty() => SnapshotContent::Evicted,
        _ => return Err(DamagedRecord::Broken),
    };
    Ok(SeriesSnapshot { settings, as_of, content })
}

fn sections(mut body: &[u8]) -> Result<SeriesContent, DamagedRecord> {
    let (mut window, mut method, mut provenance, mut carried) = (None, None, None, Vec::new());
    while !body.is_empty() {
        let whole = body;
        let [which] = take(&mut body)?;
        let length = u32::from_le_bytes(take(&mut body)?) as usize;
        let (section, rest) = body.split_at_checked(length).ok_or(DamagedRecord::Broken)?;
        match which {
            WINDOW => window = Some(numbers(section)?),
            METHOD => method = Some(method_section(section)?),
            PROVENANCE => provenance = Some(section),
            _ => carried.extend(&whole[..5 + length]),
        }
        body = rest;
    }
    let (Some(values), Some((method, state)), Some(mut provenance)) = (window, method, provenance) else {
        return Err(DamagedRecord::Broken);
    };
    let partition = i32::from_le_bytes(take(&mut provenance)?);
    let last = i64::from_le_bytes(take(&mut provenance)?);
    let touched = u32::from_le_bytes(take(&mut provenance)?);
    let topic = text(provenance)?;
    Ok(SeriesContent { values, method, state, topic, partition, last, touched, carried })
}

fn method_section(mut section: &[u8]) -> Result<(MethodId, Vec<u64>), DamagedRecord> {
    let [length] = take(&mut section)?;
    let (name, mut rest) = section.split_at_checked(length.into()).ok_or(DamagedRecord::Broken)?;
    let version = u32::from_le_bytes(take(&mut rest)?);
    Ok((MethodId { name: text(name)?, version }, words(rest)?.collect()))
}

fn text(bytes: &[u8]) -> Result<String, DamagedRecord> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| DamagedRecord::Broken)
}

/// Reads numbers, which must be finite.
fn numbers(bytes: &[u8]) -> Result<Vec<f64>, DamagedRecord> {
    let numbers = words(bytes)?.map(f64::from_bits).collect::<Vec<_>>();
    if numbers.iter().all(|number| number.is_finite()) { Ok(numbers) } else { Err(DamagedRecord::Broken) }
}

/// Reads words of eight bytes.
fn words(bytes: &[u8]) -> Result<impl Iterator<Item = u64>, DamagedRecord> {
    let (words, rest) = bytes.as_chunks::<8>();
    if rest.is_empty() { Ok(words.iter().map(|bytes| u64::from_le_bytes(*bytes))) } else { Err(DamagedRecord::Broken) }
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

    fn method() -> MethodId {
        MethodId { name: "ewma".into(), version: 3 }
    }

    fn encoded(key: &[u8], values: &[f64], state: &[u64], carried: &[u8]) -> Vec<u8> {
        let (count, values) = (values.len(), values.iter().copied());
        let origin = SnapshotOrigin { settings: *b"abcdef", topic: "raw".into(), partition: 7 };
        let series = EncodedSeries { last: 70, touched: 5, count, values, method: &method(), state, carried };
        encode_series(key, &origin, 77, series)
    }

    fn finite() -> impl Strategy<Value = f64> {
        any::<f64>().prop_filter("finite", |v| v.is_finite())
    }

    proptest! {
        #[test]
        fn exact_bits_are_read_back_and_any_changed_byte_is_detected(
            values in prop::collection::vec(finite(), 0..9),
            state in prop::collection::vec(any::<u64>(), 0..4),
            unknown in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
            at in any::<prop::sample::Index>(),
            flip in 1..255u8,
        ) {
            let key = record_key("pump\0m");
            let mut carried = Vec::new();
            if let Some(unknown) = unknown {
                section(&mut carried, 200, unknown.len());
                carried.extend(unknown);
            }
            let value = encoded(&key, &values, &state, &carried);
            let snapshot = decode(&key, &value).unwrap();
            let SnapshotContent::Series(read) = &snapshot.content else { panic!() };
            let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!((bits(&read.values), &read.state), (bits(&values), &state));
            prop_assert_eq!((&read.method, &read.carried), (&method(), &carried));
            prop_assert_eq!((read.topic.as_str(), read.partition, read.last, read.touched), ("raw", 7, 70, 5));
            prop_assert_eq!((snapshot.as_of, snapshot.settings), (77, *b"abcdef"));
            let mut damaged = value.clone();
            let at = at.index(value.len());
            damaged[at] ^= flip;
            prop_assert!(decode(&key, &damaged).is_err());
            prop_assert!(decode(&key, &value[..at]).is_err());
            prop_assert!(decode(&record_key("other"), &value).is_err());
        }
    }

    #[test]
    fn a_newer_format_and_an_older_one_differ_from_damage() {
        let key = record_key("d");
        let mut value = encode_evicted(&key, *b"abcdef", 9);
        assert_eq!(decode(&key, &value).unwrap().content, SnapshotContent::Evicted);
        value[0] = VERSION + 1;
        assert_eq!(decode(&key, &value), Err(DamagedRecord::Newer(VERSION + 1)));
        value[0] = 1;
        assert_eq!(decode(&key, &value), Err(DamagedRecord::Older(1)));
        value[9] ^= 1;
        assert_eq!(decode(&key, &value), Err(DamagedRecord::Broken));
        assert_eq!(series_of(b"f"), None);
        assert_eq!(series_of(&key), Some("d"));
    }
}
