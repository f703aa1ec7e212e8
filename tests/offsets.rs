//! The command `anomaly offsets`, and offsets that another program has committed: the detector stops, and never judges
//! twice or skips on its own.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::AdminOptions;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::common::{Case, event, wait};
use crate::pipeline::{events, verify, wait_done};
use crate::state::{OFTEN, admin, case, floors, kill, recreate, refused, state, swept};

/// Offset and metadata of each partition.
type Commits = BTreeMap<i32, (i64, String)>;

/// Returns a client in the detector's group that never joins it.
fn outsider(case: &Case) -> BaseConsumer {
    let group = format!("{}-detector", case.name);
    case.client().set("group.id", group).set("enable.auto.commit", "false").create().unwrap()
}

/// Commits as a tool does. Kafka refuses it while the group has members, such as those of a detector that was killed.
pub fn commit_as_another(case: &Case, commits: &Commits) {
    let consumer = outsider(case);
    let mut list = TopicPartitionList::new();
    for (partition, (offset, metadata)) in commits {
        list.add_partition_offset(&case.raw(), *partition, Offset::Offset(*offset)).unwrap();
        list.find_partition(&case.raw(), *partition).unwrap().set_metadata(metadata);
    }
    wait("the group to be empty", || consumer.commit(&list, CommitMode::Sync).is_ok());
}

/// Returns the committed offsets with their metadata.
pub fn commits(case: &Case) -> Commits {
    let mut list = TopicPartitionList::new();
    (0..4).for_each(|partition| {
        list.add_partition(&case.raw(), partition);
    });
    let list = outsider(case).committed_offsets(list, Duration::from_secs(20)).unwrap();
    let known = list.elements().into_iter().filter_map(|element| {
        Some((element.partition(), (element.offset().to_raw().filter(|at| *at >= 0)?, element.metadata().to_owned())))
    });
    known.collect()
}

/// Returns the sum over the partitions of the counts with these names.
fn counted(case: &Case, names: &[&str]) -> i64 {
    let of = |metadata: &str, name: &str| {
        let words = metadata.split(' ').filter_map(|word| word.split_once('='));
        words.filter(|(word, _)| *word == name).map(|(_, count)| count.parse::<i64>().unwrap()).sum::<i64>()
    };
    commits(case).values().map(|(_, metadata)| names.iter().map(|name| of(metadata, name)).sum::<i64>()).sum()
}

const OUTCOMES: [&str; 8] =
    ["learning", "normal", "anomalous", "rejected", "dropped", "ignored", "excluded", "skipped"];

/// Runs a command of `anomaly offsets` until the group is empty, and returns its output.
pub fn change(case: &Case, arguments: &[&str]) -> String {
    let arguments = [&["offsets"], arguments].concat();
    let mut text = String::new();
    wait("the group to be empty", || {
        let output = case.run(&arguments);
        text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() || errors.contains("Stop every detector of group"), "{errors}");
        output.status.success()
    });
    text
}

/// Returns the end of each partition of the input.
fn ends(case: &Case) -> BTreeMap<i32, i64> {
    let mut ends = BTreeMap::new();
    case.read(&case.raw()).iter().for_each(|got| *ends.entry(got.partition).or_default() += 1);
    ends
}

