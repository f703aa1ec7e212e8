//! The producer: publishes a source's events to `raw_events`, and slows down if the broker does.

use std::time::{Duration, Instant as Monotonic};

use super::Supervisor;
use crate::config::Settings;
use crate::config::resolved::SourceKind;
use crate::error::{Error, Result};
use crate::event::Timestamp;
use crate::health::{Component, ComponentState};
use crate::meter::Meter;
use crate::source::generator::Generator;
use crate::source::host::Host;
use crate::source::replay::ReplaySource;
use crate::source::{EventSource, SourceEvent, SourceStep};
use crate::stop::Stop;
use crate::stream::kafka::Publisher;

/// Maximum sleep between two polls of the client.
const NAP: Duration = Duration::from_millis(50);
/// Interval between two checks of states and counters.
const UPDATE_INTERVAL: Duration = Duration::from_millis(250);

/// Starts the producer's thread in the supervisor.
///
/// # Errors
/// The errors of the source.
pub fn start(supervisor: &mut Supervisor, settings: &Settings) -> Result<()> {
    publish(supervisor, settings, source(settings)?)
}

/// Opens the source that the settings name.
///
/// # Errors
/// The errors of the source; 78 if it cannot write the configured fields.
pub fn source(settings: &Settings) -> Result<Box<dyn EventSource + Send>> {
    let (producer, fields) = (&settings.producer, &settings.fields);
    if let Some(wrong) = fields.unwritable().filter(|_| producer.source != SourceKind::Replay) {
        return Err(Error::config(format_args!("{}; {}", wrong.title, wrong.expected)));
    }
    Ok(match producer.source {
        SourceKind::Generate => Box::new(Generator::new(producer, fields, Timestamp::now())),
        SourceKind::Replay => Box::new(ReplaySource::new(producer, fields)?),
        SourceKind::Host => Box::new(Host::new(producer.interval, fields)?),
    })
}

/// Starts a thread that publishes the events of a source.
///
/// # Errors
/// 78 if librdkafka refuses the settings.
pub fn publish(supervisor: &mut Supervisor, settings: &Settings, source: Box<dyn EventSource + Send>) -> Result<()> {
    let publishing = Publishing {
        publisher: Publisher::new(&settings.kafka, &settings.topics.raw_events)?,
        component: supervisor.health.component("publisher"),
        meter: supervisor.meter.clone(),
        stop: supervisor.stop.clone(),
        drain: settings.service.drain_timeout,
        counted: (0, 0),
        unsent: 0,
        updated: Monotonic::now(),
    };
    supervisor.spawn("publisher", move || publishing.run(source))
}

/// State of the publishing thread.
struct Publishing {
    publisher: Publisher,
    component: std::sync::Arc<Component>,
    meter: Meter,
    stop: std::sync::Arc<Stop>,
    drain: Duration,
    counted: (u64, u64),
    /// The event that was not yet sent when the stop came.
    unsent: u64,
    updated: Monotonic,
}

impl Publishing {
    fn run(mut self, mut source: Box<dyn EventSource + Send>) -> Result<()> {
        let began = Monotonic::now();
        while !self.stop.is_requested() && !self.publisher.has_topic() {
            self.update();
            self.stop.wait(NAP);
        }
        // What was sent before an error of the source is delivered all the same.
        let ended = self.send_all(source.as_mut(), began);
        source.log_summary();
        self.finish(ended)
    }

    fn send_all(&mut self, source: &mut dyn EventSource, began: Monotonic) -> Result<()> {
        while !self.stop.is_requested() {
            match source.next(began.elapsed())? {
                SourceStep::Event(sample) => self.send(&sample)?,
                SourceStep::Wait(time) => {
                    self.publisher.poll(Duration::ZERO);
                    // A poll of less than a millisecond would spin.
                    std::thread::sleep(time.min(NAP));
                }
                SourceStep::End => break,
            }
            if self.updated.elapsed() >= UPDATE_INTERVAL {
                self.update();
            }
        }
        Ok(())
    }

    /// Waits for space without a limit: an outage delays events, but loses none.
    fn send(&mut self, sample: &SourceEvent) -> Result<()> {
        while !self.publisher.send(sample.key.as_deref(), &sample.value, sample.label)? {
            self.publisher.poll(NAP);
            self.update();
            if self.stop.is_requested() {
                self.unsent = 1;
                break;
            }
        }
        Ok(())
    }

    fn update(&mut self) {
        self.updated = Monotonic::now();
        self.publisher.poll(Duration::ZERO);
        self.publisher.renew();
        let (delivered, failed, _) = self.publisher.counts();
        self.meter.published.add("delivered", delivered - self.counted.0);
        self.meter.published.add("failed", failed - self.counted.1);
        self.counted = (delivered, failed);
        match self.publisher.trouble() {
            Some(why) => self.component.set(ComponentState::Degraded(why)),
            // Ready once the broker has stored the first event.
            None if delivered > 0 => self.component.set(ComponentState::Running),
            None => self.component.beat(),
        }
    }

    /// Delivers the queued events: after an error of the source, or a stop, within the drain timeout.
    fn finish(mut self, ended: Result<()>) -> Result<()> {
        let began = Monotonic::now();
        let left = if self.stop.is_requested() {
            self.unsent + self.publisher.finish(self.drain)
        } else {
            // The file or the count has ended: deliver everything, however long it takes, unless a stop is requested.
            loop {
                let left = self.publisher.finish(Duration::from_millis(500));
                self.update();
                let is_over = ended.is_err() && began.elapsed() >= self.drain;
                if left == 0 || is_over || self.stop.is_requested() {
                    break left;
                }
            }
        };
        self.update();
        let (delivered, failed, _) = self.publisher.counts();
        tracing::info!(delivered, failed, undelivered = left, "publishing ended");
        ended?;
        if left + failed > 0 {
            return Err(Error::unavailable(format_args!(
                "{left} events were not delivered in time and {failed} were refused; {delivered} were delivered"
            )));
        }
        Ok(())
    }
}
