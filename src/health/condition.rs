//! Conditions: problems, and facts worth knowing, that a component measures. The component raises them. The log, the
//! status line, `/readyz`, the metrics, `anomaly status` and the pages show them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant as Monotonic};

use super::Component;
use super::deleted::DeletedRecords;
use super::start::StartsAtEnd;
use crate::event::Timestamp;

/// Minimum time between two log lines about a lasting condition.
pub(super) const LOG_AGAIN: Duration = Duration::from_secs(60);

/// Whether the component still does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionSeverity {
    /// Worth knowing; the process stays ready.
    Notice,
    /// Too few records are judged or stored; the process is not ready.
    Degraded,
}

impl ConditionSeverity {
    /// Returns the name for labels.
    pub fn as_str(self) -> &'static str {
        match self {
            ConditionSeverity::Notice => "notice",
            ConditionSeverity::Degraded => "degraded",
        }
    }

    /// Parses the name that `as_str` returns.
    pub fn parse(text: &str) -> Option<ConditionSeverity> {
        [ConditionSeverity::Notice, ConditionSeverity::Degraded].into_iter().find(|severity| severity.as_str() == text)
    }
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// The subject of a condition. The manual explains each code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum ConditionCode { $($(#[doc = $doc])+ $name,)+ }

        impl ConditionCode {
            /// Every code, in the order of this list.
            pub const ALL: &[ConditionCode] = &[$(ConditionCode::$name),+];

            /// Returns the code as text, for log lines, metrics and tables.
            pub fn as_str(self) -> &'static str {
                match self { $(ConditionCode::$name => $text,)+ }
            }
        }
    };
}

codes! {
    /// A component does not serve; the message gives the reason.
    NotServing = "not_serving",
    /// An open transaction in the input, or in the topic of anomalies, blocks records.
    OpenTransaction = "open_transaction",
    /// A partition cannot be read at an offset, for example because a batch is damaged.
    Unreadable = "unreadable",
    /// Records that cannot be read were skipped.
    DamageSkipped = "damage_skipped",
    /// Records wait in a partition, but none has been processed for a long time.
    NoProgress = "no_progress",
    /// All recent records were rejected.
    AllRejected = "all_rejected",
    /// All recent records were ignored.
    AllIgnored = "all_ignored",
    /// The state topic refuses records as too large, so that a restart must replay more input.
    StateRefused = "state_refused",
    /// Some recent records were rejected.
    SomeRejected = "some_rejected",
    /// The times in the events differ from their arrival.
    TimesDiffer = "times_differ",
    /// Most recent values are learned and not judged.
    MostlyLearning = "mostly_learning",
    /// The detector cannot keep up with the input, or the sink with the anomalies.
    FallingBehind = "falling_behind",
    /// Partitions of the input or of the anomalies are assigned to no member of the group, or this is not known.
    Unassigned = "unassigned",
    /// Another program commits offsets in the detector's consumer group.
    ForeignCommit = "foreign_commit",
    /// A restart found fewer records than the counts say.
    ReplayShortfall = "replay_shortfall",
    /// Records were deleted before they were judged or stored.
    RecordsDeleted = "records_deleted",
    /// A group without committed offsets has begun at the end of the input.
    StartedAtEnd = "started_at_end",
    /// Series are evicted almost as fast as events arrive.
    EvictionRate = "eviction_rate",
    /// The memory for series is used up, so that new series are not judged.
    MemoryLimit = "memory_limit",
    /// A device was seen in two partitions.
    SplitSeries = "split_series",
    /// One series repeatedly gets two values with the same time.
    SameTime = "same_time",
    /// The settings disable the sink.
    SinkDisabled = "sink_disabled",
    /// The database refuses rows; `sink_rejects` keeps them.
    RowsRefused = "rows_refused",
    /// Another program is in the sink's group, or another member's partitions are not stored in this database.
    ForeignSink = "foreign_sink",
    /// Detectors of another group write about the same topic into the same tables.
    SeveralGroups = "several_groups",
    /// The ledger in the database is behind the offsets that the sink had stored.
    LedgerMoved = "ledger_moved",
    /// Retention waits, because the clocks differ.
    RetentionWaits = "retention_waits",
    /// The certificate of the pages has expired or expires soon.
    CertificateExpires = "certificate_expires",
    /// The database gives the pages no answer.
    NoDatabaseAnswer = "no_database_answer",
    /// The role of `[reviews]` cannot add reviews.
    NoReviews = "no_reviews",
}

