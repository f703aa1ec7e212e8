//! Notifications to systemd: READY, STATUS, WATCHDOG, RELOADING, STOPPING. Without systemd it does nothing.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::foreign;

/// The state of this process as the service manager knows it.
pub(crate) struct Notifier {
    ready: bool,
    status: String,
    watchdog: Option<Duration>,
    last_beat: Instant,
    extended: Option<Instant>,
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        tracing::debug!("cannot notify the service manager: {e}");
    }
}

impl Notifier {
    /// Reads the watchdog interval from the environment.
    pub(crate) fn new() -> Self {
        Notifier {
            ready: false,
            status: String::new(),
            watchdog: sd_notify::watchdog_enabled(),
            last_beat: Instant::now(),
            extended: None,
        }
    }

    /// Reports ready; further calls do nothing.
    pub(crate) fn ready(&mut self) {
        if !std::mem::replace(&mut self.ready, true) {
            notify(&[NotifyState::Ready]);
        }
    }

    /// Returns whether ready was reported.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Asks for more time to start.
    pub(crate) fn extend(&mut self, time: Duration) {
        if self.extended.is_some_and(|at| at.elapsed() < time / 4) {
            return;
        }
        self.extended = Some(Instant::now());
        notify(&[NotifyState::ExtendTimeoutUsec(u32::try_from(time.as_micros()).unwrap_or(u32::MAX))]);
    }

    /// Sends the status line if it has changed.
    pub(crate) fn status(&mut self, line: &str) {
        if self.status != line {
            line.clone_into(&mut self.status);
            // The manager reads one assignment per line: a newline in foreign text must not create another.
            notify(&[NotifyState::Status(&foreign::line(line).to_string())]);
        }
    }

    /// Feeds the watchdog if every working loop has made progress within its interval.
    pub(crate) fn beat(&mut self, silence: Duration) {
        let Some(interval) = self.watchdog else { return };
        if silence < interval / 2 && self.last_beat.elapsed() >= interval / 4 {
            self.last_beat = Instant::now();
            notify(&[NotifyState::Watchdog]);
        }
    }

    /// Reports that a reload begins; call [`reloaded`](Self::reloaded) afterwards.
    pub(crate) fn reloading(&self) {
        if !self.ready {
            return;
        }
        match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(_) => notify(&[NotifyState::Reloading]),
        }
    }

    /// Reports the end of the reload, successful or not. A start in progress continues.
    pub(crate) fn reloaded(&self) {
        if self.ready {
            notify(&[NotifyState::Ready]);
        }
    }

    /// Reports that the process is stopping.
    pub(crate) fn stopping(&mut self) {
        notify(&[NotifyState::Stopping]);
        self.status("stopping");
    }
}

impl Default for Notifier {
    fn default() -> Self {
        Self::new()
    }
}
