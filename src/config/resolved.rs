//! All settings, in the order in which the files show them. To add a setting, declare it here: the typed struct, the
//! checks, the files of `etc/`, the manual page and `anomaly check` come from the declaration (see `declare`).

pub mod base;
pub mod network;
mod value;

use std::collections::BTreeMap;
use std::time::Duration;

pub use value::{
    Delivery, FileFormat, Hsts, ListenAddress, OnDamage, OnReject, Secret, SourceKind, StartPosition, StateKeeping,
};

use super::declare::{ValueType, settings, tables};
use crate::event::{Fields, OnPartial, TimeUnit, Timestamp};
use crate::limits::{Limits, series_limits};
use crate::method;
use crate::policy::{Policy, PolicyOverride};

/// Length of a day in milliseconds.
const DAY: u64 = 86_400_000;

/// Names of the methods, as the values of a limit.
const METHOD: ValueType = ValueType::OneOf(&method::NAMES);

series_limits! { settings! {
    /// All settings: typed, complete and consistent.
    Settings {
        /// Connection to Kafka. [kafka.properties] accepts any librdkafka property, such as security.protocol or
        /// sasl.username.
        kafka: struct KafkaSettings in Common {
            /// Brokers to connect to first, as host:port, separated by commas.
            bootstrap_servers: String = "localhost:9092", Text;
            also {
                /// Properties of librdkafka, by their names.
                pub properties: BTreeMap<String, String>,
            }
        }

        /// Names of the topics, and how `anomaly topics` creates missing ones.
        topics: struct TopicSettings in Common {
            /// Input topic: the events.
            raw_events: String = "raw_events", Text;
            /// Output topic: the anomalies.
            anomalies: String = "anomalies", Text;
            /// Dead-letter topic: rejected records with their exact key and value.
            dead_letter: String = "raw_events_dlq", Text;
            /// Compacted topic that keeps the state of the series.
            state: String = "anomaly_state", Text;
            /// Number of partitions of a topic that `anomaly topics` creates.
            partitions: i32 = 4, Integer(1, 10_000);
            /// Replication factor of a topic that `anomaly topics` creates; 0: the broker's default.
            replication: i32 = 0, Integer(0, 100);
        }

        /// Where the four fields are in your JSON, and which spellings are accepted.
        fields: core Fields in Common {
            /// Device, 1 to 256 bytes: a path (tags.host), $key, $header.NAME, or several combined
            /// ({tags.host}/{tags.cpu}).
            device: String = "device_id", Text;
            /// Metric, in the same forms as the device. A record may lack it.
            metric: String = "metric_name", Text;
            /// Value, a number: one path. Of several values in a record: a value of each element of an array
            /// (metrics[*].value), or each member of an object, whose name is the metric (sensors.*).
            value: String = "metric_value", Text;
            /// Time: a path, $header.NAME, or $timestamp for the record's own time. Without the path the record's own
            /// time is used.
            time: String = "timestamp", Text;
            /// Accept other spellings that have only one meaning: "7" as a number, 7 as a name, +0100 as an offset.
            lenient: bool = true, Bool;
            /// Unit of epoch numbers. auto: by size (below 1e11 seconds, below 1e14 milliseconds, below 1e17
            /// microseconds, else nanoseconds).
            time_unit: TimeUnit = "auto", OneOf(&["auto", "s", "ms", "us", "ns"]);
            /// Zone of times without one: UTC, an offset (+01:00) or a name (Europe/Berlin).
            time_zone: String = "UTC", Text;
            /// Patterns of records to ignore: PATH (is present), !PATH (is absent), PATH=TEXT, PATH!=TEXT.
            ignore: Vec<String> = [], List;
            /// Record of which only some values are valid. reject: none is judged; judge_valid: these are judged. In both
            /// cases the record becomes a dead letter.
            on_partial: OnPartial = "reject", OneOf(&["reject", "judge_valid"]);
        }

        /// Database that stores the anomalies.
        postgres: struct PostgresSettings in Common {
            /// Host name, address or socket directory; several are separated by commas.
            host: String = "localhost", Text;
            /// TCP port, also part of the socket's file name.
            port: u16 = 5432, Integer(1, 65_535);
            /// Name of the database.
            dbname: String = "anomalies_db", Text;
            /// Database role to log in as.
            user: String = "anomaly_user", Text;
            /// Password of the role. Prefer password_file or a credential.
            password: Secret = "", Secret;
            /// File that contains the password and nothing else.
            password_file: String = "", Path;
            /// Schema of the tables; empty: the search path of the role.
            schema: String = "", Text;
            /// TLS mode, as in libpq. verify-full also checks the host name.
            sslmode: String = "prefer", OneOf(&["disable", "prefer", "require", "verify-ca", "verify-full"]);
            /// PEM file of trusted authorities; empty: those of the system.
            sslrootcert: String = "", Path;
            /// PEM file of the certificate to log in with; empty: none.
            sslcert: String = "", Path;
            /// PEM file of this certificate's key, without a passphrase.
            sslkey: String = "", Path;
            /// Timeout for connecting and for noticing a dead connection.
            connect_timeout: Duration = "4s", Duration(100, 600_000);
            /// Timeout of one statement.
            statement_timeout: Duration = "30s", Duration(100, 3_600_000);
            /// How long anomalies (by the time of the event) and coverage are kept; 0s: forever.
            retention: Duration = "365d", Duration(0, 36_500 * DAY);
            /// Delay between the warning about an unusually large deletion (a new retention, a changed clock) and the
            /// deletion.
            retention_delay: Duration = "24h", Duration(0, 365 * DAY);
        }

        /// Database role that `anomaly migrate` uses, if it is another one.
        migrate: struct MigrateSettings in Common {
            /// Role that owns the tables; empty: postgres.user.
            user: String = "", Text;
            /// Password of the role.
            password: Secret = "", Secret;
            /// File that contains the password and nothing else.
            password_file: String = "", Path;
            /// Role that may only read, such as the dashboard's; empty: none.
            reader: String = "", Text;
            /// Role that may only add reviews; empty: none.
            reviewer: String = "", Text;
        }

        /// Start and stop of a role.
        service: struct ServiceSettings in Common {
            /// Time after which a degraded role reports ready, so that the boot does not hang.
            ready_timeout: Duration = "60s", Duration(0, DAY);
            /// Time after SIGTERM to finish the work in progress.
            drain_timeout: Duration = "8s", Duration(100, 600_000);
        }

        /// Endpoint of each role with /healthz, /readyz and /metrics.
        metrics: struct MetricsSettings in Common {
            /// Address. Empty: 127.0.0.1, or [::1] without IPv4, with port 9464 (producer), 9465 (detector) or 9466
            /// (dashboard).
            listen: ListenAddress = "", Listen;
        }

        /// Logging.
        log: struct LogSettings in Common {
            /// Where log lines go. auto: the journal if systemd started the process, otherwise standard error.
            target: String = "auto", OneOf(&["auto", "journal", "syslog", "stderr"]);
            /// Least severe level to log. A reload applies it.
            level: String = "info", OneOf(&["error", "warn", "info", "debug", "trace"]);
            /// Maximum number of anomalies logged per second; more are only counted.
            anomalies_per_second: u32 = 20, Integer(0, 1_000_000);
        }

        /// Events that the producer publishes to topics.raw_events.
        producer: struct ProducerSettings in Producer {
            /// Source of the events: synthetic devices, a file, or this machine's own metrics.
            source: SourceKind = "generate", OneOf(SourceKind::WORDS);
            /// generate: number of devices.
            devices: u64 = 100, Integer(1, 100_000_000);
            /// generate: events per second over all devices; 0: as fast as the broker accepts them.
            rate: f64 = 100.0, Float(0.0, 1e9);
            /// generate: seed; the same seed gives the same events.
            seed: u64 = 1, Integer(0, i64::MAX);
            /// generate: virtual time of the first event; empty: now.
            start: Option<Timestamp> = "", Time;
            /// generate: virtual time from one event to the next, such as "10ms"; empty: 1/rate (1 ms at rate 0).
            step: Option<Duration> = "", Step;
            /// generate: share of events that belong to an injected anomaly. Each of these has the header
            /// anomaly-label.
            anomaly_rate: f64 = 0.002, Float(0.0, 0.1);
            /// Number of events after which the producer stops; 0: no limit.
            count: u64 = 0, Integer(0, i64::MAX);
            /// replay: JSON Lines, a JSON array, or CSV with a header line, optionally with gzip; -: standard input.
            file: String = "-", Path;
            /// replay: format of the file. auto: by its extension, then by its first characters.
            format: FileFormat = "auto", OneOf(FileFormat::WORDS);
            /// replay: read 21,5 in a table as one number.
            decimal_comma: bool = false, Bool;
            /// replay: whether each numeric column of a table is a metric. true: always, and fields.metric and fields.value
            /// are not used. false: only in a table that has a time column, but neither a value nor a metric column.
            wide: bool = false, Bool;
            /// replay: 1 keeps the original pace, 10 is ten times as fast, 0 is as fast as the broker accepts events.
            speed: f64 = 1.0, Float(0.0, 1e9);
            /// replay: longest pause between two events. A longer gap between the file's times is skipped.
            max_pause: Duration = "1h", Duration(0, 3_650 * DAY);
            /// host: time between two readings.
            interval: Duration = "1s", Duration(100, DAY);
        }

        /// Detection: which values are abnormal, and how the detector consumes events.
        detector: struct DetectorSettings in Detector {
            limits of_series;
            /// Number of preceding values stored with an anomaly.
            context: usize = 100, Integer(0, 10_000);
            /// What happens to a rejected record or an oversized batch. fail stops the detector with exit code 65.
            on_reject: OnReject = "dead_letter", OneOf(OnReject::WORDS);
            /// What happens to a damaged batch of the input, of the anomalies or of the state. stop: the partition waits. skip:
            /// its records are counted and skipped.
            on_damage: OnDamage = "stop", OneOf(OnDamage::WORDS);
            /// Number of consumers in this process; 0: one per core.
            workers: usize = 0, Integer(0, 1024);
            /// at_least_once uses no transactions: after a crash anomalies may occur twice, with the same identity.
            delivery: Delivery = "exactly_once", OneOf(Delivery::WORDS);
            /// Consumer group; its members share the partitions.
            group: String = "anomaly-detector", Text;
            /// Name of this instance, unique in the group and unchanged by a restart; empty: the machine id.
            instance: String = "", Text;
            /// Where a group without offsets and state begins.
            start: StartPosition = "latest", OneOf(StartPosition::WORDS);
            /// topic: restore windows exactly from topics.state. history: read the input again; at_least_once requires
            /// it.
            state: StateKeeping = "topic", OneOf(StateKeeping::WORDS);
            /// topic: minimum time between two sweeps, which write the windows that have changed.
            snapshot_interval: Duration = "60s", Duration(100, DAY);
            /// Maximum number of series in one partition. Beyond it the series that was silent for longest is evicted.
            max_series: usize = 1000000, Integer(1, 4_000_000_000);
            /// Memory of the process in MiB. Beyond it new series are not judged (`excluded`), then the series that were
            /// silent for longest are evicted. 0: 80 % of the limit of the unit, or of the memory of the machine.
            max_memory: u64 = 0, Integer(0, 16_777_216);
            /// Time without a value, by the partition's clock, after which a series is evicted; 0s: never. Needs three
            /// devices in the partition.
            idle_after: Duration = "30d", Duration(0, 3_650 * DAY);
            /// Maximum number of records read back per partition, if topics.state has no windows or is not used.
            history: i64 = 1000000, Integer(0, i64::MAX);
            /// Maximum time that a transaction stays open.
            commit_interval: Duration = "100ms", Duration(1, 8_000);
            /// Maximum number of events in one transaction.
            commit_events: usize = 100000, Integer(1, 10_000_000);
            /// Time without a heartbeat after which the group assigns a worker's partitions to others.
            session_timeout: Duration = "10s", Duration(1_000, 1_800_000);
            /// Leave the group on stop, so that others take over at once. false suits a restart.
            stop_leaves: bool = false, Bool;
            also {
                /// Limits of some series, in the order of their precedence, the strongest last.
                #[serde(default, rename = "override")]
                pub overrides: Vec<PolicyOverride>,
            }
        }

        /// Sink, which copies anomalies from Kafka into PostgreSQL.
        sink: struct SinkSettings in Detector {
            /// Write anomalies into PostgreSQL from this process.
            enabled: bool = true, Bool;
            /// Consumer group, and name under which the database keeps the offsets.
            group: String = "anomaly-sink", Text;
            /// Maximum number of rows in one database transaction.
            batch: usize = 5000, Integer(1, 100_000);
        }

        /// Pages of the dashboard, and access to them.
        dashboard: struct DashboardSettings in Dashboard {
            /// Address of the pages.
            listen: ListenAddress = "127.0.0.1:8501", Listen;
            /// Path below which a proxy serves the pages, such as "/anomaly". The proxy may pass it on or remove it.
            path: String = "", Text;
            /// Interval at which an open page refreshes itself.
            refresh: Duration = "5s", Duration(1_000, 3_600_000);
            /// PEM file of the certificate with its chain; empty: no TLS.
            tls_certificate: String = "", Path;
            /// HSTS: browsers use only TLS for this host name, on all ports, for a year. auto: if the port is 443.
            hsts: Hsts = "auto", OneOf(Hsts::WORDS);
            /// PEM file of the certificate's key. A reload reads both files again.
            tls_key: String = "", Path;
            /// File of user names and passwords, maintained by `anomaly passwd`; empty: none.
            users: String = "", Path;
            /// Idle timeout of a session.
            session_idle: Duration = "12h", Duration(60_000, 365 * DAY);
            /// Maximum lifetime of a session.
            session_life: Duration = "7d", Duration(60_000, 365 * DAY);
            /// Request header in which a proxy names the user; empty: none.
            proxy_header: String = "", Text;
            /// Addresses or ranges (10.0.0.0/8) of proxies. Only their X-Forwarded-*, Forwarded and proxy_header are
            /// trusted.
            proxy_addresses: Vec<String> = ["127.0.0.1", "::1"], List;
            /// Host names under which the proxy serves the pages, apart from localhost and addresses; *: all.
            proxy_hosts: Vec<String> = [], List;
            /// Secret that the proxy must send in the header X-Anomaly-Proxy-Secret; empty: none. Prefer a credential.
            proxy_secret: Secret = "", Secret;
            /// Users behind the proxy who may review; *: all.
            operators: Vec<String> = [], List;
            /// Allow access from the network without TLS or login.
            insecure: bool = false, Bool;
            /// URL of a record in a Kafka console, with {topic}, {partition} and {offset} in it; empty: no link.
            console: String = "", Text;
        }

        /// Database role that writes reviews, if it is another one.
        reviews: struct ReviewSettings in Dashboard {
            /// Role that may only add reviews; empty: postgres.user.
            user: String = "", Text;
            /// Password of the role.
            password: Secret = "", Secret;
            /// File that contains the password and nothing else.
            password_file: String = "", Path;
        }
    }
} }