/// An active condition of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Code of the condition, which the manual explains.
    pub code: ConditionCode,
    /// Severity: whether the component still does its work.
    pub severity: ConditionSeverity,
    /// One line: what was measured, the consequence, and the remedy.
    pub message: String,
    /// Time at which the condition was raised.
    pub since: Timestamp,
}

impl Component {
    /// Raises a degrading condition, or clears it if there is no message.
    pub fn set_degraded(&self, code: ConditionCode, message: Option<String>) {
        self.set_condition(code, message.map(|text| (ConditionSeverity::Degraded, text)));
    }
}

/// The conditions of one component, one per code.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    /// The condition, and whether it was logged.
    held: BTreeMap<ConditionCode, (Condition, bool)>,
    /// When each was last logged, also after its end: a condition that comes and goes is logged no more often than a
    /// lasting one.
    logged: BTreeMap<ConditionCode, Monotonic>,
    /// Records that were deleted before the component processed them.
    pub(super) deleted: DeletedRecords,
    /// Records of each topic that were skipped, because they cannot be read.
    pub(super) damaged: BTreeMap<String, DeletedRecords>,
    /// Records before the start of a group without committed offsets.
    pub(super) starts: StartsAtEnd,
}

impl Conditions {
    /// Raises a condition or changes its message. Logs it at once, then at most once a minute.
    pub(crate) fn raise(&mut self, component: &str, code: ConditionCode, severity: ConditionSeverity, message: String) {
        let is_due = self.logged.get(&code).is_none_or(|at| at.elapsed() >= LOG_AGAIN);
        let (is_news, is_worse) = match self.held.get(&code) {
            Some((held, _)) => (message != held.message, severity > held.severity),
            None => (true, false),
        };
        let is_logged = is_worse || (is_news && is_due);
        if is_logged {
            tracing::warn!(component, code = code.as_str(), "{}: {message}", severity.as_str());
            self.logged.insert(code, Monotonic::now());
        }
        match self.held.get_mut(&code) {
            Some((held, was_logged)) => {
                (held.severity, held.message) = (severity, message);
                *was_logged |= is_logged;
            }
            None => {
                let condition = Condition { code, severity, message, since: Timestamp::now() };
                self.held.insert(code, (condition, is_logged));
            }
        }
    }

    /// Clears a condition, and logs its end if its start was logged.
    pub(crate) fn clear(&mut self, component: &str, code: ConditionCode) {
        if let Some((held, true)) = self.held.remove(&code) {
            tracing::info!(component, code = code.as_str(), "no longer: {}", held.message);
        }
    }

    /// Returns the active conditions, degrading ones first.
    pub(crate) fn list(&self) -> Vec<Condition> {
        let mut all = self.held.values().map(|(condition, _)| condition.clone()).collect::<Vec<_>>();
        all.sort_by_key(|condition| std::cmp::Reverse(condition.severity));
        all
    }
}

/// Maximum number of places, such as partitions, that one message names.
const MOST_PLACES: usize = 3;

/// Returns the first few places of a message, and the number of the others.
pub(crate) fn listed(places: &[String]) -> String {
    let mut text = places.iter().take(MOST_PLACES).cloned().collect::<Vec<_>>().join("; ");
    if places.len() > MOST_PLACES {
        text += &format!("; and {} more", places.len() - MOST_PLACES);
    }
    text
}
