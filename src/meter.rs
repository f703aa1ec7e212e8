//! The counters of a process, as Prometheus metrics. Each component counts its own work; `/metrics` prints the
//! counters.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// A label called `kind`, such as a verdict or a class of rejection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct KindLabel {
    kind: &'static str,
}

/// A family of counters with the label `kind`.
#[derive(Debug, Clone, Default)]
pub struct Counters(Family<KindLabel, Counter>);

impl Counters {
    /// Adds `n` to the counter of a kind.
    pub fn add(&self, kind: &'static str, n: u64) {
        if n > 0 {
            self.0.get_or_create(&KindLabel { kind }).inc_by(n);
        }
    }

    /// Returns the value of the counter of a kind.
    pub fn get(&self, kind: &'static str) -> u64 {
        self.0.get_or_create(&KindLabel { kind }).get()
    }
}

/// The role of a process. A process exports only the metrics of its role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessRole {
    /// Publishes events to the input topic.
    Producer,
    /// Judges events and stores anomalies.
    Detector,
    /// Serves the pages of the dashboard.
    Dashboard,
}

impl ProcessRole {
    /// Returns the name of the role.
    pub fn as_str(self) -> &'static str {
        match self {
            ProcessRole::Producer => "producer",
            ProcessRole::Detector => "detector",
            ProcessRole::Dashboard => "dashboard",
        }
    }
}

/// All counters of a process. Clones share the counters.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    /// Committed events by verdict: learning, normal, anomalous, excluded; and ignored records.
    pub events: Counters,
    /// Committed records, counted by outcome, and the partial ones among them.
    pub records: Counters,
    /// Committed rejections, counted by class.
    pub rejects: Counters,
    /// Committed anomalies, counted by severity.
    pub anomalies: Counters,
    /// Transactions, counted by outcome: committed, aborted, rebuilt.
    pub transactions: Counters,
    /// Evicted series by cause: full, idle, memory.
    pub evictions: Counters,
    /// Values of new series that were not judged, because there was no memory for them.
    pub refused_values: Counter,
    /// Records written to the state topic: snapshot, eviction, tombstone, floor.
    pub snapshots: Counters,
    /// Bytes of these records, keys included.
    pub snapshot_bytes: Counter,
    /// Series that were seen in a second partition.
    pub split_series: Counter,
    /// Offsets that another program committed in the detector's group.
    pub foreign_commits: Counter,
    /// Rebalances that this process forced, counted by its group: detector, sink.
    pub forced_rebalances: Counters,
    /// Records that were deleted from their topic too early (unjudged, unstored), or that cannot be read (skipped).
    pub lost_records: Counters,
    /// Anomalies in the topic that are not yet in the database, in the partitions of this sink.
    pub sink_lag: Gauge,
    /// Rows in the database: inserted, present (written again), rejected.
    pub sink_rows: Counters,
    /// Events of the producer: delivered, failed.
    pub published: Counters,
    /// Requests to the pages by outcome: ok, refused, failed, stale.
    pub requests: Counters,
}

impl Meter {
    /// Registers the metrics of a role.
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
        add(
            "anomaly_records",
            "Records committed, by outcome; partial ones count under their outcome too",
            &self.records,
        );
        add("anomaly_rejects", "Records rejected and committed, by class", &self.rejects);
        add("anomaly_anomalies", "Anomalies committed, by severity", &self.anomalies);
        add("anomaly_transactions", "Transactions, by outcome", &self.transactions);
        add("anomaly_evictions", "Series evicted, by cause", &self.evictions);
        add("anomaly_snapshots", "Records written to the state topic, by kind", &self.snapshots);
        add(
            "anomaly_forced_rebalances",
            "Rebalances forced because partitions were assigned to no member, by group",
            &self.forced_rebalances,
        );
        add("anomaly_sink_rows", "Rows in the database, by outcome", &self.sink_rows);
        add(
            "anomaly_lost_records",
            "Records that retention deleted before they were judged (unjudged) or stored (unstored), or that cannot be read (skipped)",
            &self.lost_records,
        );
        registry.register(
            "anomaly_sink_lag",
            "Anomalies in the topic that the database does not have yet",
            self.sink_lag.clone(),
        );
        registry.register(
            "anomaly_snapshot_bytes",
            "Bytes of keys and values written to the state topic",
            self.snapshot_bytes.clone(),
        );
        registry.register(
            "anomaly_foreign_commits",
            "Offsets in the detector's consumer group that another program committed",
            self.foreign_commits.clone(),
        );
        registry.register(
            "anomaly_refused_values",
            "Values of new series that were not judged, because detector.max_memory is used up",
            self.refused_values.clone(),
        );
        registry.register(
            "anomaly_split_series",
            "Series seen in a second partition: their records are not keyed by device",
            self.split_series.clone(),
        );
    }
}