series_limits! { tables! {
    /// Method and limits of the series whose device and metric match. There may be several tables. The last matching table wins,
    /// key by key.
    detector.override: core PolicyOverride in Detector {
        /// Pattern of devices, with * and ?.
        device: String, Text;
        /// Pattern of metrics, with * and ?.
        metric: String, Text;
        /// Whether values are judged at all.
        enabled: bool, Bool;
        limits of_series;
    }
} }

/// Returns the limits of all series from the settings that have them.
macro_rules! limits_from {
    ({ $settings:ident } { $($(#[doc = $doc:literal])+ $key:ident: $type:ty = $default:tt, $range:expr;)* }) => {
        Limits { $($key: $settings.$key.clone(),)* }
    };
}

impl DetectorSettings {
    /// Whether the state topic keeps the state of the series.
    pub fn keeps_state(&self) -> bool {
        self.state == StateKeeping::Topic
    }
}

impl Settings {
    /// Returns what the detector must know: the policy, and the limits of its memory.
    pub fn detection(&self) -> crate::detect::DetectionSettings {
        let d = &self.detector;
        crate::detect::DetectionSettings {
            policy: self.policy(),
            context: d.context,
            max_series: d.max_series,
            idle_after: u32::try_from(d.idle_after.as_secs()).ok().filter(|seconds| *seconds > 0),
        }
    }

    /// Returns the policy: which method and which limits apply to which series.
    pub fn policy(&self) -> Policy {
        let detector = &self.detector;
        let limits = series_limits! { limits_from! { detector } };
        Policy::new(limits, detector.overrides.clone())
    }
}
