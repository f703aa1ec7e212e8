//! What the detector does after the cluster has lost or replaced records between two of its runs.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use rdkafka::admin::AdminOptions;
use rdkafka::{Offset, TopicPartitionList};

use crate::check::set_policy;
use crate::common::{Case, event, wait};
use crate::damage::{batches, segment};
use crate::offsets::change;
use crate::pipeline::wait_done;
use crate::state::{OFTEN, admin, case, kill, refused, state, swept};

/// Deletes the records of the state topic before the checkpoint of each partition.
fn delete_snapshots(case: &Case) {
    let mut list = TopicPartitionList::new();
    for partition in 0..4 {
        let records = case.read(&state(case));
        let is_checkpoint = |got: &&crate::common::Got| got.partition == partition && got.key.as_deref() == Some(b"f");
        let last = records.iter().rfind(is_checkpoint).unwrap().offset;
        list.add_partition_offset(&state(case), partition, Offset::Offset(last)).unwrap();
    }
    let (runtime, admin) = admin(case);
    // The broker deletes records of a topic that is only compacted never on request.
    set_policy(case, &state(case), "compact,delete");
    wait("the records to be deleted", || {
        let done = runtime.block_on(admin.delete_records(&list, &AdminOptions::new())).unwrap();
        done.elements().iter().all(|partition| partition.error().is_ok())
    });
    set_policy(case, &state(case), "compact");
}

#[test]
fn deleted_snapshots_stop_the_detector_and_accepting_reads_the_windows_back_so_that_outliers_are_found() {
    let case = swept("deleted_snapshots");
    delete_snapshots(&case);
    refused(&case, "records with windows: records were deleted, as with cleanup.policy=delete");
    let accepted = change(&case, &["accept"]);
    assert_eq!(accepted.matches("continues at offset").count(), 4, "{accepted}");
    let before = case.read(&case.anomalies()).len();
    case.produce((0..40).map(|device| event(&format!("device-{device:04}"), 1e6)));
    let _detector = case.detector("a", &[OFTEN]);
    wait_done(&case, 8_040);
    assert_eq!(case.read(&case.anomalies()).len() - before, 40);
}

#[test]
fn a_state_topic_that_is_not_compacted_stops_the_detector_as_a_wrong_setting() {
    let case = case("policy");
    let state = state(&case);
    for policy in ["delete", "compact,delete"] {
        set_policy(&case, &state, policy);
        let mut detector = case.detector("a", &[]);
        assert_eq!(detector.exit(std::time::Duration::from_secs(30)).code(), Some(78), "{}", detector.log());
        let words = format!("the cleanup.policy of {state} is {policy}, not compact");
        assert!(detector.log().contains(&words), "{}", detector.log());
    }
    set_policy(&case, &state, "compact");
    case.detector("a", &[]).wait_ready();
}

/// Returns the CRC-32C of some bytes, as in a batch of Kafka.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
    !bytes.iter().fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}

/// Replaces the last digit of the last record of partition 0 in the broker's file, with a correct checksum.
fn replace_last_record(case: &Case) {
    let path = segment(case, &case.raw(), 0);
    let (all, bytes) = (batches(&path), std::fs::read(&path).unwrap());
    let begin = all.len().checked_sub(2).map_or(0, |before| all[before].2) as usize;
    let mut batch = bytes[begin..all.last().unwrap().2 as usize].to_vec();
    let digit = batch.iter().rposition(|byte| *byte == b'7').unwrap();
    batch[digit] = b'8';
    let sum = crc32c(&batch[21..]).to_be_bytes();
    batch[17..21].copy_from_slice(&sum);
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(&batch, begin as u64).unwrap();
}

#[test]
fn another_record_in_place_of_the_one_that_was_judged_last_stops_the_detector_until_it_is_accepted() {
    let case = case("replaced");
    let values = || (0..40).map(|_| crate::common::Sent { partition: Some(0), ..event("d", 7.0) });
    case.produce(values());
    let detector = case.detector("a", &[OFTEN]);
    wait_done(&case, 40);
    kill(detector);
    // The same log is no reason to stop.
    let detector = case.detector("a", &[OFTEN]);
    detector.wait_ready();
    kill(detector);
    replace_last_record(&case);
    refused(&case, "has another record at offset 39 than the one that was judged");
    change(&case, &["accept"]);
    case.produce(values());
    let _detector = case.detector("a", &[]);
    wait_done(&case, 80);
    wait("no stop", || case.run(&["offsets"]).status.success());
}
