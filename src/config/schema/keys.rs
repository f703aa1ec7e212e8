//! Every setting, in the order in which the files show them. A new one is a new entry here or in `dashboard`, and a field in
//! `resolved`.

mod dashboard;

use super::{SettingKey, ShippedFile, ValueType};

const fn key(
    path: &'static str,
    kind: ValueType,
    default: &'static str,
    file: ShippedFile,
    doc: &'static str,
) -> SettingKey {
    SettingKey { path, kind, default, file, doc }
}

/// All settings, in the order in which the files show them.
pub const KEYS: &[SettingKey] = &joined::<{ PIPELINE.len() + dashboard::KEYS.len() }>(PIPELINE, dashboard::KEYS);

/// One list after the other.
const fn joined<const N: usize>(first: &[SettingKey], second: &[SettingKey]) -> [SettingKey; N] {
    let mut all = [first[0]; N];
    let mut at = 0;
    while at < N {
        all[at] = if at < first.len() { first[at] } else { second[at - first.len()] };
        at += 1;
    }
    all
}

/// What all roles share, and the settings of all but the dashboard.
const PIPELINE: &[SettingKey] = {
    use ShippedFile::*;
    use ValueType::*;
    const DAY: u64 = 86_400_000;
    &[
        key(
            "kafka.bootstrap_servers",
            Text,
            "\"localhost:9092\"",
            Common,
            "Brokers to ask first, host:port, separated by commas.",
        ),
        key("topics.raw_events", Text, "\"raw_events\"", Common, "Events in."),
        key("topics.anomalies", Text, "\"anomalies\"", Common, "Anomalies out."),
        key("topics.dead_letter", Text, "\"raw_events_dlq\"", Common, "Records that are not events, byte for byte."),
        key("topics.state", Text, "\"anomaly_state\"", Common, "Windows of the detector (compacted)."),
        key(
            "topics.partitions",
            Integer(1, 10_000),
            "4",
            Common,
            "Partitions of a topic that `anomaly topics` creates.",
        ),
        key(
            "topics.replication",
            Integer(0, 100),
            "0",
            Common,
            "Its replication factor; 0 takes the broker's default.",
        ),
        key(
            "fields.device",
            Text,
            "\"device_id\"",
            Common,
            "The device, 1 to 256 bytes: a path such as tags.host, $key, $header.NAME, or several: {tags.host}/{tags.cpu}.",
        ),
        key("fields.metric", Text, "\"metric_name\"", Common, "The metric, which may be absent: as device."),
        key("fields.value", Text, "\"metric_value\"", Common, "The value, a number: one path."),
        key(
            "fields.time",
            Text,
            "\"timestamp\"",
            Common,
            "The time: a path, $header.NAME, or $timestamp for the record's own, which also counts where the path is absent.",
        ),
        key(
            "fields.lenient",
            Bool,
            "true",
            Common,
            "Accept what has one meaning only: \"7\" as a number, 7 as a name, +0100.",
        ),
        key(
            "fields.time_unit",
            OneOf(&["auto", "s", "ms", "us", "ns"]),
            "\"auto\"",
            Common,
            "Unit of epoch numbers; auto: by their size (below 1e11 seconds, below 1e14 milliseconds, below 1e17 us, else ns).",
        ),
        key("fields.time_zone", Text, "\"UTC\"", Common, "Zone of times without one: UTC, +01:00 or Europe/Berlin."),
        key(
            "fields.ignore",
            List,
            "[]",
            Common,
            "Records to pass over: PATH (is there), !PATH (is not), PATH=TEXT, PATH!=TEXT.",
        ),
        key(
            "postgres.host",
            Text,
            "\"localhost\"",
            Common,
            "Host, address or socket directory; or several, with commas.",
        ),
        key("postgres.port", Integer(1, 65_535), "5432", Common, "TCP port, also part of the socket's name."),
        key("postgres.dbname", Text, "\"anomalies_db\"", Common, "Database."),
        key("postgres.user", Text, "\"anomaly_user\"", Common, "Role."),
        key("postgres.password", Secret, "\"\"", Common, "Its password; better: password_file or a credential."),
        key("postgres.password_file", Path, "\"\"", Common, "File that holds the password and nothing else."),
        key("postgres.schema", Text, "\"\"", Common, "Schema of the tables; empty: the role's own search path."),
        key(
            "postgres.sslmode",
            OneOf(&["disable", "prefer", "require", "verify-ca", "verify-full"]),
            "\"prefer\"",
            Common,
            "As libpq's; verify-full also checks the host's name.",
        ),
        key("postgres.sslrootcert", Path, "\"\"", Common, "PEM file of trusted authorities; empty: the system's."),
        key("postgres.sslcert", Path, "\"\"", Common, "PEM file of a certificate to log in with; empty: none."),
        key("postgres.sslkey", Path, "\"\"", Common, "PEM file of its key, without passphrase."),
        key(
            "postgres.connect_timeout",
            Duration(100, 600_000),
            "\"4s\"",
            Common,
            "For connecting, and for noticing a dead peer.",
        ),
        key("postgres.statement_timeout", Duration(100, 3_600_000), "\"30s\"", Common, "For one statement."),
        key(
            "postgres.retention",
            Duration(0, 36_500 * DAY),
            "\"365d\"",
            Common,
            "How long anomalies are kept, by their events' times, and coverage; 0s: for ever.",
        ),
        key(
            "postgres.retention_delay",
            Duration(0, 365 * DAY),
            "\"24h\"",
            Common,
            "Time between the warning that unusually much will be deleted (a new retention, a clock set) and the deletion.",
        ),
        key("migrate.user", Text, "\"\"", Common, "Role that owns the tables; empty: postgres.user."),
        key("migrate.password", Secret, "\"\"", Common, "Its password."),
        key("migrate.password_file", Path, "\"\"", Common, "File that holds it."),
        key("migrate.reader", Text, "\"\"", Common, "Role that may only read, such as the dashboard's; empty: none."),
        key("migrate.marker", Text, "\"\"", Common, "Role that may only add marks of anomalies; empty: none."),
        key(
            "service.ready_timeout",
            Duration(0, DAY),
            "\"60s\"",
            Common,
            "After this long a role reports ready although it is degraded, so that no boot hangs.",
        ),
        key(
            "service.drain_timeout",
            Duration(100, 600_000),
            "\"8s\"",
            Common,
            "Time to finish what is under way after SIGTERM.",
        ),
        key(
            "metrics.listen",
            Listen,
            "\"\"",
            Common,
            "Address; empty: 127.0.0.1, or [::1] without IPv4, with port 9464 (producer), 9465 (detector) or 9466 (dashboard).",
        ),
        key(
            "log.target",
            OneOf(&["auto", "journal", "syslog", "stderr"]),
            "\"auto\"",
            Common,
            "auto: the journal when systemd started us, else standard error.",
        ),
        key(
            "log.level",
            OneOf(&["error", "warn", "info", "debug", "trace"]),
            "\"info\"",
            Common,
            "The least severe level that is logged; applies on reload.",
        ),
        key(
            "log.anomalies_per_second",
            Integer(0, 1_000_000),
            "20",
            Common,
            "Anomalies logged each second at the most; the rest is counted.",
        ),
        key(
            "producer.source",
            OneOf(&["generate", "replay", "host"]),
            "\"generate\"",
            Producer,
            "Synthetic devices, a file, or this machine's own metrics.",
        ),
        key("producer.devices", Integer(1, 100_000_000), "100", Producer, "generate: number of devices."),
        key(
            "producer.rate",
            Float(0.0, 1e9),
            "100.0",
            Producer,
            "generate: events a second over all devices; 0: as fast as the broker takes them.",
        ),
        key("producer.seed", Integer(0, i64::MAX), "1", Producer, "generate: the same seed gives the same events."),
        key("producer.start", Time, "\"\"", Producer, "generate: virtual time of the first event; empty: now."),
        key(
            "producer.step",
            Step,
            "\"\"",
            Producer,
            "generate: virtual time from one event to the next, such as \"10ms\"; empty: 1/rate (1 ms at rate 0).",
        ),
        key(
            "producer.anomaly_rate",
            Float(0.0, 0.1),
            "0.002",
            Producer,
            "generate: share of events that belong to an injected anomaly; each carries the header anomaly-label.",
        ),
        key("producer.count", Integer(0, i64::MAX), "0", Producer, "Stop after this many events; 0: never."),
        key(
            "producer.file",
            Path,
            "\"-\"",
            Producer,
            "replay: JSON Lines, a JSON array, or CSV with a header line, also with gzip; - is standard input.",
        ),
        key(
            "producer.format",
            OneOf(&["auto", "jsonl", "json", "csv"]),
            "\"auto\"",
            Producer,
            "replay: format of the file; auto: by the extension, then by the first characters.",
        ),
        key("producer.decimal_comma", Bool, "false", Producer, "replay: in a table, 21,5 is one number."),
        key(
            "producer.speed",
            Float(0.0, 1e9),
            "1.0",
            Producer,
            "replay: 1 keeps the original pace, 10 is ten times as fast, 0 as fast as the broker takes them.",
        ),
        key(
            "producer.max_pause",
            Duration(0, 3_650 * DAY),
            "\"1h\"",
            Producer,
            "replay: longest pause between two events; a longer gap between the file's times is passed over.",
        ),
        key("producer.interval", Duration(100, DAY), "\"1s\"", Producer, "host: time between two readings."),
        key(
            "detector.window",
            Integer(2, 100_000),
            "100",
            Detector,
            "Values of a series that a new one is compared with.",
        ),
        key(
            "detector.threshold",
            Float(0.01, 1e6),
            "3.0",
            Detector,
            "Abnormal beyond this many standard deviations from the mean.",
        ),
        key(
            "detector.min_samples",
            Integer(2, 100_000),
            "30",
            Detector,
            "Values that a series must have before it is judged.",
        ),
        key(
            "detector.min_std_dev",
            Float(0.0, f64::MAX),
            "0.0",
            Detector,
            "Least deviation that judges, in the value's unit.",
        ),
        key(
            "detector.min_relative_std_dev",
            Float(0.0, 1e6),
            "0.0",
            Detector,
            "Least deviation that judges, as a share of |mean|.",
        ),
        key("detector.method", OneOf(&["sigma"]), "\"sigma\"", Detector, "The method that judges values."),
        key("detector.context", Integer(0, 10_000), "100", Detector, "Values before it that an anomaly carries."),
        key(
            "detector.on_reject",
            OneOf(&["dead_letter", "drop", "fail"]),
            "\"dead_letter\"",
            Detector,
            "What to do with a record that is not an event; fail stops with exit code 65.",
        ),
        key("detector.workers", Integer(0, 1024), "0", Detector, "Consumers in this process; 0: one for each core."),
        key(
            "detector.delivery",
            OneOf(&["exactly_once", "at_least_once"]),
            "\"exactly_once\"",
            Detector,
            "at_least_once does without transactions: after a crash anomalies may come twice, with the same identity.",
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
            "Name of this instance, unique in the group and the same after a restart; empty: the machine id.",
        ),
        key(
            "detector.start",
            OneOf(&["earliest", "latest"]),
            "\"latest\"",
            Detector,
            "Where a group that has no offsets yet begins.",
        ),
        key(
            "detector.state",
            OneOf(&["topic", "history"]),
            "\"topic\"",
            Detector,
            "How windows survive: in topics.state, exactly, or by reading the input back (the only way of at_least_once).",
        ),
        key(
            "detector.snapshot_interval",
            Duration(100, DAY),
            "\"60s\"",
            Detector,
            "topic: least time between two sweeps that write the windows which changed.",
        ),
        key(
            "detector.max_series",
            Integer(1, 4_000_000_000),
            "1000000",
            Detector,
            "Series of one partition; beyond them the one that was silent for longest is evicted.",
        ),
        key(
            "detector.idle_after",
            Duration(0, 3_650 * DAY),
            "\"30d\"",
            Detector,
            "A series without a value for so long, by the times of most devices' records, is evicted; 0s: never. Needs three devices in the partition.",
        ),
        key(
            "detector.history",
            Integer(0, i64::MAX),
            "1000000",
            Detector,
            "Records read back for each partition at the most, where topics.state has no windows yet or is not used.",
        ),
        key(
            "detector.commit_interval",
            Duration(1, 8_000),
            "\"100ms\"",
            Detector,
            "Longest time that a transaction stays open.",
        ),
        key("detector.commit_events", Integer(1, 10_000_000), "100000", Detector, "Most events in one transaction."),
        key(
            "detector.session_timeout",
            Duration(1_000, 1_800_000),
            "\"10s\"",
            Detector,
            "After this long without a sign of life the group gives a worker's partitions to others.",
        ),
        key(
            "detector.stop_leaves",
            Bool,
            "false",
            Detector,
            "Leave the group on stop, so that others take over at once; false suits a restart.",
        ),
        key("sink.enabled", Bool, "true", Detector, "Write anomalies into PostgreSQL from this process."),
        key(
            "sink.group",
            Text,
            "\"anomaly-sink\"",
            Detector,
            "Consumer group, and name under which the database keeps the offsets.",
        ),
        key("sink.batch", Integer(1, 100_000), "5000", Detector, "Most rows in one database transaction."),
    ]
};