#[test]
fn offsets_that_a_tool_sets_forward_stop_the_detector_and_accepted_ones_count_what_lies_between_as_skipped() {
    let case = swept("forward");
    let before = ends(&case);
    case.produce(events(31, 40, 1_000, 0));
    let tool = ends(&case).into_iter().map(|(partition, end)| (partition, (end, String::new()))).collect();
    commit_as_another(&case, &tool);
    let listed = case.ok(&["offsets"]);
    assert_eq!(listed.matches("another program").count(), 4, "{listed}");
    refused(&case, "was committed by another program");
    assert_eq!(commits(&case), tool, "a detector that stops commits nothing");
    let accepted = change(&case, &["accept"]);
    assert_eq!(accepted.matches("records count as skipped").count(), 4, "{accepted}");
    let listed = case.ok(&["offsets"]);
    assert_eq!(listed.matches("a detector").count(), 4, "{listed}");
    assert!(case.ok(&["offsets", "accept"]).contains("nothing to accept"));
    case.produce(events(32, 40, 1_000, 0));
    let detector = case.detector("a", &[OFTEN]);
    wait_done(&case, 10_000);
    detector.wait_ready();
    assert_eq!((counted(&case, &["skipped"]), counted(&case, &OUTCOMES)), (1_000, 10_000));
    let between = |partition: i32, offset: i64| before[&partition] <= offset && offset < tool[&partition].0;
    for got in case.read(&case.anomalies()) {
        let source = &got.json()["source"];
        let place = (source["partition"].as_i64().unwrap() as i32, source["offset"].as_i64().unwrap());
        assert!(!between(place.0, place.1), "{place:?} was skipped, and has a verdict");
    }
    // Kafka itself refuses it while the detector runs.
    let output = case.run(&["offsets", "set", "all", "latest"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{errors}");
    assert!(errors.contains("nothing was changed. Stop every detector of group"), "{errors}");
    case.produce(events(33, 40, 1_000, 0));
    wait_done(&case, 11_000);
}

#[test]
fn offsets_that_a_tool_sets_back_with_their_metadata_stop_the_detector_and_can_be_set_right_again() {
    let case = swept("back");
    let right = commits(&case);
    // After the sweep, so that no snapshot is newer than the offset.
    case.produce(events(31, 40, 1_000, 100));
    let rarely = ("DETECTOR__SNAPSHOT_INTERVAL", "1h");
    let detector = case.detector("a", &[rarely]);
    wait_done(&case, 9_000);
    kill(detector);
    let newest = commits(&case);
    let tool = newest.iter().map(|(partition, (_, text))| (*partition, (right[partition].0, text.clone()))).collect();
    commit_as_another(&case, &tool);
    let listed = case.ok(&["offsets"]);
    assert_eq!(listed.matches("another program, with the metadata of offset").count(), 4, "{listed}");
    refused(&case, "with its metadata by another program");
    for (partition, (offset, _)) in &newest {
        change(&case, &["set", &partition.to_string(), &offset.to_string()]);
    }
    assert_eq!(counted(&case, &["skipped"]), 0, "the copied metadata have the last counts");
    case.produce(events(32, 40, 1_000, 100));
    let detector = case.detector("a", &[OFTEN]);
    wait_done(&case, 10_000);
    verify(&case);
    assert_eq!(counted(&case, &OUTCOMES), 10_000);
    wait("a checkpoint", || floors(&case).iter().sum::<i64>() == 10_000);
    kill(detector);
    // A tool has stored offsets with their metadata, and restores them.
    commit_as_another(&case, &right);
    refused(&case, "the offsets of the group were moved back");
}

#[test]
fn offsets_set_before_stored_windows_judge_the_records_again_with_windows_from_the_input() {
    let case = swept("again");
    let before = case.read(&case.anomalies()).len();
    let set = change(&case, &["set", "all", "earliest"]);
    assert_eq!(set.matches("judged again").count(), 4, "{set}");
    assert_eq!(set.matches("Windows are read back from the input").count(), 4, "{set}");
    let detector = case.detector("a", &[OFTEN]);
    wait("all events to be judged again", || case.committed() == 8_000);
    detector.wait_ready();
    wait("the second verdicts", || case.read(&case.anomalies()).len() >= 2 * before);
    let anomalies = case.read(&case.anomalies());
    let values = anomalies.iter().map(|got| got.value.clone()).collect::<std::collections::BTreeSet<_>>();
    assert_eq!((anomalies.len(), values.len()), (2 * before, before), "the verdicts are the same, bit for bit");
    assert_eq!(counted(&case, &OUTCOMES), 8_000);
    assert_eq!(case.count("anomalies"), before as i64, "the table has each of them once");
    kill(detector);
    let wrong = case.run(&["offsets", "set", "0", "1000000"]);
    assert_eq!(wrong.status.code(), Some(65));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("has the offsets 0 to"), "{wrong:?}");
    assert_eq!(case.run(&["offsets", "set", "4", "latest"]).status.code(), Some(65));
    assert_eq!(case.run(&["offsets", "set", "x", "latest"]).status.code(), Some(64));
}

#[test]
fn offsets_that_were_deleted_stop_the_detector_and_accepting_continues_where_the_windows_are() {
    let case = swept("deleted_offsets");
    let (runtime, admin) = admin(&case);
    let group = format!("{}-detector", case.name);
    wait("the group to be deleted", || {
        let results = runtime.block_on(admin.delete_groups(&[&group], &AdminOptions::new())).unwrap();
        results.iter().all(Result::is_ok)
    });
    refused(&case, "has no committed offset");
    change(&case, &["accept"]);
    case.produce(events(31, 40, 1_000, 100));
    let _detector = case.detector("a", &[]);
    wait_done(&case, 9_000);
    verify(&case);
    assert_eq!((counted(&case, &["skipped"]), counted(&case, &OUTCOMES)), (0, 9_000));
}

#[test]
fn a_group_that_another_program_used_before_the_first_detector_begins_where_the_settings_say() {
    let case = case("migrated");
    case.produce(events(34, 40, 2_000, 100));
    commit_as_another(&case, &(0..4).map(|partition| (partition, (7, String::new()))).collect());
    let detector = case.detector("a", &[]);
    wait_done(&case, 2_000);
    detector.wait_ready();
    verify(&case);
    assert_eq!(counted(&case, &OUTCOMES), 2_000);
    kill(detector);
    // Now the partitions are those of a detector.
    commit_as_another(&case, &(0..4).map(|partition| (partition, (7, String::new()))).collect());
    refused(&case, "was committed by another program");
}

#[test]
fn without_stored_windows_every_offset_of_another_program_stops_the_detector() {
    let mut case = case("stateless");
    case.set("DETECTOR__STATE", "history");
    case.produce(events(35, 40, 2_000, 0));
    commit_as_another(&case, &(0..4).map(|partition| (partition, (7, String::new()))).collect());
    refused(&case, "was committed by another program");
    change(&case, &["set", "all", "earliest"]);
    let _detector = case.detector("a", &[]);
    wait_done(&case, 2_000);
    verify(&case);
}

#[test]
fn one_command_is_the_remedy_for_a_recreated_topic() {
    let case = swept("remedy");
    recreate(&case, &case.raw());
    refused(&case, "run `anomaly offsets set all earliest`");
    change(&case, &["set", "all", "earliest"]);
    case.produce(events(34, 40, 2_000, 0));
    let detector = case.detector("a", &[("LOG__LEVEL", "info")]);
    wait_done(&case, 2_000);
    detector.wait_ready();
    assert_eq!(counted(&case, &OUTCOMES), 2_000);
    assert!(!detector.log().contains("foreign_commit"), "{}", detector.log());
    assert!(!case.read(&state(&case)).is_empty());
}

#[test]
fn a_committed_offset_has_the_leader_epoch_of_its_last_record_also_after_a_takeover() {
    let case = case("epochs");
    case.produce(events(36, 40, 4_000, 0));
    let epochs = || {
        let mut list = TopicPartitionList::new();
        (0..4).for_each(|partition| {
            list.add_partition(&case.raw(), partition);
        });
        let list = outsider(&case).committed_offsets(list, Duration::from_secs(20)).unwrap();
        // SAFETY: the list is alive, and owns this number of elements.
        let elements = unsafe { std::slice::from_raw_parts((*list.ptr()).elems, list.count()) };
        // SAFETY: so are its elements.
        elements
            .iter()
            .map(|element| unsafe { rdkafka::bindings::rd_kafka_topic_partition_get_leader_epoch(element) })
            .collect::<Vec<_>>()
    };
    let detector = case.detector("a", &[]);
    wait_done(&case, 4_000);
    assert_eq!(epochs(), [0; 4]);
    kill(detector);
    // One partition gets further records; the offsets of the others are committed again.
    case.produce((0..10).map(|_| event("device-0001", 1.0)));
    let _detector = case.detector("a", &[]);
    wait_done(&case, 4_010);
    assert_eq!(epochs(), [0; 4]);
}
