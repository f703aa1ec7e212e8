//! Words to systemd: READY, STATUS, WATCHDOG, RELOADING, STOPPING. Silent when nobody listens.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::foreign;

/// The manager's view of this process.
pub struct Notifier {
    ready: bool,
    status: String,
    watchdog: Option<Duration>,
    last_beat: Instant,
    extended: Option<Instant>,
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        tracing::debug!("cannot notify the service manager: {e}");
    }
}

impl Notifier {
    /// Reads the manager's watchdog interval from the environment.
    pub fn new() -> Self {
        Notifier {
            ready: false,
            status: String::new(),
            watchdog: sd_notify::watchdog_enabled(),
            last_beat: Instant::now(),
            extended: None,
        }
    }

    /// Ready, once.
    pub fn ready(&mut self) {
        if !std::mem::replace(&mut self.ready, true) {
            tell(&[NotifyState::Ready]);
        }
    }

    /// Whether ready was told.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// The start takes longer; asks for this much more.
    pub fn extend(&mut self, time: Duration) {
        if self.extended.is_some_and(|at| at.elapsed() < time / 4) {
            return;
        }
        self.extended = Some(Instant::now());
        tell(&[NotifyState::ExtendTimeoutUsec(u32::try_from(time.as_micros()).unwrap_or(u32::MAX))]);
    }

    /// One line, told when it changes.
    pub fn status(&mut self, line: &str) {
        if self.status != line {
            line.clone_into(&mut self.status);
            // The manager reads one assignment a line: a newline of others must not make another.
            tell(&[NotifyState::Status(&foreign::line(line).to_string())]);
        }
    }

    /// Feeds the watchdog if every working loop has made a turn within its interval.
    pub fn beat(&mut self, silence: Duration) {
        let Some(interval) = self.watchdog else { return };
        if silence < interval / 2 && self.last_beat.elapsed() >= interval / 4 {
            self.last_beat = Instant::now();
            tell(&[NotifyState::Watchdog]);
        }
    }

    /// Settings are read again; tell [`reloaded`](Self::reloaded) afterwards.
    pub fn reloading(&self) {
        if !self.ready {
            return;
        }
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(_) => tell(&[NotifyState::Reloading]),
        }
    }

    /// The reload is over, whether it changed anything or not. A start that is under way goes on.
    pub fn reloaded(&self) {
        if self.ready {
            tell(&[NotifyState::Ready]);
        }
    }

    /// The end has begun.
    pub fn stopping(&mut self) {
        tell(&[NotifyState::Stopping]);
        self.status("stopping");
    }
}

impl Default for Notifier {
    fn default() -> Self {
        Self::new()
    }
}
