//! The settings of the detector and of its sink.

use super::super::{SettingKey, ShippedFile, ValueType};
use super::key;

/// In the order in which the file shows them.
pub const KEYS: &[SettingKey] = {
    use ShippedFile::*;
    use ValueType::*;
    const DAY: u64 = 86_400_000;
    &[
        key(
            "detector.window",
            Integer(2, 100_000),
            "100",
            Detector,
            "Number of preceding values that a value is compared with.",
        ),
        key(
            "detector.threshold",
            Float(0.01, 1e6),
            "3.0",
            Detector,
            "Number of standard deviations from the mean beyond which a value is abnormal.",
        ),
        key(
            "detector.min_samples",
            Integer(2, 100_000),
            "30",
            Detector,
            "Number of preceding values that a series needs before its values are judged.",
        ),
        key(
            "detector.min_std_dev",
            Float(0.0, f64::MAX),
            "0.0",
            Detector,
            "Lower limit of the deviation used for judging, in the value's unit.",
        ),
        key(
            "detector.min_relative_std_dev",
            Float(0.0, 1e6),
            "0.0",
            Detector,
            "Lower limit of the deviation used for judging, as a share of |mean|.",
        ),
        key("detector.method", OneOf(&["sigma"]), "\"sigma\"", Detector, "Method that judges values."),
        key(
            "detector.context",
            Integer(0, 10_000),
            "100",
            Detector,
            "Number of preceding values stored with an anomaly.",
        ),
        key(
            "detector.on_reject",
            OneOf(&["dead_letter", "drop", "fail"]),
            "\"dead_letter\"",
            Detector,
            "What happens to a rejected record. fail stops the detector with exit code 65.",
        ),
        key(
            "detector.workers",
            Integer(0, 1024),
            "0",
            Detector,
            "Number of consumers in this process; 0: one per core.",
        ),
        key(
            "detector.delivery",
            OneOf(&["exactly_once", "at_least_once"]),
            "\"exactly_once\"",
            Detector,
            "at_least_once uses no transactions: after a crash anomalies may occur twice, with the same identity.",
        ),
        key(
            "detector.group",
            Text,
            "\"anomaly-detector\"",
            Detector,
            "Consumer group; its members share the partitions.",
        ),
        key(
            "detector.instance",
            Text,
            "\"\"",
            Detector,
            "Name of this instance, unique in the group and unchanged by a restart; empty: the machine id.",
        ),
        key(
            "detector.start",
            OneOf(&["earliest", "latest"]),
            "\"latest\"",
            Detector,
            "Where a group without offsets and state begins.",
        ),
        key(
            "detector.state",
            OneOf(&["topic", "history"]),
            "\"topic\"",
            Detector,
            "topic: restore windows exactly from topics.state. history: read the input again; at_least_once requires it.",
        ),
        key(
            "detector.snapshot_interval",
            Duration(100, DAY),
            "\"60s\"",
            Detector,
            "topic: minimum time between two sweeps, which write the windows that have changed.",
        ),
        key(
            "detector.max_series",
            Integer(1, 4_000_000_000),
            "1000000",
            Detector,
            "Maximum number of series in one partition. Beyond it the series that was silent for longest is evicted.",
        ),
        key(
            "detector.idle_after",
            Duration(0, 3_650 * DAY),
            "\"30d\"",
            Detector,
            "Time without a value, by the partition's clock, after which a series is evicted; 0s: never. Needs three devices in the partition.",
        ),
        key(
            "detector.history",
            Integer(0, i64::MAX),
            "1000000",
            Detector,
            "Maximum number of records read back per partition, if topics.state has no windows or is not used.",
        ),
        key(
            "detector.commit_interval",
            Duration(1, 8_000),
            "\"100ms\"",
            Detector,
            "Maximum time that a transaction stays open.",
        ),
        key(
            "detector.commit_events",
            Integer(1, 10_000_000),
            "100000",
            Detector,
            "Maximum number of events in one transaction.",
        ),
        key(
            "detector.session_timeout",
            Duration(1_000, 1_800_000),
            "\"10s\"",
            Detector,
            "Time without a heartbeat after which the group assigns a worker's partitions to others.",
        ),
        key(
            "detector.stop_leaves",
            Bool,
            "false",
            Detector,
            "Leave the group on stop, so that others take over at once. false suits a restart.",
        ),
        key("sink.enabled", Bool, "true", Detector, "Write anomalies into PostgreSQL from this process."),
        key(
            "sink.group",
            Text,
            "\"anomaly-sink\"",
            Detector,
            "Consumer group, and name under which the database keeps the offsets.",
        ),
        key("sink.batch", Integer(1, 100_000), "5000", Detector, "Maximum number of rows in one database transaction."),
    ]
};
