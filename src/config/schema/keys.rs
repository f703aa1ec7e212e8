//! Lists every setting, in the order in which the files show them. To add a setting, add an entry here, in `detector` or in
//! `dashboard`, and a field in `resolved`.

mod dashboard;
mod detector;

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
pub const KEYS: &[SettingKey] = &joined::<{ ROLES.len() + dashboard::KEYS.len() }>(&ROLES, dashboard::KEYS);

/// The settings of all but the dashboard.
const ROLES: [SettingKey; SHARED.len() + detector::KEYS.len()] = joined(SHARED, detector::KEYS);

/// Concatenates two lists.
const fn joined<const N: usize>(first: &[SettingKey], second: &[SettingKey]) -> [SettingKey; N] {
    let mut all = [first[0]; N];
    let mut at = 0;
    while at < N {
        all[at] = if at < first.len() { first[at] } else { second[at - first.len()] };
        at += 1;
    }
    all
}

/// The settings that all roles share, and those of the producer.
const SHARED: &[SettingKey] = {
    use ShippedFile::*;
    use ValueType::*;
    const DAY: u64 = 86_400_000;
    &[
        key(
            "kafka.bootstrap_servers",
            Text,
            "\"localhost:9092\"",
            Common,
            "Brokers to connect to first, as host:port, separated by commas.",
        ),
        key("topics.raw_events", Text, "\"raw_events\"", Common, "Input topic: the events."),
        key("topics.anomalies", Text, "\"anomalies\"", Common, "Output topic: the anomalies."),
        key(
            "topics.dead_letter",
            Text,
            "\"raw_events_dlq\"",
            Common,
            "Dead-letter topic: rejected records with their exact key and value.",
        ),
        key("topics.state", Text, "\"anomaly_state\"", Common, "Compacted topic that keeps the state of the series."),
        key(
            "topics.partitions",
            Integer(1, 10_000),
            "4",
            Common,
            "Number of partitions of a topic that `anomaly topics` creates.",
        ),
        key(
            "topics.replication",
            Integer(0, 100),
            "0",
            Common,
            "Replication factor of a topic that `anomaly topics` creates; 0: the broker's default.",
        ),
        key(
            "fields.device",
            Text,
            "\"device_id\"",
            Common,
            "Device, 1 to 256 bytes: a path (tags.host), $key, $header.NAME, or several combined ({tags.host}/{tags.cpu}).",
        ),
        key(
            "fields.metric",
            Text,
            "\"metric_name\"",
            Common,
            "Metric, in the same forms as the device. A record may lack it.",
        ),
        key("fields.value", Text, "\"metric_value\"", Common, "Value, a number: one path."),
        key(
            "fields.time",
            Text,
            "\"timestamp\"",
            Common,
            "Time: a path, $header.NAME, or $timestamp for the record's own time. Without the path the record's own time is used.",
        ),
        key(
            "fields.lenient",
            Bool,
            "true",
            Common,
            "Accept other spellings that have only one meaning: \"7\" as a number, 7 as a name, +0100 as an offset.",
        ),
        key(
            "fields.time_unit",
            OneOf(&["auto", "s", "ms", "us", "ns"]),
            "\"auto\"",
            Common,
            "Unit of epoch numbers. auto: by size (below 1e11 seconds, below 1e14 milliseconds, below 1e17 microseconds, else nanoseconds).",
        ),
        key(
            "fields.time_zone",
            Text,
            "\"UTC\"",
            Common,
            "Zone of times without one: UTC, an offset (+01:00) or a name (Europe/Berlin).",
        ),
        key(
            "fields.ignore",
            List,
            "[]",
            Common,
            "Patterns of records to ignore: PATH (is present), !PATH (is absent), PATH=TEXT, PATH!=TEXT.",
        ),
        key(
            "postgres.host",
            Text,
            "\"localhost\"",
            Common,
            "Host name, address or socket directory; several are separated by commas.",
        ),
        key("postgres.port", Integer(1, 65_535), "5432", Common, "TCP port, also part of the socket's file name."),
        key("postgres.dbname", Text, "\"anomalies_db\"", Common, "Name of the database."),
        key("postgres.user", Text, "\"anomaly_user\"", Common, "Database role to log in as."),
        key("postgres.password", Secret, "\"\"", Common, "Password of the role. Prefer password_file or a credential."),
        key("postgres.password_file", Path, "\"\"", Common, "File that contains the password and nothing else."),
        key("postgres.schema", Text, "\"\"", Common, "Schema of the tables; empty: the search path of the role."),
        key(
            "postgres.sslmode",
            OneOf(&["disable", "prefer", "require", "verify-ca", "verify-full"]),
            "\"prefer\"",
            Common,
            "TLS mode, as in libpq. verify-full also checks the host name.",
        ),
        key(
            "postgres.sslrootcert",
            Path,
            "\"\"",
            Common,
            "PEM file of trusted authorities; empty: those of the system.",
        ),
        key("postgres.sslcert", Path, "\"\"", Common, "PEM file of the certificate to log in with; empty: none."),
        key("postgres.sslkey", Path, "\"\"", Common, "PEM file of this certificate's key, without a passphrase."),
        key(
            "postgres.connect_timeout",
            Duration(100, 600_000),
            "\"4s\"",
            Common,
            "Timeout for connecting and for noticing a dead connection.",
        ),
        key("postgres.statement_timeout", Duration(100, 3_600_000), "\"30s\"", Common, "Timeout of one statement."),
        key(
            "postgres.retention",
            Duration(0, 36_500 * DAY),
            "\"365d\"",
            Common,
            "How long anomalies (by the time of the event) and coverage are kept; 0s: forever.",
        ),
        key(
            "postgres.retention_delay",
            Duration(0, 365 * DAY),
            "\"24h\"",
            Common,
            "Delay between the warning about an unusually large deletion (a new retention, a changed clock) and the deletion.",
        ),
        key("migrate.user", Text, "\"\"", Common, "Role that owns the tables; empty: postgres.user."),
        key("migrate.password", Secret, "\"\"", Common, "Password of the role."),
        key("migrate.password_file", Path, "\"\"", Common, "File that contains the password and nothing else."),
        key("migrate.reader", Text, "\"\"", Common, "Role that may only read, such as the dashboard's; empty: none."),
        key("migrate.marker", Text, "\"\"", Common, "Role that may only add reviews; empty: none."),
        key(
            "service.ready_timeout",
            Duration(0, DAY),
            "\"60s\"",
            Common,
            "Time after which a degraded role reports ready, so that the boot does not hang.",
        ),
        key(
            "service.drain_timeout",
            Duration(100, 600_000),
            "\"8s\"",
            Common,
            "Time after SIGTERM to finish the work in progress.",
        ),
        key(
            "metrics.listen",
            Listen,
            "\"\"",
            Common,
            "Address. Empty: 127.0.0.1, or [::1] without IPv4, with port 9464 (producer), 9465 (detector) or 9466 (dashboard).",
        ),
        key(
            "log.target",
            OneOf(&["auto", "journal", "syslog", "stderr"]),
            "\"auto\"",
            Common,
            "Where log lines go. auto: the journal if systemd started the process, otherwise standard error.",
        ),
        key(
            "log.level",
            OneOf(&["error", "warn", "info", "debug", "trace"]),
            "\"info\"",
            Common,
            "Least severe level to log. A reload applies it.",
        ),
        key(
            "log.anomalies_per_second",
            Integer(0, 1_000_000),
            "20",
            Common,
            "Maximum number of anomalies logged per second; more are only counted.",
        ),
        key(
            "producer.source",
            OneOf(&["generate", "replay", "host"]),
            "\"generate\"",
            Producer,
            "Source of the events: synthetic devices, a file, or this machine's own metrics.",
        ),
        key("producer.devices", Integer(1, 100_000_000), "100", Producer, "generate: number of devices."),
        key(
            "producer.rate",
            Float(0.0, 1e9),
            "100.0",
            Producer,
            "generate: events per second over all devices; 0: as fast as the broker accepts them.",
        ),
        key(
            "producer.seed",
            Integer(0, i64::MAX),
            "1",
            Producer,
            "generate: seed; the same seed gives the same events.",
        ),
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
            "generate: share of events that belong to an injected anomaly. Each of these has the header anomaly-label.",
        ),
        key(
            "producer.count",
            Integer(0, i64::MAX),
            "0",
            Producer,
            "Number of events after which the producer stops; 0: no limit.",
        ),
        key(
            "producer.file",
            Path,
            "\"-\"",
            Producer,
            "replay: JSON Lines, a JSON array, or CSV with a header line, optionally with gzip; -: standard input.",
        ),
        key(
            "producer.format",
            OneOf(&["auto", "jsonl", "json", "csv"]),
            "\"auto\"",
            Producer,
            "replay: format of the file. auto: by its extension, then by its first characters.",
        ),
        key("producer.decimal_comma", Bool, "false", Producer, "replay: read 21,5 in a table as one number."),
        key(
            "producer.speed",
            Float(0.0, 1e9),
            "1.0",
            Producer,
            "replay: 1 keeps the original pace, 10 is ten times as fast, 0 is as fast as the broker accepts events.",
        ),
        key(
            "producer.max_pause",
            Duration(0, 3_650 * DAY),
            "\"1h\"",
            Producer,
            "replay: longest pause between two events. A longer gap between the file's times is skipped.",
        ),
        key("producer.interval", Duration(100, DAY), "\"1s\"", Producer, "host: time between two readings."),
    ]
};
