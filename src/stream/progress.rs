//! Progress of a partition: its offset, and the outcomes of the records before it. Each transaction commits it with its
//! output. An auditor can check that each record had exactly one outcome.

use std::collections::BTreeMap;
use std::fmt;

use crate::health::Tally;

/// Number of records of a partition per outcome, since the group was created.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OutcomeCounts {
    /// Number of learned records: their series have too few preceding values.
    pub learning: u64,
    /// Number of records that were normal.
    pub normal: u64,
    /// Number of records that were anomalous.
    pub anomalous: u64,
    /// Number of rejected records that were sent to the dead-letter topic.
    pub rejected: u64,
    /// Number of rejected records that were dropped, as configured.
    pub dropped: u64,
    /// Number of ignored records: null values, and records that match a pattern or have no value.
    pub ignored: u64,
    /// Number of excluded records: the policy of their series disables judging.
    pub excluded: u64,
    /// Number of records that were skipped, because they cannot be read.
    pub skipped: u64,
    /// Number of records of which only the valid values were judged. These records count under their outcome too.
    pub partial: u64,
}

impl OutcomeCounts {
    const NAMES: [&str; 9] =
        ["learning", "normal", "anomalous", "rejected", "dropped", "ignored", "excluded", "skipped", "partial"];

    /// Returns the number of all records with an outcome.
    pub(crate) fn sum(&self) -> u64 {
        let partial = self.partial;
        self.numbers().iter().sum::<u64>() - partial
    }

    /// Returns the number of records with an outcome that the topic has or had. A skipped record cannot be read.
    pub(crate) fn found(&self) -> u64 {
        self.sum() - self.skipped
    }

    /// Converts to the counts of the health room.
    pub(crate) fn tally(&self) -> Tally {
        Tally {
            judged: self.normal + self.anomalous,
            learning: self.learning,
            rejected: self.rejected + self.dropped,
            ignored: self.ignored,
            excluded: self.excluded,
        }
    }

    /// Returns the numbers with their names.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Self::NAMES.into_iter().zip(self.numbers())
    }

    fn numbers(&self) -> [u64; 9] {
        let OutcomeCounts { learning, normal, anomalous, rejected, dropped, ignored, excluded, skipped, partial } =
            *self;
        [learning, normal, anomalous, rejected, dropped, ignored, excluded, skipped, partial]
    }

    /// Parses the counts, and ignores unknown words. Older programs did not write the last four counts.
    pub(crate) fn parse(text: &str) -> Option<OutcomeCounts> {
        let number = |name: &str| {
            text.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok())
        };
        let [learning, normal, anomalous, rejected, dropped, ignored, excluded, skipped, partial] =
            Self::NAMES.map(number);
        Some(OutcomeCounts {
            learning: learning?,
            normal: normal?,
            anomalous: anomalous?,
            rejected: rejected?,
            dropped: dropped?,
            ignored: ignored.unwrap_or(0),
            excluded: excluded.unwrap_or(0),
            skipped: skipped.unwrap_or(0),
            partial: partial.unwrap_or(0),
        })
    }
}

impl fmt::Display for OutcomeCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.named().map(|(name, n)| format!("{name}={n}"));
        f.write_str(&words.collect::<Vec<_>>().join(" "))
    }
}

/// The last record of a partition that has an outcome. It shows whether the log is still the same, because the offset
/// alone does not. It may be before the last offset, which can be that of a marker or of a skipped record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LastRecord {
    /// Offset of the record.
    pub offset: i64,
    /// Time of the record itself, in milliseconds since the epoch.
    pub timestamp: Option<i64>,
    /// CRC-32 of the record's key and value.
    pub checksum: u32,
}

impl LastRecord {
    /// Creates the note of a record.
    pub(crate) fn new(offset: i64, timestamp: Option<i64>, key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        let mut sum = crc32fast::Hasher::new();
        for part in [key, value] {
            // The length separates the parts, and a null part from an empty one.
            sum.update(&part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
            sum.update(part.unwrap_or_default());
        }
        LastRecord { offset, timestamp, checksum: sum.finalize() }
    }

    /// Parses the note among other words.
    pub(crate) fn parse(text: &str) -> Option<LastRecord> {
        let mut parts = text.split(' ').find_map(|word| word.strip_prefix(Self::WORD))?.split(':');
        let (offset, timestamp, checksum) = (parts.next()?, parts.next()?, parts.next()?);
        Some(LastRecord {
            offset: offset.parse().ok()?,
            timestamp: match timestamp {
                "-" => None,
                timestamp => Some(timestamp.parse().ok()?),
            },
            checksum: u32::from_str_radix(checksum, 16).ok()?,
        })
    }

    const WORD: &str = "last=";
}

impl fmt::Display for LastRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let timestamp = self.timestamp.map_or_else(|| "-".to_owned(), |timestamp| timestamp.to_string());
        write!(f, "{}{}:{timestamp}:{:08x}", Self::WORD, self.offset, self.checksum)
    }
}

/// Progress of a partition within its topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Offset of the next record to judge.
    pub offset: i64,
    /// Outcomes of the records before this offset.
    pub counts: OutcomeCounts,
    /// The last of these records; `None` if it is unknown.
    pub last: Option<LastRecord>,
    /// Which topic of that name the offset belongs to.
    pub generation: i32,
}

/// Progress of several partitions, by partition.
pub(crate) type ProgressByPartition = BTreeMap<i32, Progress>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_read_back_from_their_text_among_other_words() {
        let counts = OutcomeCounts {
            learning: 1,
            normal: 2,
            anomalous: 3,
            rejected: 4,
            dropped: 5,
            ignored: 6,
            excluded: 7,
            skipped: 9,
            partial: 8,
        };
        assert_eq!(OutcomeCounts::parse(&format!("anomaly-partitions=4 {counts} postponed=7")), Some(counts));
        assert_eq!(counts.sum(), 37, "a partial record counts under its outcome");
        assert_eq!(counts.found(), 28);
        let older = "learning=1 normal=2 anomalous=3 rejected=4 dropped=5";
        let expected = OutcomeCounts { ignored: 0, excluded: 0, skipped: 0, partial: 0, ..counts };
        assert_eq!(OutcomeCounts::parse(older), Some(expected));
        assert_eq!(OutcomeCounts::parse("anomaly-partitions=4"), None);
    }

    #[test]
    fn the_last_record_reads_back_from_its_text_among_other_words_and_differs_from_similar_records() {
        for timestamp in [None, Some(1_764_000_000_123), Some(-1)] {
            let last = LastRecord::new(7, timestamp, Some(b"key"), Some(b"value"));
            assert_eq!(LastRecord::parse(&format!("at=8 {last} learning=1")), Some(last));
        }
        assert_eq!(LastRecord::parse("at=8 learning=1"), None);
        assert_eq!(LastRecord::parse("last=7:x:0"), None);
        let sum = |key: Option<&[u8]>, value: Option<&[u8]>| LastRecord::new(7, None, key, value).checksum;
        assert_ne!(sum(None, Some(b"v")), sum(Some(b""), Some(b"v")));
        assert_ne!(sum(Some(b"k"), Some(b"v")), sum(Some(b"kv"), Some(b"")));
    }
}
