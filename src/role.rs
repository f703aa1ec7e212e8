//! Runs the roles. Only roles and commands wire: they pass settings to the edges and connect them.
//!
//! A role starts its threads in a [`Supervisor`]; [`run`] supervises them for the service manager.

pub mod dashboard;
pub mod detector;
pub mod files;
mod name;
pub mod producer;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;

use crate::config::{self, Loaded, SettingFiles, Settings};
use crate::error::{Error, Result};
use crate::health::Health;
use crate::http::{self, Bound, Handler, Request, Response};
use crate::meter::{Meter, ProcessRole};
use crate::service::endpoint::Endpoint;
use crate::service::logging;
use crate::service::notify::Notifier;
use crate::service::signals::{self, ProcessSignal, SecondSignal};
use crate::stop::Stop;
pub use name::Role;

/// Interval between two checks of signals, threads and health.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Time for the threads to end after the drain timeout.
const GRACE: Duration = Duration::from_secs(1);
/// A smaller change of the clock is normal synchronisation.
const JUMP: Duration = Duration::from_secs(5);

/// Starts and supervises the threads of a process, and owns the state that they share.
#[derive(Default)]
pub struct Supervisor {
    /// The request to stop, shared by all threads.
    pub stop: Arc<Stop>,
    /// States of all components of the process.
    pub health: Arc<Health>,
    /// Counters of all components of the process.
    pub meter: Meter,
    /// Callbacks that read files again on reload.
    pub reloads: Vec<Box<dyn Fn()>>,
    threads: Vec<(String, JoinHandle<Result<()>>)>,
}

