//! Source of the demo: synthetic devices, a file, or this machine. A file is sent at a rate that the in-memory broker
//! accepts. The demo continues after the end of the file, so that the pages stay.

use std::collections::HashSet;
use std::time::Duration;

use super::output;
use crate::cli::Demo;
use crate::config::resolved::SourceKind;
use crate::config::{self, SettingFiles, Settings};
use crate::error::{Error, Result};
use crate::event::{self, Fields, Timestamp};
use crate::foreign;
use crate::role::producer;
use crate::source::{EventSource, SourceStep};

/// Events per second that the in-memory broker accepts.
const BROKER: f64 = 1_000.0;
/// Sections that environment variables may set. The others name the broker and the database, which the demo creates.
const SECTIONS: [&str; 3] = ["PRODUCER", "FIELDS", "DETECTOR"];

/// Returns the settings: from the command line, otherwise from a variable, otherwise defaults that suit a demo.
///
/// # Errors
/// 64 if two fields are the same, 78 if a variable is wrong.
pub(crate) fn settings(options: &Demo) -> Result<Settings> {
    let is_ours = |name: &str| SECTIONS.iter().any(|section| name.starts_with(&format!("ANOMALY__{section}__")));
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| is_ours(name))
        .collect::<Vec<_>>();
    let is_set = |key: &str| env.iter().any(|(name, _)| name == &format!("ANOMALY__{key}"));
    let (has_rate, has_devices) = (is_set("PRODUCER__RATE"), is_set("PRODUCER__DEVICES"));
    let (has_anomaly_rate, has_speed) = (is_set("PRODUCER__ANOMALY_RATE"), is_set("PRODUCER__SPEED"));
    let has_idle = is_set("DETECTOR__IDLE_AFTER");
    let mut settings = config::load(&SettingFiles { env, ..SettingFiles::default() })?.settings;
    let producer = &mut settings.producer;
    if let Some(file) = &options.file {
        (producer.source, producer.file) = (SourceKind::Replay, file.clone());
    } else if options.host {
        producer.source = SourceKind::Host;
    }
    let is_file = producer.source == SourceKind::Replay;
    producer.rate = match options.rate {
        Some(rate) => f64::from(rate),
        None if has_rate => producer.rate.min(BROKER),
        None => {
            if is_file {
                BROKER
            } else {
                200.0
            }
        }
    };
    producer.devices = options.devices.map_or(if has_devices { producer.devices } else { 20 }, u64::from);
    if !has_anomaly_rate {
        producer.anomaly_rate = 0.005;
    }
    if !has_speed {
        producer.speed = 0.0;
    }
    if is_file && !has_idle {
        // The times in the file are unknown: one value per day is also a series.
        settings.detector.idle_after = Duration::ZERO;
    }
    let fields = &mut settings.fields;
    let given = [&options.device_field, &options.metric_field, &options.value_field, &options.time_field];
    for (field, given) in
        [&mut fields.device, &mut fields.metric, &mut fields.value, &mut fields.time].into_iter().zip(given)
    {
        if let Some(path) = given {
            field.clone_from(path);
        }
    }
    match fields.clash() {
        Some((a, b)) => Err(Error::usage(format_args!("the paths `{a}` and `{b}` lead to the same field"))),
        None => Ok(settings),
    }
}

/// Returns a line about the input, and when the first verdicts come.
pub(crate) fn describe(settings: &Settings) -> String {
    let (producer, samples) = (&settings.producer, settings.detector.min_samples as u64);
    match producer.source {
        SourceKind::Generate => {
            let seconds = samples * producer.devices / (producer.rate as u64).max(1) + 1;
            format!(
                "{} a second from {} synthetic devices; judged after {samples} values each, in about {seconds} s",
                producer.rate, producer.devices
            )
        }
        SourceKind::Replay => format!(
            "{}, at most {} a second; judged after {samples} values of each series",
            foreign::name(&producer.file),
            producer.rate
        ),
        SourceKind::Host => {
            let seconds = samples as f64 * producer.interval.as_secs_f64();
            format!("this machine's own metrics; judged after {samples} values each, in about {} s", seconds.ceil())
        }
    }
}

/// Opens the source.
///
/// # Errors
/// As the source.
pub(crate) fn source(settings: &Settings, pages: String) -> Result<Box<dyn EventSource + Send>> {
    let source = producer::source(settings)?;
    if settings.producer.source != SourceKind::Replay {
        return Ok(source);
    }
    let (fields, file) = (settings.fields.clone(), settings.producer.file.clone());
    let per_second = settings.producer.rate;
    Ok(Box::new(Whole { source, per_second, fields, file, pages, seen: SentEvents::default(), has_ended: false }))
}

/// A file from its beginning to its end; it never ends the demo.
struct Whole {
    source: Box<dyn EventSource + Send>,
    per_second: f64,
    fields: Fields,
    file: String,
    /// URL of the dashboard's pages.
    pages: String,
    seen: SentEvents,
    has_ended: bool,
}

/// Counts and times of the sent events.
#[derive(Default)]
struct SentEvents {
    sent: u64,
    events: u64,
    devices: HashSet<String>,
    times: Option<(Timestamp, Timestamp)>,
}

impl EventSource for Whole {
    fn next(&mut self, elapsed: Duration) -> Result<SourceStep> {
        let due = Duration::from_secs_f64(self.seen.sent as f64 / self.per_second);
        if self.has_ended || due > elapsed {
            return Ok(SourceStep::Wait(due.saturating_sub(elapsed).max(Duration::from_millis(10))));
        }
        let next = self.source.next(elapsed)?;
        match &next {
            SourceStep::Event(sample) => self.seen.add(&sample.value, &self.fields),
            SourceStep::Wait(_) => {}
            SourceStep::End => {
                self.has_ended = true;
                output::lines(self.ending()?)?;
                return Ok(SourceStep::Wait(Duration::from_secs(1)));
            }
        }
        Ok(next)
    }
}

impl SentEvents {
    fn add(&mut self, value: &[u8], fields: &Fields) {
        self.sent += 1;
        let Ok(event) = event::decode(Some(value), fields) else { return };
        self.events += 1;
        if self.devices.len() < 10_000 {
            self.devices.insert(event.device_id.to_string());
        }
        if let Some(at) = event.timestamp {
            let (first, last) = self.times.unwrap_or((at, at));
            self.times = Some((first.min(at), last.max(at)));
        }
    }
}

impl Whole {
    /// Reports the file and the URL of its pages, because its times may be far from now.
    fn ending(&self) -> Result<String> {
        let (file, seen) = (foreign::name(&self.file), &self.seen);
        if seen.events == 0 {
            return Err(Error::data(format_args!(
                "no record of {file} is an event, so nothing was judged: name its fields with --value-field, \
                 --device-field and --time-field; `anomaly score {file}` says what is wrong with each record"
            )));
        }
        let rejected = match seen.sent - seen.events {
            0 => String::new(),
            n => format!(", and {n} records that are no events"),
        };
        let mut text =
            format!("{file} was sent whole: {} events of {} devices{rejected}\n", seen.events, seen.devices.len());
        if let Some((first, last)) = seen.times {
            // The end is not part of the time span.
            let after = Timestamp::from_millis(last.millis() + 60_000).unwrap_or(last);
            text += &format!("  its times: {}/?from={first}&to={after}\n", self.pages);
        }
        Ok(text)
    }
}
