//! Samples of the newest rejected records, so that a page can show what is wrong with them.

use std::collections::{BTreeMap, VecDeque};

use crate::event::{RejectClass, Timestamp};

/// Maximum number of bytes of a key or a value.
pub const EXCERPT: usize = 300;
/// Number of samples per class.
const MAX_SAMPLES: usize = 5;

/// Sample of a rejected record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedSample {
    /// Which topic of the input's name, see [`RecordId`](crate::anomaly::RecordId).
    pub generation: i32,
    /// Partition of the input topic.
    pub partition: i32,
    /// Offset of the record in that partition.
    pub offset: i64,
    /// Class of the rejection, for counting.
    pub class: RejectClass,
    /// Reason of the rejection, for people.
    pub message: String,
    /// First bytes of the record's key.
    pub key: Option<Cut>,
    /// First bytes of the record's value.
    pub value: Option<Cut>,
    /// Time at which the record was consumed.
    pub at: Timestamp,
}

/// The first bytes of a text, and its total size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The first bytes, at most [`EXCERPT`].
    pub bytes: Vec<u8>,
    /// Total number of bytes of the text.
    pub size: usize,
}

impl Cut {
    /// Creates an excerpt of a text.
    pub fn of(bytes: &[u8]) -> Cut {
        Cut { bytes: bytes[..bytes.len().min(EXCERPT)].to_vec(), size: bytes.len() }
    }
}

/// The newest samples of each class.
#[derive(Debug, Default)]
pub struct RejectedSamples(BTreeMap<RejectClass, VecDeque<RejectedSample>>);

impl RejectedSamples {
    /// Adds a sample, and removes an older one of its class.
    pub fn push(&mut self, sample: RejectedSample) {
        let of = self.0.entry(sample.class).or_default();
        if of.len() == MAX_SAMPLES {
            of.pop_front();
        }
        of.push_back(sample);
    }

    /// Adds newer samples, which replace older ones of their class.
    pub fn extend(&mut self, newer: RejectedSamples) {
        newer.0.into_values().flatten().for_each(|sample| self.push(sample));
    }

    /// Returns the samples of all classes.
    pub fn iter(&self) -> impl Iterator<Item = &RejectedSample> {
        self.0.values().flatten()
    }

    /// Returns whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_of_each_class_are_kept_and_only_their_first_bytes() {
        let sample = |offset, class| RejectedSample {
            generation: 0,
            partition: 0,
            offset,
            class,
            message: String::new(),
            key: None,
            value: Some(Cut::of(&[b'x'; 5_000])),
            at: Timestamp::now(),
        };
        let (mut kept, mut newer) = (RejectedSamples::default(), RejectedSamples::default());
        (0..90).for_each(|offset| kept.push(sample(offset, RejectClass::Json)));
        newer.push(sample(90, RejectClass::Json));
        newer.push(sample(91, RejectClass::Utf8));
        kept.extend(newer);
        let mut offsets = kept.iter().map(|sample| sample.offset).collect::<Vec<_>>();
        offsets.sort_unstable();
        assert_eq!(offsets, [86, 87, 88, 89, 90, 91]);
        let value = kept.iter().next().unwrap().value.clone().unwrap();
        assert_eq!((value.bytes.len(), value.size), (EXCERPT, 5_000));
    }
}
