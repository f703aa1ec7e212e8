//! Conditions: what a working loop measures that a person should know. Each is raised where it is measured, and shown by the
//! log, the status line, `/readyz`, the metrics, `anomaly status` and the pages.

use std::collections::BTreeMap;
use std::time::{Duration, Instant as Monotonic};

use crate::event::Timestamp;

/// Time between two log lines about one condition that lasts.
pub(super) const LOG_AGAIN: Duration = Duration::from_secs(60);

/// Whether the loop still does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionSeverity {
    /// Worth knowing; the process stays ready.
    Notice,
    /// Too little is judged or stored; the process is not ready.
    Degraded,
}

impl ConditionSeverity {
    /// As a label.
    pub fn as_str(self) -> &'static str {
        match self {
            ConditionSeverity::Notice => "notice",
            ConditionSeverity::Degraded => "degraded",
        }
    }

    /// The reverse of [`as_str`](Self::as_str).
    pub fn parse(text: &str) -> Option<ConditionSeverity> {
        [ConditionSeverity::Notice, ConditionSeverity::Degraded].into_iter().find(|severity| severity.as_str() == text)
    }
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// What a condition is about. The manual explains each code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum ConditionCode { $($(#[doc = $doc])+ $name,)+ }

        impl ConditionCode {
            /// Every code.
            pub const ALL: &[ConditionCode] = &[$(ConditionCode::$name),+];

            /// Its text in log lines, metrics and tables.
            pub fn as_str(self) -> &'static str {
                match self { $(ConditionCode::$name => $text,)+ }
            }
        }
    };
}

codes! {
    /// A loop does not serve; the message says why.
    NotServing = "not_serving",
    /// An open transaction in the input holds records back.
    OpenTransaction = "open_transaction",
    /// Every record that arrived lately was rejected.
    AllRejected = "all_rejected",
    /// Every record that arrived lately was passed over.
    AllIgnored = "all_ignored",
    /// A part of the records that arrived lately was rejected.
    SomeRejected = "some_rejected",
    /// The times in the events differ from the time of their arrival.
    TimesDiffer = "times_differ",
    /// Most of the values that arrived lately are learning, not judged.
    MostlyLearning = "mostly_learning",
    /// The detector does not keep up with the input.
    FallingBehind = "falling_behind",
    /// Another program commits offsets in the detector's consumer group.
    ForeignCommit = "foreign_commit",
    /// A restart found fewer records than the counts say.
    ReplayShortfall = "replay_shortfall",
    /// Series are evicted nearly as fast as events arrive.
    EvictionRate = "eviction_rate",
    /// A device was seen in two partitions.
    SplitSeries = "split_series",
    /// One series gets two values of the same time again and again.
    SameTime = "same_time",
    /// The database refuses rows; they are kept in `sink_rejects`.
    RowsRefused = "rows_refused",
    /// The ledger in the database is behind what the sink had stored.
    LedgerMoved = "ledger_moved",
    /// Retention waits, since the clocks do not agree.
    RetentionWaits = "retention_waits",
    /// The certificate of the pages has expired, or soon will.
    CertificateExpires = "certificate_expires",
}

/// One condition that holds now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What it is about.
    pub code: ConditionCode,
    /// Whether the loop still does its work.
    pub severity: ConditionSeverity,
    /// What is measured, what follows from it, and what to do. One line.
    pub message: String,
    /// When it was raised.
    pub since: Timestamp,
}

/// The conditions of one loop, one for each code.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    /// With whether it was logged.
    held: BTreeMap<ConditionCode, (Condition, bool)>,
    /// When each was logged last, also after its end: one that comes and goes is logged no more often than one that lasts.
    logged: BTreeMap<ConditionCode, Monotonic>,
}

impl Conditions {
    /// Raises a condition or changes its message; logs it at first and then at most once a minute.
    pub fn raise(&mut self, part: &str, code: ConditionCode, severity: ConditionSeverity, message: String) {
        let is_due = self.logged.get(&code).is_none_or(|at| at.elapsed() >= LOG_AGAIN);
        let (is_news, is_worse) = match self.held.get(&code) {
            Some((held, _)) => (message != held.message, severity > held.severity),
            None => (true, false),
        };
        let is_logged = is_worse || (is_news && is_due);
        if is_logged {
            tracing::warn!(part, code = code.as_str(), "{}: {message}", severity.as_str());
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

    /// Ends a condition.
    pub fn clear(&mut self, part: &str, code: ConditionCode) {
        if let Some((held, true)) = self.held.remove(&code) {
            tracing::info!(part, code = code.as_str(), "no longer: {}", held.message);
        }
    }

    /// Those that hold now, the degrading ones first.
    pub fn list(&self) -> Vec<Condition> {
        let mut all = self.held.values().map(|(condition, _)| condition.clone()).collect::<Vec<_>>();
        all.sort_by_key(|condition| std::cmp::Reverse(condition.severity));
        all
    }
}
