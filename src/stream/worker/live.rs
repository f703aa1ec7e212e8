//! The live keys of a partition of the state topic: those with a snapshot or a recorded eviction. Their number and hash
//! are written with each change, so that a restart notices records that are missing.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::series::snapshot::{self, DamagedRecord};
use crate::stream::client::{OutgoingRecord, OutputTopic};

/// Key of the record with the digest between two checkpoints.
const KEY: &[u8] = b"l";

/// Number and hash of the live keys. The hash does not depend on their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LiveDigest {
    pub count: u64,
    /// Exclusive or of the hashes of the keys.
    pub hash: u64,
}

impl LiveDigest {
    /// Reads a record of `anomaly_state`; `None` if it is not a digest.
    pub(crate) fn read(key: &[u8], value: Option<&[u8]>) -> Option<Result<LiveDigest, DamagedRecord>> {
        let sealed = value.filter(|_| key == KEY)?;
        let body = snapshot::unseal(key, sealed);
        Some(body.and_then(|body| serde_json::from_slice(body).map_err(|_| DamagedRecord::Broken)))
    }

    /// Returns the digest's record for the state topic.
    pub(crate) fn record(&self, partition: i32) -> OutgoingRecord {
        let body = serde_json::to_vec(self).unwrap_or_default();
        let (key, value) = (Some(KEY.to_vec()), Some(snapshot::seal(KEY, &body)));
        OutgoingRecord { output: OutputTopic::State(partition), key, value, timestamp: None, headers: Vec::new() }
    }

    /// Notes that a key gets a record or loses its record.
    fn toggle(&mut self, key: KeyHash, is_live: bool) {
        self.hash ^= key.0;
        if is_live { self.count += 1 } else { self.count = self.count.saturating_sub(1) }
    }
}

/// Hash of the key of a record. It is stored, so its function must not change: FNV-1a with the finalizer of SplitMix64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct KeyHash(u64);

impl KeyHash {
    pub(crate) fn of(key: &[u8]) -> KeyHash {
        let fnv = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mixed = (fnv ^ (fnv >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        KeyHash(mixed ^ (mixed >> 31))
    }
}

/// Changes of live keys by the records of one transaction.
#[derive(Debug, Default)]
pub(super) struct KeyChanges {
    /// Whether each changed key was live before, and whether it is now.
    keys: HashMap<KeyHash, (bool, bool)>,
}

impl KeyChanges {
    /// Notes a record. `was_live` says whether the topic had a record with this key before the transaction. A record
    /// without a value deletes its key.
    pub(crate) fn note(&mut self, key: &[u8], was_live: bool, is_live: bool) {
        self.keys.entry(KeyHash::of(key)).or_insert((was_live, is_live)).1 = is_live;
    }

    /// Returns whether there was no record.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the digest after the changes.
    pub(crate) fn applied_to(&self, mut digest: LiveDigest) -> LiveDigest {
        let changed = self.keys.iter().filter(|(_, (was_live, is_live))| was_live != is_live);
        changed.for_each(|(key, (_, is_live))| digest.toggle(*key, *is_live));
        digest
    }
}

/// What the records of one partition say about its live keys.
#[derive(Debug, Default)]
pub(super) struct FoundKeys {
    live: HashSet<KeyHash>,
    digest: LiveDigest,
    /// The last digest. `None` if it is unknown, because an older program has written since.
    expected: Option<LiveDigest>,
}

impl FoundKeys {
    /// Notes the next record of a snapshot or an eviction. The digest follows it, unless an older program wrote it.
    pub(crate) fn note(&mut self, key: &[u8], is_live: bool) {
        let key = KeyHash::of(key);
        let has_changed = if is_live { self.live.insert(key) } else { self.live.remove(&key) };
        if has_changed {
            self.digest.toggle(key, is_live);
        }
        self.expected = None;
    }

    /// Notes the next digest; `None` if a checkpoint of an older program has none.
    pub(crate) fn set_expected(&mut self, digest: Option<LiveDigest>) {
        self.expected = digest;
    }

    /// Discards the digest, because records were skipped.
    pub(crate) fn forgive(&mut self) {
        self.expected = None;
    }

    /// Returns number and hash of the keys that were found.
    pub(crate) fn digest(&self) -> LiveDigest {
        self.digest
    }

    /// Returns the expected and the found digest if they differ.
    pub(crate) fn difference(&self) -> Option<(LiveDigest, LiveDigest)> {
        let expected = self.expected?;
        (expected != self.digest).then_some((expected, self.digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_follows_from_the_live_keys_whatever_the_order_and_number_of_records() {
        let of = |changes: &[(&str, bool)]| {
            let (mut found, mut all) = (FoundKeys::default(), KeyChanges::default());
            changes.iter().for_each(|(key, is_live)| {
                all.note(key.as_bytes(), false, *is_live);
                found.note(key.as_bytes(), *is_live);
            });
            assert_eq!(all.applied_to(LiveDigest::default()), found.digest());
            found.digest()
        };
        let both = of(&[("a", true), ("b", true)]);
        assert_eq!(both.count, 2);
        assert_eq!(of(&[("b", true), ("a", true), ("b", true)]), both);
        assert_eq!(of(&[("c", true), ("b", true), ("c", false), ("a", true), ("d", false)]), both);
        assert_eq!(of(&[("a", true), ("a", false)]), LiveDigest::default());
        assert_ne!(of(&[("a", true), ("c", true)]), both);
        let mut later = KeyChanges::default();
        later.note(b"a", true, true);
        later.note(b"b", true, false);
        assert_eq!(later.applied_to(both), of(&[("a", true)]), "a record in place of another one changes nothing");
    }

    #[test]
    fn the_stored_hash_of_a_key_never_changes() {
        assert_eq!(KeyHash::of(b""), KeyHash(0xf52a_15e9_a9b5_e89b));
        assert_eq!(KeyHash::of(b"sdevice-0001\0m"), KeyHash(0x59a2_fbc4_9bd8_bc63));
    }

    #[test]
    fn a_digest_counts_only_behind_all_records_of_its_program() {
        let mut found = FoundKeys::default();
        found.note(b"sa", true);
        found.set_expected(Some(LiveDigest::default()));
        assert!(found.difference().is_some());
        found.note(b"sb", true);
        assert_eq!(found.difference(), None, "an older program wrote this record");
        found.set_expected(Some(found.digest()));
        assert_eq!(found.difference(), None);
        found.set_expected(Some(LiveDigest::default()));
        found.set_expected(None);
        assert_eq!(found.difference(), None, "the checkpoint of an older program");
    }

    #[test]
    fn a_digest_is_read_back_from_its_record() {
        let digest = LiveDigest { count: 3, hash: u64::MAX };
        let record = digest.record(1);
        let (key, value) = (record.key.unwrap(), record.value.unwrap());
        assert_eq!(LiveDigest::read(&key, Some(&value)), Some(Ok(digest)));
        assert_eq!(LiveDigest::read(b"f", Some(&value)), None);
        assert_eq!(snapshot::series_of(&key), None, "older programs ignore it");
    }
}
