//! Detects devices whose records arrive in more than one partition, so that each has a window of its own. The record's
//! key shows the cause.

use std::fmt;

use crate::foreign;

/// Cause of a split, according to the key of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Cause {
    #[default]
    NoKey,
    /// The key is the device, but two producers assign it to different partitions.
    Partitioners,
    OtherKey,
}

/// Series that were created in one partition while another partition already had them.
#[derive(Debug, Clone, Default)]
pub(super) struct Splits {
    /// Number of such series.
    pub count: u64,
    first: Option<First>,
}

#[derive(Debug, Clone)]
struct First {
    device: String,
    partitions: (i32, i32),
    cause: Cause,
}

impl Splits {
    /// Notes a device in this partition that another partition already has.
    pub(crate) fn note(&mut self, device: &str, partition: i32, other: i32, key: Option<&[u8]>) {
        self.count += 1;
        self.first.get_or_insert_with(|| First {
            device: device.to_owned(),
            partitions: (other.min(partition), other.max(partition)),
            cause: match key {
                None => Cause::NoKey,
                Some(key) if key == device.as_bytes() => Cause::Partitioners,
                Some(_) => Cause::OtherKey,
            },
        });
    }

    /// Adds the splits of a later transaction.
    pub(crate) fn add(&mut self, later: Splits) {
        self.count += later.count;
        self.first = self.first.take().or(later.first);
    }
}

impl fmt::Display for Splits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(First { device, partitions: (one, two), cause }) = &self.first else { return Ok(()) };
        let cause = match cause {
            Cause::NoKey => "its records have no key: give them the device as key",
            Cause::Partitioners => {
                "its key is placed by two partitioners, as by librdkafka's default and Java's: set \
                 `partitioner=murmur2_random` in the producers that use librdkafka"
            }
            Cause::OtherKey => "its records have another key than the device: give them the device as key",
        };
        let count = self.count;
        let device = foreign::name(device);
        write!(
            f,
            "{count} series are in a second partition, each part with its own window: device {device} is in [{one}] and [{two}]; \
             {cause}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_device_is_named_with_its_partitions_and_the_cause() {
        for (key, words) in
            [(None, "have no key"), (Some(&b"d"[..]), "two partitioners"), (Some(&b"x"[..]), "another key")]
        {
            let mut splits = Splits::default();
            splits.note("d", 3, 0, key);
            splits.note("e", 3, 0, None);
            let text = splits.to_string();
            assert!(
                text.starts_with("2 series") && text.contains("is in [0] and [3]") && text.contains(words),
                "{text}"
            );
        }
    }
}
