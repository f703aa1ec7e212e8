//! Observes whether the archive answers. An outage is remembered, so that no request waits for it again. One probe at a
//! time checks whether the outage is over. The component that watches the archive logs its start and end.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant as Clock};

use crate::archive::{Archive, NoAnswer};
use crate::event::Timestamp;
use crate::unavailable::Unavailable;

/// Interval between two comparisons with the archive's clock.
const AGREE: Duration = Duration::from_secs(60);
/// Interval after the archive did not return its clock.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Difference between the two clocks, in milliseconds, below which they count as equal.
const NEAR: i64 = 2_000;

/// State of the archive: a current outage, and the offset of its clock.
pub(crate) struct Outage {
    clock: fn() -> Timestamp,
    /// Time between two probes during an outage.
    pause: Duration,
    state: Mutex<OutageState>,
    /// Milliseconds by which the archive's clock is ahead of this machine's.
    offset: AtomicI64,
    /// When the offset is to be measured again.
    due: Mutex<Option<Clock>>,
    /// Number of queries that the archive has refused so far.
    refusals: AtomicU64,
}

/// An outage that has not ended.
#[derive(Debug, Clone)]
pub(crate) struct OutageCause {
    /// Time since which there has been no answer.
    pub since: Timestamp,
    /// Error of the first query that failed.
    pub unavailable: Unavailable,
}

#[derive(Default)]
struct OutageState {
    cause: Option<OutageCause>,
    prober: Option<Prober>,
    asker: Option<Asker>,
}

type Prober = Box<dyn Fn() -> bool + Send + Sync>;
/// Queries the clock of the archive.
type Asker = Arc<dyn Fn() -> Option<Timestamp> + Send + Sync>;

impl Outage {
    /// Creates the state without an outage. `clock` is the clock that the pages show.
    pub(crate) fn new(clock: fn() -> Timestamp, pause: Duration) -> Self {
        Outage {
            clock,
            pause,
            state: Mutex::default(),
            offset: AtomicI64::new(0),
            due: Mutex::default(),
            refusals: AtomicU64::new(0),
        }
    }

    /// Starts to probe during outages until they are over.
    pub(crate) fn watch(self: &Arc<Self>, archive: &Arc<dyn Archive>) {
        let (health, archive) = (Arc::downgrade(self), Arc::downgrade(archive));
        let observed = Weak::clone(&archive);
        self.lock().asker = Some(Arc::new(move || observed.upgrade()?.clock().ok()));
        self.lock().prober = Some(Box::new(move || {
            let (health, archive) = (Weak::clone(&health), Weak::clone(&archive));
            std::thread::Builder::new().name("probe".into()).spawn(move || probe(&health, &archive)).is_ok()
        }));
    }

    /// Returns the current time by the archive's clock. Ages and ranges on the pages refer to the times of its rows.
    pub(crate) fn now(&self) -> Timestamp {
        let own = (self.clock)();
        Timestamp::from_millis(own.millis() + self.offset.load(Ordering::Relaxed)).unwrap_or(own)
    }

    /// Compares the clock with the archive's, at most once a minute.
    pub(crate) fn agree(&self) {
        let Ok(mut due) = self.due.try_lock() else { return };
        if due.is_some_and(|at| Clock::now() < at) {
            return;
        }
        let Some(asker) = self.lock().asker.clone() else { return };
        let before = (self.clock)();
        let Some(theirs) = asker() else {
            // The request waits for this, too, so a failed comparison is not repeated before each query.
            *due = Some(Clock::now() + RETRY_INTERVAL);
            return;
        };
        let middle = i64::midpoint(before.millis(), (self.clock)().millis());
        let offset = theirs.millis() - middle;
        self.offset.store(if offset.abs() < NEAR { 0 } else { offset }, Ordering::Relaxed);
        *due = Some(Clock::now() + AGREE);
    }

    /// Returns by how many seconds this machine's clock is ahead of the archive's, if they differ.
    pub(crate) fn ahead(&self) -> Option<f64> {
        let offset = self.offset.load(Ordering::Relaxed);
        (offset != 0).then_some(-(offset as f64) / 1000.0)
    }

    /// Returns the time since which there has been no answer.
    pub(crate) fn outage(&self) -> Option<Timestamp> {
        self.lock().cause.as_ref().map(|cause| cause.since)
    }

    /// Returns the current outage with its cause.
    pub(crate) fn cause(&self) -> Option<OutageCause> {
        self.lock().cause.clone()
    }

    /// Returns the number of queries that the archive has refused so far.
    pub(crate) fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// Records a failed query. The first failure of an outage starts the probe.
    pub(crate) fn failed(&self, failure: &NoAnswer) {
        let NoAnswer::Unavailable(unavailable) = failure else {
            tracing::warn!(%failure, "the database gives no answer to a page");
            if matches!(failure, NoAnswer::Refused(_)) {
                self.refusals.fetch_add(1, Ordering::Relaxed);
            }
            return;
        };
        let mut state = self.lock();
        if state.cause.is_none() {
            // The component that watches the archive logs this as a condition.
            tracing::debug!("{unavailable}; the pages show the last data");
            state.cause = Some(OutageCause { since: self.now(), unavailable: unavailable.clone() });
            if state.prober.as_ref().is_some_and(|start| !start()) {
                // Without a probe the outage would never end. So each request asks the database.
                state.cause = None;
            }
        }
    }

    fn recovered(&self) {
        if let Some(OutageCause { since, .. }) = self.lock().cause.take() {
            tracing::debug!(%since, "PostgreSQL answers again");
        }
    }

    fn lock(&self) -> MutexGuard<'_, OutageState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Probes until the archive answers (a refusal is an answer) or the dashboard is dropped.
fn probe(health: &Weak<Outage>, archive: &Weak<dyn Archive>) {
    loop {
        let Some(pause) = health.upgrade().map(|health| health.pause) else { return };
        std::thread::sleep(pause);
        let (Some(health), Some(archive)) = (health.upgrade(), archive.upgrade()) else { return };
        if !matches!(archive.ping(), Err(NoAnswer::Unavailable(_))) {
            return health.recovered();
        }
    }
}
