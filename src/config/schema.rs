//! Every setting: its path, type, range, default and one sentence. The only list of them: checking, `anomaly check`,
//! the shipped files and the manual page all read it.

/// Which of the shipped files shows a key. Any file may set any key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum File {
    /// `common.toml`
    Common,
    /// `producer.toml`
    Producer,
    /// `detector.toml`
    Detector,
    /// `dashboard.toml`
    Dashboard,
}

impl File {
    /// All, in the order of the pipeline.
    pub const ALL: [File; 4] = [File::Common, File::Producer, File::Detector, File::Dashboard];

    /// File name without the directory.
    pub fn name(self) -> &'static str {
        match self {
            File::Common => "common.toml",
            File::Producer => "producer.toml",
            File::Detector => "detector.toml",
            File::Dashboard => "dashboard.toml",
        }
    }
}

/// Type and range of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Any string.
    Text,
    /// A string that is never printed.
    Secret,
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// A whole number, both ends included.
    Integer(i64, i64),
    /// A finite number, both ends included.
    Float(f64, f64),
    /// `true` or `false`.
    Bool,
    /// A string such as "250ms", "10s", "1h 30m", between these many milliseconds.
    Duration(u64, u64),
    /// A string "host:port" with an IP address, or "off".
    Listen,
    /// An RFC 3339 time, or "".
    Time,
    /// A duration of more than nothing, or "".
    Step,
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Section and name, joined by dots.
    pub path: &'static str,
    /// Type and range.
    pub kind: Kind,
    /// As TOML.
    pub default: &'static str,
    /// Where the shipped files show it.
    pub file: File,
    /// One sentence.
    pub doc: &'static str,
}

const fn key(path: &'static str, kind: Kind, default: &'static str, file: File, doc: &'static str) -> Key {
    Key { path, kind, default, file, doc }
}

/// The table below which any librdkafka property may stand.
pub const PROPERTIES: &str = "kafka.properties";

/// One sentence about each section.
pub const SECTIONS: &[(&str, &str)] = &[
    (
        "kafka",
        "The cluster. [kafka.properties] passes any librdkafka setting on, such as security.protocol or sasl.username.",
    ),
    ("topics", "Names of the topics, and how `anomaly topics` creates those that are missing."),
    ("fields", "Where the four fields are in your JSON, as dotted paths."),
    ("postgres", "The database that keeps the anomalies."),
    ("migrate", "The role that `anomaly migrate` uses, when it is another one."),
    ("service", "How a role starts and stops."),
    ("metrics", "/healthz, /readyz and /metrics of a role."),
    ("log", "What is logged, and where."),
    ("producer", "What is published to topics.raw_events."),
    ("detector", "What is abnormal, and how events are taken."),
    ("sink", "Anomalies into PostgreSQL."),
    ("dashboard", "The pages."),
];

/// All settings, in the order in which the files show them.
pub const KEYS: &[Key] = {
    use File::*;
    use Kind::*;
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
        key("fields.device", Text, "\"device_id\"", Common, "The device: a string of 1 to 256 bytes."),
        key("fields.metric", Text, "\"metric_name\"", Common, "The metric: a string, may be absent."),
        key("fields.value", Text, "\"metric_value\"", Common, "The value: a number."),
        key(
            "fields.time",
            Text,
            "\"timestamp\"",
            Common,
            "The time: RFC 3339 or epoch; absent means the record's own.",
        ),
        key("postgres.host", Text, "\"localhost\"", Common, "Host name, address, or directory of the Unix socket."),
        key("postgres.port", Integer(1, 65_535), "5432", Common, "TCP port, also part of the socket's name."),
        key("postgres.dbname", Text, "\"anomalies_db\"", Common, "Database."),
        key("postgres.user", Text, "\"anomaly_user\"", Common, "Role."),
        key("postgres.password", Secret, "\"\"", Common, "Its password; better: password_file or a credential."),
        key("postgres.password_file", Text, "\"\"", Common, "File that holds the password and nothing else."),
        key("postgres.schema", Text, "\"\"", Common, "Schema of the tables; empty: the role's own search path."),
        key(
            "postgres.sslmode",
            OneOf(&["disable", "prefer", "require", "verify-ca", "verify-full"]),
            "\"prefer\"",
            Common,
            "As libpq's; verify-full also checks the host's name.",
        ),
        key("postgres.sslrootcert", Text, "\"\"", Common, "PEM file of trusted authorities; empty: the system's."),
        key(
            "postgres.connect_timeout",
            Duration(100, 600_000),
            "\"4s\"",
            Common,
            "For connecting, and for noticing a dead peer.",
        ),
        key("postgres.statement_timeout", Duration(100, 3_600_000), "\"30s\"", Common, "For one statement."),
        key("migrate.user", Text, "\"\"", Common, "Role that owns the tables; empty: postgres.user."),
        key("migrate.password", Secret, "\"\"", Common, "Its password."),
        key("migrate.password_file", Text, "\"\"", Common, "File that holds it."),
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
            "Address; empty: 127.0.0.1 with port 9464 (producer), 9465 (detector) or 9466 (dashboard).",
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
            Text,
            "\"-\"",
            Producer,
            "replay: JSON Lines, or CSV with a header line (by extension .csv); - is standard input.",
        ),
        key("producer.format", OneOf(&["auto", "jsonl", "csv"]), "\"auto\"", Producer, "replay: format of the file."),
        key(
            "producer.speed",
            Float(0.0, 1e9),
            "1.0",
            Producer,
            "replay: 1 keeps the original pace, 10 is ten times as fast, 0 as fast as the broker takes them.",
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
        key("detector.method", OneOf(&["sigma"]), "\"sigma\"", Detector, "The rule."),
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
            OneOf(&["history"]),
            "\"history\"",
            Detector,
            "How windows are found again after a restart: by reading the input back.",
        ),
        key(
            "detector.history",
            Integer(0, i64::MAX),
            "1000000",
            Detector,
            "history: records read back for each partition at the most.",
        ),
        key(
            "detector.commit_interval",
            Duration(1, 8_000),
            "\"100ms\"",
            Detector,
            "Longest time that a transaction stays open.",
        ),
        key("detector.commit_events", Integer(1, 10_000_000), "20000", Detector, "Most events in one transaction."),
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
        key("sink.batch", Integer(1, 100_000), "2000", Detector, "Most rows in one database transaction."),
        key("dashboard.listen", Listen, "\"127.0.0.1:8501\"", Dashboard, "Address of the pages."),
        key(
            "dashboard.refresh",
            Duration(1_000, 3_600_000),
            "\"5s\"",
            Dashboard,
            "Time after which an open page refreshes itself.",
        ),
    ]
};

/// The setting of that path.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}
