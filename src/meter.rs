//! The counters of a process, in Prometheus' terms. Whoever does a thing counts it here; `/metrics` prints them.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// A single label called `kind`, such as a verdict or a class of rejection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    kind: &'static str,
}

/// A family of counters told apart by `kind`.
#[derive(Debug, Clone, Default)]
pub struct Counters(Family<KindLabel, Counter>);

impl Counters {
    /// Adds to one of them.
    pub fn add(&self, kind: &'static str, n: u64) {
        if n > 0 {
            self.0.get_or_create(&KindLabel { kind }).inc_by(n);
        }
    }

    /// Value of one of them.
    pub fn get(&self, kind: &'static str) -> u64 {
        self.0.get_or_create(&KindLabel { kind }).get()
    }
}

/// What a process is: it exports what it counts, and no zeros of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessRole {
    /// Publishes events.
    Producer,
    /// Judges them.
    Detector,
    /// Shows anomalies.
    Dashboard,
}

impl ProcessRole {
    /// As a label.
    pub fn as_str(self) -> &'static str {
        match self {
            ProcessRole::Producer => "producer",
            ProcessRole::Detector => "detector",
            ProcessRole::Dashboard => "dashboard",
        }
    }
}

/// Everything that is counted. Cloning shares the counters.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    /// Committed events by verdict: learning, normal, anomalous.
    pub events: Counters,
    /// Committed rejections by class.
    pub rejects: Counters,
    /// Committed anomalies by severity.
    pub anomalies: Counters,
    /// Transactions: committed, aborted, rebuilt.
    pub transactions: Counters,
    /// Series that were evicted: full, idle.
    pub evictions: Counters,
    /// Records written to the topic of windows: snapshot, eviction, tombstone, floor.
    pub snapshots: Counters,
    /// Bytes of them, keys included.
    pub snapshot_bytes: Counter,
    /// Series that were seen in a second partition.
    pub split_series: Counter,
    /// Offsets in the detector's group that another program committed.
    pub foreign_commits: Counter,
    /// Anomalies in the topic that the database does not have yet, in the partitions of this sink.
    pub sink_lag: Gauge,
    /// Rows in the database: inserted, present (again), rejected.
    pub sink_rows: Counters,
    /// Events of the producer: delivered, failed.
    pub published: Counters,
    /// Requests to the pages by outcome: ok, refused, failed, stale.
    pub requests: Counters,
}

impl Meter {
    /// Makes those of a process known to a registry.
    pub fn register(&self, process: ProcessRole, registry: &mut Registry) {
        let mut add = |name: &str, help: &str, family: &Counters| registry.register(name, help, family.0.clone());
        match process {
            ProcessRole::Producer => {
                add("anomaly_published", "Events published by the producer, by outcome", &self.published)
            }
            ProcessRole::Dashboard => add("anomaly_requests", "Requests to the dashboard, by outcome", &self.requests),
            ProcessRole::Detector => self.register_detector(registry),
        }
    }

    fn register_detector(&self, registry: &mut Registry) {
        let mut add = |name: &str, help: &str, family: &Counters| registry.register(name, help, family.0.clone());
        add("anomaly_events", "Events judged and committed, by verdict", &self.events);
        add("anomaly_rejects", "Records rejected and committed, by class", &self.rejects);
        add("anomaly_anomalies", "Anomalies committed, by severity", &self.anomalies);
        add("anomaly_transactions", "Transactions, by outcome", &self.transactions);
        add("anomaly_evictions", "Series forgotten, by cause", &self.evictions);
        add("anomaly_snapshots", "Records written to the topic of windows, by kind", &self.snapshots);
        add("anomaly_sink_rows", "Rows in the database, by outcome", &self.sink_rows);
        registry.register(
            "anomaly_sink_lag",
            "Anomalies in the topic that the database does not have yet",
            self.sink_lag.clone(),
        );
        registry.register(
            "anomaly_snapshot_bytes",
            "Keys and values written to the topic of windows",
            self.snapshot_bytes.clone(),
        );
        registry.register(
            "anomaly_foreign_commits",
            "Offsets in the detector's consumer group that another program committed",
            self.foreign_commits.clone(),
        );
        registry.register(
            "anomaly_split_series",
            "Series seen in a second partition: their records are not keyed by device",
            self.split_series.clone(),
        );
    }
}