impl Supervisor {
    /// Starts a thread. When it ends, the process ends.
    ///
    /// # Errors
    /// 70 if the system refuses a thread.
    pub fn spawn(&mut self, name: &str, body: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)
            .map_err(|e| Error::internal(format_args!("cannot start a thread: {e}")))?;
        self.threads.push((name.to_owned(), thread));
        Ok(())
    }

    /// Serves HTTP until a stop is requested.
    ///
    /// # Errors
    /// The errors of [`spawn`](Self::spawn).
    pub fn serve(&mut self, name: &str, bound: Bound, handler: Arc<Handler>, drain: Duration) -> Result<()> {
        let (sender, stopped) = oneshot::channel();
        let stop = self.stop.clone();
        self.spawn(&format!("{name}-stop"), move || {
            while !stop.wait(Duration::from_secs(3600)) {}
            drop(sender);
            Ok(())
        })?;
        // Pages are fast; the other half of the time is for the rest of the process.
        self.spawn(name, move || bound.serve(handler, stopped, drain / 2))
    }

    /// Joins a thread that has ended; returns its result.
    fn reap(&mut self) -> Option<Result<()>> {
        let at = self.threads.iter().position(|(_, thread)| thread.is_finished())?;
        let (name, thread) = self.threads.swap_remove(at);
        Some(thread.join().unwrap_or_else(|_| Err(Error::internal(format_args!("thread {name} panicked")))))
    }

    /// Supervises the threads until they end: signals, readiness, status, watchdog, reload and stop.
    ///
    /// # Errors
    /// The first error of a thread.
    pub fn supervise(
        mut self,
        signals: &Receiver<ProcessSignal>,
        settings: &Settings,
        mut reload: impl FnMut(),
    ) -> Result<()> {
        let mut notifier = Notifier::new();
        let began = Instant::now();
        let mut clock = Clock::new();
        let mut outcome = Ok(());
        while !self.stop.is_requested() {
            match signals.recv_timeout(CHECK_INTERVAL) {
                Ok(ProcessSignal::Stop) => self.stop.request(),
                Ok(ProcessSignal::Reload) => {
                    notifier.reloading();
                    reload();
                    self.reloads.iter().for_each(|again| again());
                    notifier.reloaded();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(CHECK_INTERVAL),
            }
            while let Some(ended) = self.reap() {
                outcome = outcome.and(ended);
                self.stop.request();
            }
            let (is_ready, mut summary) = (self.health.is_ready(), self.health.summary());
            let is_late = began.elapsed() >= settings.service.ready_timeout;
            if is_late && !is_ready && !self.health.is_degraded() {
                // It reports ready only so that the boot does not hang; the status says that it does not serve yet.
                summary.insert_str(0, "degraded: ");
            }
            notifier.status(&summary);
            if is_ready || is_late {
                notifier.ready();
            } else if !notifier.is_ready() {
                notifier.extend(Duration::from_secs(10));
            }
            notifier.beat(self.health.silence());
            clock.check();
        }
        notifier.stopping();
        tracing::info!("stopping");
        let deadline = settings.service.drain_timeout + GRACE;
        while !self.threads.is_empty() && self.stop.elapsed().is_some_and(|elapsed| elapsed < deadline) {
            match self.reap() {
                Some(ended) => outcome = outcome.and(ended),
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        for (name, _) in &self.threads {
            tracing::warn!(
                "thread {name} did not end in time; its uncommitted work will be repeated after the next start"
            );
        }
        outcome
    }
}

/// Compares the wall clock with a monotonic clock. Delivery and windows do not depend on the wall clock, but times on
/// the pages do.
struct Clock {
    wall: SystemTime,
    steady: Instant,
}

impl Clock {
    fn new() -> Self {
        Clock { wall: SystemTime::now(), steady: Instant::now() }
    }

    /// Logs a jump since the last call.
    fn check(&mut self) {
        let expected = self.wall + self.steady.elapsed();
        *self = Clock::new();
        let (seconds, way) = match self.wall.duration_since(expected) {
            Ok(ahead) => (ahead, "forward"),
            Err(behind) => (behind.duration(), "back"),
        };
        if seconds > JUMP {
            tracing::warn!(
                seconds = seconds.as_secs(),
                "the clock jumped {way} by {} s; verdicts do not depend on it, times on the pages do",
                seconds.as_secs()
            );
        }
    }
}

/// Runs a role until a stop is requested.
///
/// # Errors
/// The error that ended it.
pub fn run(role: Role, loaded: &Loaded, places: &SettingFiles) -> Result<()> {
    let settings = &loaded.settings;
    configured(role, loaded, places)?;
    let doubts = files::usable(settings, role.file())?;
    let log = logging::start(&settings.log, role.name())?;
    let signals = signals::listen(SecondSignal::Ends)?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "{} starts", role.name());
    log_notices(loaded);
    for doubt in doubts {
        tracing::warn!("{}: {}", doubt.what, doubt.text);
    }
    let mut supervisor = Supervisor::default();
    if let Some(address) = settings.metrics.listen.or(endpoint_address(role)) {
        endpoint(&mut supervisor, process(role), address, settings.service.drain_timeout)?;
    }
    match role {
        Role::Producer => producer::start(&mut supervisor, settings)?,
        Role::Detector => detector::start(&mut supervisor, settings, detector::announce_in_log(settings))?,
        Role::Dashboard => dashboard::start(&mut supervisor, settings)?,
    }
    let ended = supervisor.supervise(&signals, settings, || reload(loaded, places, &log));
    match &ended {
        Ok(()) => tracing::info!("stopped"),
        Err(error) => log_lines(error),
    }
    ended
}

fn process(role: Role) -> ProcessRole {
    match role {
        Role::Producer => ProcessRole::Producer,
        Role::Detector => ProcessRole::Detector,
        Role::Dashboard => ProcessRole::Dashboard,
    }
}

/// Checks that the required settings are set.
///
/// # Errors
/// 78 with the missing settings and their places, in one line.
pub fn configured(role: Role, loaded: &Loaded, places: &SettingFiles) -> Result<()> {
    let (needs, name) = (loaded.missing(role.file(), &places.dir), role.name());
    if needs.is_empty() {
        return Ok(());
    }
    let needs = needs.join(", and ");
    Err(Error::config(format_args!("anomaly-{name} needs {needs}; then: systemctl enable --now anomaly-{name}")))
}

/// Returns the default address of the role's endpoint.
fn endpoint_address(role: Role) -> SocketAddr {
    let port = match role {
        Role::Producer => 9464,
        Role::Detector => 9465,
        Role::Dashboard => 9466,
    };
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Starts the endpoint with `/healthz`, `/readyz` and `/metrics`.
fn endpoint(supervisor: &mut Supervisor, process: ProcessRole, address: SocketAddr, drain: Duration) -> Result<()> {
    let bound = http::bind(address)?;
    let endpoint = Endpoint::new(process, supervisor.health.clone(), &supervisor.meter);
    let handler = move |request: Request| match endpoint.answer(&request.path, &request.list("accept")) {
        Some(_) if request.method == hyper::Method::POST => {
            let mut response = Response::text(405, "only GET and HEAD are allowed\n");
            response.headers.push(("allow", "GET, HEAD".to_owned()));
            response
        }
        Some((status, kind, body)) => Response {
            status,
            headers: vec![
                ("content-type", kind.to_owned()),
                ("vary", "accept".to_owned()),
                ("cache-control", "no-store".to_owned()),
            ],
            body: hyper::body::Bytes::from(body).into(),
        },
        None => Response::text(404, "not found; the paths are /healthz, /readyz and /metrics\n"),
    };
    supervisor.serve("endpoint", bound, Arc::new(handler), drain)
}

/// Logs the files that exist and are not used.
fn log_notices(loaded: &Loaded) {
    loaded.notices.iter().for_each(|notice| tracing::warn!("{notice}"));
}

/// Logs each line of a report as one line; any other error as one line.
fn log_lines(error: &Error) {
    match error.is_report {
        true => error.message.lines().for_each(|line| tracing::error!("{line}")),
        false => tracing::error!("{error}"),
    }
}

/// Reads the settings again. Wrong ones change nothing; of valid ones, the log level takes effect at once.
fn reload(loaded: &Loaded, places: &SettingFiles, log: &logging::LevelHandle) {
    match config::load(places) {
        Err(error) => {
            tracing::error!("settings not reloaded, the old ones stay in effect:");
            log_lines(&error);
        }
        Ok(new) => {
            log.set_level(&new.settings.log.level);
            log_notices(&new);
            let waiting = loaded.changed(&new).into_iter().filter(|path| path != "log.level").collect::<Vec<_>>();
            if waiting.is_empty() {
                tracing::info!("settings reloaded");
            } else {
                tracing::warn!("settings reloaded; these take effect after a restart: {}", waiting.join(", "));
            }
        }
    }
}
