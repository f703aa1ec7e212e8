//! Whether the archive answers. An outage is remembered, so that no reader waits for it again, and one probe at a time looks
//! whether it is over. The component that watches the
//! archive logs both ends.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant as Clock};

use crate::archive::{Archive, NoAnswer};
use crate::event::Timestamp;

/// Between two looks at the archive's clock.
const AGREE: Duration = Duration::from_secs(60);
/// The same after it gave no answer.
const RETRY: Duration = Duration::from_secs(5);
/// Milliseconds by which the two clocks may differ.
const NEAR: i64 = 2_000;

/// The memory of an outage, and the time of the archive.
pub struct Outage {
    clock: fn() -> Timestamp,
    /// Time between two probes.
    pause: Duration,
    state: Mutex<State>,
    /// Milliseconds by which the archive's clock is ahead of this one.
    offset: AtomicI64,
    /// When that is to be measured again.
    due: Mutex<Option<Clock>>,
    /// Questions that the archive refused so far.
    refusals: AtomicU64,
}

/// An outage that lasts.
#[derive(Debug, Clone)]
pub struct OutageCause {
    /// Since when there has been no answer.
    pub since: Timestamp,
    /// Why the first question of it got none.
    pub why: String,
}

#[derive(Default)]
struct State {
    cause: Option<OutageCause>,
    prober: Option<Prober>,
    asker: Option<Asker>,
}

type Prober = Box<dyn Fn() + Send + Sync>;
/// Asks for the archive's clock.
type Asker = Arc<dyn Fn() -> Option<Timestamp> + Send + Sync>;

impl Outage {
    /// All well. `clock` is the time that readers are told.
    pub fn new(clock: fn() -> Timestamp, pause: Duration) -> Self {
        Outage {
            clock,
            pause,
            state: Mutex::default(),
            offset: AtomicI64::new(0),
            due: Mutex::default(),
            refusals: AtomicU64::new(0),
        }
    }

    /// From now on an outage is probed until it is over.
    pub fn watch(self: &Arc<Self>, archive: &Arc<dyn Archive>) {
        let (health, archive) = (Arc::downgrade(self), Arc::downgrade(archive));
        let asked = Weak::clone(&archive);
        self.lock().asker = Some(Arc::new(move || asked.upgrade()?.clock().ok()));
        self.lock().prober = Some(Box::new(move || {
            let (health, archive) = (Weak::clone(&health), Weak::clone(&archive));
            std::thread::spawn(move || probe(&health, &archive));
        }));
    }

    /// Now, by the archive's clock: ages and ranges on the pages are those of its rows.
    pub fn now(&self) -> Timestamp {
        let own = (self.clock)();
        Timestamp::from_millis(own.millis() + self.offset.load(Ordering::Relaxed)).unwrap_or(own)
    }

    /// Looks at the archive's clock, once a minute.
    pub fn agree(&self) {
        let Ok(mut due) = self.due.try_lock() else { return };
        if due.is_some_and(|at| Clock::now() < at) {
            return;
        }
        let Some(asker) = self.lock().asker.clone() else { return };
        let before = (self.clock)();
        let Some(theirs) = asker() else {
            // The reader waits for this, too: not before each question that is refused.
            *due = Some(Clock::now() + RETRY);
            return;
        };
        let middle = i64::midpoint(before.millis(), (self.clock)().millis());
        let offset = theirs.millis() - middle;
        self.offset.store(if offset.abs() < NEAR { 0 } else { offset }, Ordering::Relaxed);
        *due = Some(Clock::now() + AGREE);
    }

    /// Seconds by which this program's clock is ahead of the archive's, when they differ.
    pub fn ahead(&self) -> Option<f64> {
        let offset = self.offset.load(Ordering::Relaxed);
        (offset != 0).then_some(-(offset as f64) / 1000.0)
    }

    /// Since when there has been no answer.
    pub fn outage(&self) -> Option<Timestamp> {
        self.lock().cause.as_ref().map(|cause| cause.since)
    }

    /// The same, with its cause.
    pub fn cause(&self) -> Option<OutageCause> {
        self.lock().cause.clone()
    }

    /// Number of questions that the archive refused so far.
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// Takes note of a failure. The first of an outage starts the probe.
    pub fn failed(&self, failure: &NoAnswer) {
        let NoAnswer::Away(why) = failure else {
            tracing::warn!(%failure, "the database gives no answer to a page");
            if matches!(failure, NoAnswer::Refused(_)) {
                self.refusals.fetch_add(1, Ordering::Relaxed);
            }
            return;
        };
        let mut state = self.lock();
        if state.cause.is_none() {
            // The component that this belongs to logs its condition.
            tracing::debug!(why, "PostgreSQL is away; the pages show the last data");
            state.cause = Some(OutageCause { since: self.now(), why: why.clone() });
            if let Some(start) = &state.prober {
                start();
            }
        }
    }

    fn recovered(&self) {
        if let Some(OutageCause { since, .. }) = self.lock().cause.take() {
            tracing::debug!(%since, "PostgreSQL is back");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Until there is an answer (a refusal is one), or nobody is left who would ask.
fn probe(health: &Weak<Outage>, archive: &Weak<dyn Archive>) {
    loop {
        let Some(pause) = health.upgrade().map(|health| health.pause) else { return };
        std::thread::sleep(pause);
        let (Some(health), Some(archive)) = (health.upgrade(), archive.upgrade()) else { return };
        if !matches!(archive.ping(), Err(NoAnswer::Away(_))) {
            return health.recovered();
        }
    }
}
