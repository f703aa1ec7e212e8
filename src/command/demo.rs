//! `anomaly demo`: runs all roles in this process without any set-up, on librdkafka's in-memory broker and a private
//! PostgreSQL that is removed at the end.

mod cluster;
mod feed;

use std::sync::Arc;
use std::time::Duration;

use rdkafka::mocking::MockCluster;

use super::output;
use crate::cli::Demo;
use crate::command::migrate;
use crate::config::Settings;
use crate::config::resolved::{Delivery, ListenAddress, SourceKind, StartPosition, StateKeeping};
use crate::error::{Error, Result};
use crate::event::Timestamp;
use crate::http;
use crate::role::{self, Supervisor, detector};
use crate::service::logging;
use crate::service::signals::{self, SecondSignal};
use crate::stop::Stop;

use cluster::DemoDatabase;

/// Runs until it is interrupted.
///
/// # Errors
/// 69 if PostgreSQL's programs are missing or the address is in use.
pub fn run(options: &Demo) -> Result<()> {
    let mut settings = feed::settings(options)?;
    let pages = format!("http://{}", options.listen);
    // Checked before anything starts, so that a used port and a wrong file fail fast.
    drop(http::bind(options.listen)?);
    let source = feed::source(&settings, pages.clone())?;
    settings.log.level = "warn".into();
    logging::start(&settings.log, "demo")?;
    let signals = signals::listen(SecondSignal::Waits)?;

    output::line("anomaly demo: all roles in one process")?;
    output::line(
        "  broker      in memory (librdkafka's mock): it forgets everything at the end, and proves no guarantee",
    )?;
    let broker = MockCluster::new(1).map_err(|e| Error::internal(format_args!("cannot start the broker: {e}")))?;
    for topic in [&settings.topics.raw_events, &settings.topics.anomalies, &settings.topics.dead_letter] {
        broker.create_topic(topic, 4, 1).map_err(|e| Error::internal(format_args!("cannot create {topic}: {e}")))?;
    }
    let database = DemoDatabase::start()?;
    output::line(format_args!("  PostgreSQL  private, in {}: removed at the end", database.directory().display()))?;
    choose(&mut settings, options, broker.bootstrap_servers(), &database);
    migrate::apply(&settings.postgres)?;
    output::line(format_args!("  events      {}", feed::describe(&settings)))?;

    let mut supervisor = Supervisor::default();
    let stop = supervisor.stop.clone();
    detector::start(&mut supervisor, &settings, print(stop.clone(), settings.producer.source != SourceKind::Replay))?;
    role::producer::publish(&mut supervisor, &settings, source)?;
    role::dashboard::start(&mut supervisor, &settings)?;
    if output::lines(format_args!("  dashboard   {pages}/\nCtrl-C ends it. Anomalies:\n")).is_err() {
        // Threads are running: stop them in order.
        stop.request();
    }
    // SIGHUP: the terminal was closed.
    let ended = supervisor.supervise(&signals, &settings, || stop.request());
    let printed = output::lines("\nending: PostgreSQL and everything in it is removed\n");
    drop(database);
    ended.and(printed)
}

/// Prints one line for each anomaly, as it is found. Ends the demo if nothing reads the lines.
fn print(stop: Arc<Stop>, is_live: bool) -> detector::Announce {
    Arc::new(move |anomaly| {
        let at = anomaly.timestamp.unwrap_or_else(Timestamp::now).to_string();
        // The date is left out, because it is today's.
        let at = if is_live { at.get(11..23).unwrap_or(&at) } else { &at };
        let label = anomaly.label.as_deref().map(|label| format!("  [injected: {label}]")).unwrap_or_default();
        if output::line(format_args!("{at}  {}{label}", detector::describe(anomaly))).is_err() {
            stop.request();
        }
    })
}

/// The in-memory broker has no transactions, and can keep up with only one worker.
fn choose(settings: &mut Settings, options: &Demo, broker: String, database: &DemoDatabase) {
    settings.kafka.bootstrap_servers = broker;
    settings.metrics.listen = ListenAddress::Off;
    settings.service.drain_timeout = Duration::from_secs(2);
    database.settings(&mut settings.postgres);
    // The partitions that the schema creates are enough, and more would delay the end.
    settings.postgres.retention = Duration::from_secs(28 * 86_400);
    settings.detector.delivery = Delivery::AtLeastOnce;
    settings.detector.state = StateKeeping::History;
    settings.detector.workers = 1;
    settings.detector.start = StartPosition::Earliest;
    settings.dashboard.listen = ListenAddress::At(options.listen);
    // A user who names a network address wants to allow access from it.
    settings.dashboard.insecure = !options.listen.ip().is_loopback();
    settings.dashboard.refresh = Duration::from_secs(2);
}
