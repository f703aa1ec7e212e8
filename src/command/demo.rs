//! `anomaly demo`: the whole pipeline with nothing set up: all roles in this process, on librdkafka's in-memory broker and
//! a private PostgreSQL that is removed at the end.

mod cluster;

use std::sync::Arc;
use std::time::Duration;

use rdkafka::mocking::MockCluster;

use super::output;
use crate::cli::Demo;
use crate::command::migrate;
use crate::config::resolved::{Delivery, Keep, Listen, SourceKind, Start};
use crate::config::{self, Places, Settings};
use crate::error::{Error, Result};
use crate::event::Instant;
use crate::page::listener;
use crate::role::{self, Crew, detector};
use crate::service::logging;
use crate::service::signals::{self, Second};
use crate::stop::Stop;

use cluster::Cluster;

/// Runs until it is interrupted.
///
/// # Errors
/// 69 when PostgreSQL's programs are missing or the address is taken.
pub fn run(options: &Demo) -> Result<()> {
    let mut settings = config::load(&Places::default())?.settings;
    // Before anything is started, so that a taken port costs nothing.
    drop(listener::bind(options.listen)?);
    settings.log.level = "warn".into();
    logging::start(&settings.log, "demo")?;
    let signals = signals::listen(Second::Waits)?;

    output::line("anomaly demo: all roles in one process")?;
    output::line(
        "  broker      in memory (librdkafka's mock): it forgets everything at the end, and proves no guarantee",
    )?;
    let broker = MockCluster::new(1).map_err(|e| Error::internal(format_args!("cannot start the broker: {e}")))?;
    for topic in [&settings.topics.raw_events, &settings.topics.anomalies, &settings.topics.dead_letter] {
        broker.create_topic(topic, 4, 1).map_err(|e| Error::internal(format_args!("cannot create {topic}: {e}")))?;
    }
    let database = Cluster::start()?;
    output::line(format_args!("  PostgreSQL  private, in {}: removed at the end", database.directory().display()))?;
    choose(&mut settings, options, broker.bootstrap_servers(), &database);
    migrate::apply(&settings.postgres)?;
    output::line(format_args!(
        "  events      {} a second from {} devices; judged after {} values each, in about {} s",
        options.rate,
        options.devices,
        settings.detector.min_samples,
        settings.detector.min_samples as u64 * u64::from(options.devices) / u64::from(options.rate) + 1
    ))?;

    let mut crew = Crew::default();
    let stop = crew.stop.clone();
    detector::start(&mut crew, &settings, print(stop.clone()))?;
    role::producer::start(&mut crew, &settings)?;
    role::dashboard::start(&mut crew, &settings)?;
    let address = format_args!("  dashboard   http://{}/", options.listen);
    if output::lines(format_args!("{address}\nCtrl-C ends it. Anomalies:\n")).is_err() {
        // In order: threads have been started.
        stop.request();
    }
    // SIGHUP: the terminal is gone.
    let ended = crew.supervise(&signals, &settings, || stop.request());
    let told = output::lines("\nending: PostgreSQL and everything in it is removed\n");
    drop(database);
    ended.and(told)
}

/// One line for each anomaly, as it is found. When nobody reads them any more, that is the end.
fn print(stop: Arc<Stop>) -> detector::Announce {
    Arc::new(move |anomaly| {
        let at = anomaly.timestamp.unwrap_or_else(Instant::now).to_string();
        let label = anomaly.label.as_deref().map(|label| format!("  [injected: {label}]")).unwrap_or_default();
        if output::line(format_args!("{}  {}{label}", &at[11..23], detector::describe(anomaly))).is_err() {
            stop.request();
        }
    })
}

/// The in-memory broker knows no transactions, one worker is what it can keep up with.
fn choose(settings: &mut Settings, options: &Demo, broker: String, database: &Cluster) {
    settings.kafka.bootstrap_servers = broker;
    settings.metrics.listen = Listen::Off;
    settings.service.drain_timeout = Duration::from_secs(2);
    database.settings(&mut settings.postgres);
    // The partitions that the schema begins with; an end must not wait for more.
    settings.postgres.retention = Duration::from_secs(28 * 86_400);
    settings.detector.delivery = Delivery::AtLeastOnce;
    settings.detector.state = Keep::History;
    settings.detector.workers = 1;
    settings.detector.start = Start::Earliest;
    settings.producer.source = SourceKind::Generate;
    settings.producer.rate = f64::from(options.rate);
    settings.producer.devices = u64::from(options.devices);
    settings.producer.anomaly_rate = 0.005;
    settings.dashboard.listen = Listen::At(options.listen);
    // Whoever names an address that others reach means it.
    settings.dashboard.insecure = !options.listen.ip().is_loopback();
    settings.dashboard.refresh = Duration::from_secs(2);
}
