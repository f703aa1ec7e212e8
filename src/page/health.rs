//! Whether the archive answers. An outage is remembered, so that no reader waits for it again, and one probe at a time looks
//! whether it is over. Both ends are logged once, here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::archive::{Archive, Failure};
use crate::event::Instant;

/// The memory of an outage.
pub struct Health {
    clock: fn() -> Instant,
    /// Time between two probes.
    pause: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    since: Option<Instant>,
    prober: Option<Prober>,
}

type Prober = Box<dyn Fn() + Send + Sync>;

impl Health {
    /// All well. `clock` is the time that readers are told.
    pub fn new(clock: fn() -> Instant, pause: Duration) -> Self {
        Health { clock, pause, state: Mutex::default() }
    }

    /// From now on an outage is probed until it is over.
    pub fn watch(self: &Arc<Self>, archive: &Arc<dyn Archive>) {
        let (health, archive) = (Arc::downgrade(self), Arc::downgrade(archive));
        self.lock().prober = Some(Box::new(move || {
            let (health, archive) = (Weak::clone(&health), Weak::clone(&archive));
            std::thread::spawn(move || probe(&health, &archive));
        }));
    }

    /// Now.
    pub fn now(&self) -> Instant {
        (self.clock)()
    }

    /// Since when there has been no answer.
    pub fn outage(&self) -> Option<Instant> {
        self.lock().since
    }

    /// Takes note of a failure. The first of an outage starts the probe.
    pub fn failed(&self, failure: &Failure) {
        let Failure::Away(why) = failure else {
            tracing::warn!(%failure, "the database gives no answer to a page");
            return;
        };
        let mut state = self.lock();
        if state.since.is_none() {
            tracing::warn!(why, "PostgreSQL is away; the pages show the last data");
            state.since = Some(self.now());
            if let Some(start) = &state.prober {
                start();
            }
        }
    }

    fn recovered(&self) {
        if let Some(since) = self.lock().since.take() {
            tracing::info!(%since, "PostgreSQL is back");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Until there is an answer (a refusal is one), or nobody is left who would ask.
fn probe(health: &Weak<Health>, archive: &Weak<dyn Archive>) {
    loop {
        let Some(pause) = health.upgrade().map(|health| health.pause) else { return };
        std::thread::sleep(pause);
        let (Some(health), Some(archive)) = (health.upgrade(), archive.upgrade()) else { return };
        if !matches!(archive.ping(), Err(Failure::Away(_))) {
            return health.recovered();
        }
    }
}
