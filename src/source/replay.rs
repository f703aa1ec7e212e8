//! Replays a file's events: at their original pace, scaled, or as fast as the broker accepts them. JSON records are
//! sent byte for byte, even if invalid: the detector rejects them. Rows of a table become JSON.

use std::collections::VecDeque;
use std::os::unix::fs::FileTypeExt;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use super::file::{FileOptions, LineCount, RecordBatch, Records, SkippedLines, open};
use super::pace::{Jump, Pace};
use super::reasons::ReasonCounts;
use super::{EventSource, SourceEvent, SourceStep, Writer};
use crate::config::resolved::ProducerSettings;
use crate::error::{Error, ExitKind, Result};
use crate::event::{Decoded, Event, Fields, Parser, Timestamp};
use crate::foreign;

/// Number of records per batch.
const BATCH_RECORDS: usize = 1024;
/// Number of batches that are read ahead.
const BATCHES_AHEAD: usize = 2;
/// Timeout of one wait for the reader, which prevents a busy loop.
const READER_TIMEOUT: Duration = Duration::from_millis(5);

/// The source that replays a file.
pub(crate) struct ReplaySource {
    batches: Receiver<Result<RecordBatch>>,
    batch: Option<RecordBatch>,
    /// Number of records of the batch that were taken.
    taken: usize,
    path: String,
    /// Path of the device, for messages.
    device: String,
    writer: Writer,
    pace: Pace,
    left: u64,
    waiting: Option<(Duration, SourceEvent)>,
    /// Further events of the record, in order.
    more: VecDeque<(Duration, SourceEvent)>,
    report: ReplayReport,
}

/// Numbers for the log at the end.
#[derive(Default)]
struct ReplayReport {
    records: u64,
    reasons: ReasonCounts,
    /// Rows of a table of which something was sent.
    sent: u64,
    /// Rows of a table without a value, or that the settings ignore.
    ignored: LineCount,
    /// Rows whose valid values only were sent.
    partial: LineCount,
    passed: SkippedLines,
    jumps: u64,
    newest: Option<Timestamp>,
    /// Number of events whose time is before that of an earlier event.
    backwards: u64,
    is_logged: bool,
}

impl ReplaySource {
    /// Opens the file and starts its reader.
    ///
    /// # Errors
    /// 66 if it cannot be read, 65 if it is not text, or a table without a required column.
    pub(crate) fn new(settings: &ProducerSettings, fields: &Fields) -> Result<Self> {
        Ok(ReplaySource {
            batches: read(settings, fields)?,
            batch: None,
            taken: 0,
            path: settings.file.clone(),
            device: fields.device.clone(),
            writer: Writer::new(fields),
            pace: Pace::new(settings.speed, settings.max_pause),
            left: if settings.count == 0 { u64::MAX } else { settings.count },
            waiting: None,
            more: VecDeque::new(),
            report: ReplayReport::default(),
        })
    }

    /// Takes the next records. Logs once what the header line says about a table.
    fn take(&mut self, batch: RecordBatch) {
        if self.batch.is_none() {
            let (path, reading) = (&self.path, batch.reading());
            if let Some(device) = reading.only_device() {
                tracing::warn!(
                    "{path} has no column `{}`: all its rows are the device `{}`; fields.device names another column",
                    foreign::name(&self.device),
                    foreign::name(device)
                );
            }
            if let Some(wide) = reading.wide() {
                let text = wide.described(path);
                if wide.skipped().is_empty() { tracing::info!("{text}") } else { tracing::warn!("{text}") }
            }
        }
        self.report.passed.join(batch.passed);
        (self.batch, self.taken) = (Some(batch), 0);
    }

    /// Returns when the next record is due after the start, and the record; `None` for a row that is not an event. The
    /// other events of the row are put into `more`.
    fn sample(&mut self, batch: &RecordBatch) -> Option<(Duration, SourceEvent)> {
        let row = batch.row(self.taken);
        self.report.records += 1;
        let is_table = batch.reading().is_table();
        let decoded = batch.events(self.taken);
        if let Err(rejection) = &decoded
            && is_table
            && self.report.reasons.add(row, rejection.clone())
        {
            let path = &self.path;
            tracing::warn!("{path}:{}: the row is not sent: {rejection}; more of these are counted", row.line);
        }
        if is_table && decoded.as_ref().is_ok_and(Decoded::is_empty) {
            self.report.ignored.add(row.line);
        }
        let events = decoded.unwrap_or(Decoded::Ignored);
        if is_table && events.partial().is_some() {
            self.report.partial.add(row.line);
        }
        if !is_table {
            // It is sent unchanged.
            let first = events.first();
            let key = first.map(|event| event.device_id.as_bytes().to_vec());
            let due = self.due(first, row.line);
            return Some((due, SourceEvent { key, value: row.bytes.to_vec(), label: None }));
        }
        // A row that the settings ignore is not sent.
        let due = self.due(Some(events.first()?), row.line);
        self.report.sent += 1;
        for (_, event) in events.events() {
            let metric = event.metric_name.as_deref();
            let value = self.writer.event(&event.device_id, metric, event.metric_value, event.timestamp);
            let key = Some(event.device_id.as_bytes().to_vec());
            self.more.push_back((due, SourceEvent { key, value, label: None }));
        }
        self.more.pop_front()
    }

    fn due(&mut self, event: Option<&Event<'_>>, line: u64) -> Duration {
        let at = event.and_then(|event| event.timestamp);
        if let Some(at) = at {
            self.report.backwards += u64::from(self.report.newest.is_some_and(|newest| at < newest));
            self.report.newest = self.report.newest.max(Some(at));
        }
        let (due, jump) = self.pace.due(at);
        if let Some(Jump { from, to }) = jump {
            if self.report.jumps == 0 {
                tracing::warn!(
                    "{}:{line}: the time goes from {from} to {to}, further than producer.max_pause; the replay does not \
                     wait for it, nor for others like it, which are counted",
                    self.path
                );
            }
            self.report.jumps += 1;
        }
        due
    }

    /// Returns an error if the file ends and nothing of it was sent.
    fn end(&self) -> Result<()> {
        let (path, ReplayReport { records, sent, .. }) = (&self.path, &self.report);
        let is_table = self.batch.as_ref().is_some_and(|batch| batch.reading().is_table());
        match records {
            0 => Err(Error::data(format_args!("{path} has no record; nothing was sent"))),
            // Other records are sent unchanged.
            all if is_table && *sent == 0 => {
                Err(Error::data(format_args!("none of the {all} rows of {path} is an event; nothing was sent")))
            }
            _ => Ok(()),
        }
    }
}

/// Starts a thread that reads the records, because a pipe may be silent for any time.
fn read(settings: &ProducerSettings, fields: &Fields) -> Result<Receiver<Result<RecordBatch>>> {
    let (sender, receiver) = sync_channel(BATCHES_AHEAD);
    let (path, fields) = (settings.file.clone(), fields.clone());
    let (format, decimal_comma, wide) = (settings.format, settings.decimal_comma, settings.wide);
    let parser = Parser::new(&fields)
        .map_err(|problem| Error::config(format_args!("{}: {}", problem.title, problem.expected)))?;
    let begin = move |path: &str| {
        let usual = Fields::default();
        // A field with another name than the default was named by the user.
        let named = [
            fields.device != usual.device,
            fields.metric != usual.metric,
            fields.value != usual.value,
            fields.time != usual.time,
        ];
        let (fields, parser) = (&fields, &parser);
        open(path, &FileOptions { format, delimiter: None, decimal_comma, wide, fields, parser, named }).map_err(
            |error| match error.kind {
                // Here the settings are wrong, not the command line.
                ExitKind::Usage => Error { kind: ExitKind::Config, ..error },
                _ => error,
            },
        )
    };
    // Errors of a file are reported at the start. Opening a pipe waits for its writer and its first bytes.
    let is_pipe = path == "-" || std::fs::metadata(&path).is_ok_and(|about| about.file_type().is_fifo());
    let opened = if is_pipe { None } else { Some(begin(&path)?) };
    let body = move || match opened.map_or_else(|| begin(&path), Ok) {
        Ok(records) => send(records, &sender),
        // If the receiver is gone, the error has no reader.
        Err(error) => drop(sender.send(Err(error))),
    };
    std::thread::Builder::new()
        .name("replay".into())
        .spawn(body)
        .map_err(|e| Error::internal(format_args!("cannot start a thread: {e}")))?;
    Ok(receiver)
}

/// Sends all records until they end or the receiver is gone.
fn send(mut records: Records, to: &SyncSender<Result<RecordBatch>>) {
    loop {
        let (batch, has_more) = records.batch(BATCH_RECORDS);
        if to.send(Ok(batch)).is_err() {
            return;
        }
        match has_more {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return drop(to.send(Err(error))),
        }
    }
}

impl EventSource for ReplaySource {
    fn next(&mut self, elapsed: Duration) -> Result<SourceStep> {
        while self.waiting.is_none() {
            if self.left == 0 {
                self.log_summary();
                return Ok(SourceStep::End);
            }
            if let Some(next) = self.more.pop_front() {
                self.waiting = Some(next);
                continue;
            }
            if let Some(batch) = self.batch.take_if(|batch| self.taken < batch.len()) {
                self.waiting = self.sample(&batch);
                self.taken += 1;
                self.batch = Some(batch);
                continue;
            }
            match self.batches.try_recv() {
                Ok(Ok(batch)) => self.take(batch),
                Ok(Err(error)) => {
                    self.log_summary();
                    return Err(error);
                }
                Err(TryRecvError::Empty) => return Ok(SourceStep::Wait(READER_TIMEOUT)),
                Err(TryRecvError::Disconnected) => {
                    self.log_summary();
                    self.end()?;
                    return Ok(SourceStep::End);
                }
            }
        }
        match self.waiting.take() {
            Some((due, sample)) if due > elapsed => {
                self.waiting = Some((due, sample));
                Ok(SourceStep::Wait(due - elapsed))
            }
            Some((_, sample)) => {
                self.left -= 1;
                Ok(SourceStep::Event(sample))
            }
            None => Ok(SourceStep::End),
        }
    }

    /// Logs the records that were not sent, once: at the end of the file, of the count, before an error, or at a stop.
    fn log_summary(&mut self) {
        if std::mem::replace(&mut self.report.is_logged, true) {
            return;
        }
        let ReplayReport { reasons, ignored, partial, passed, jumps, backwards, .. } = &self.report;
        let path = &self.path;
        for reason in reasons.all() {
            let (count, first) = (reason.seen.count, reason.seen.first);
            tracing::warn!("{path}: {count} rows were not sent, the first in line {first}: {}", reason.rejection);
        }
        for (seen, what) in [
            (reasons.others(), "rows were not sent for other reasons"),
            (*ignored, "rows have no value or match fields.ignore, and were not sent"),
            (*partial, "rows have invalid values, which were not sent"),
            (passed.comments, "comments were skipped"),
            (passed.headers, "more header lines were skipped"),
        ] {
            if seen.count > 0 {
                tracing::info!("{path}: {} {what}, the first in line {}", seen.count, seen.first);
            }
        }
        if *jumps > 0 {
            tracing::warn!("{path}: {jumps} times were further than producer.max_pause from those before them");
        }
        if *backwards > 0 {
            tracing::warn!(
                "{path}: {backwards} events have an earlier time than one before them; they were sent in the file's order"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{SettingFiles, load};

    fn replay(text: &str, name: &str, speed: f64, fields: &Fields) -> (tempfile::TempDir, ReplaySource) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let mut settings = load(&SettingFiles::default()).unwrap().settings.producer;
        (settings.file, settings.speed) = (path.to_str().unwrap().to_owned(), speed);
        (dir, ReplaySource::new(&settings, fields).unwrap())
    }

    /// Returns the answer once the reader has reached it.
    fn next(replay: &mut ReplaySource, elapsed: Duration) -> SourceStep {
        loop {
            match replay.next(elapsed).unwrap() {
                SourceStep::Wait(READER_TIMEOUT) => std::thread::sleep(READER_TIMEOUT),
                other => return other,
            }
        }
    }

    #[test]
    fn speed_scales_the_original_pace() {
        let text = "{\"device_id\":\"a\",\"metric_value\":1,\"timestamp\":100}\n{\"device_id\":\"a\",\"metric_value\":1,\"timestamp\":110}\n";
        let (_dir, mut replay) = replay(text, "x.jsonl", 10.0, &Fields::default());
        assert!(matches!(next(&mut replay, Duration::ZERO), SourceStep::Event(_)));
        assert_eq!(next(&mut replay, Duration::from_millis(400)), SourceStep::Wait(Duration::from_millis(600)));
        assert!(matches!(next(&mut replay, Duration::from_secs(1)), SourceStep::Event(_)));
        assert_eq!(next(&mut replay, Duration::from_secs(1)), SourceStep::End);
    }

    #[test]
    fn each_value_of_a_wide_row_becomes_an_event() {
        let text = "timestamp,host,temp,hum\n100,a,1.5,40\n110,a,,x\n110,a,,41\n";
        let fields = Fields { device: "host".into(), ..Fields::default() };
        let (_dir, mut rows) = replay(text, "oven.csv", 1.0, &fields);
        let mut sent = Vec::new();
        for seconds in [0, 0, 10] {
            let SourceStep::Event(event) = next(&mut rows, Duration::from_secs(seconds)) else { panic!("an event") };
            assert_eq!(event.key.as_deref(), Some(&b"a"[..]));
            let json = serde_json::from_slice::<serde_json::Value>(&event.value).unwrap();
            sent.push((json["metric_name"].as_str().unwrap().to_owned(), json["metric_value"].as_f64().unwrap()));
        }
        assert_eq!(sent, [("temp".into(), 1.5), ("hum".into(), 40.0), ("hum".into(), 41.0)]);
        assert_eq!(next(&mut rows, Duration::from_secs(10)), SourceStep::End);
        assert_eq!(rows.report.reasons.count(), 1);
    }

    #[test]
    fn lines_pass_byte_for_byte_and_rows_become_json() {
        let (_dir, mut lines) = replay("not json \n", "x.jsonl", 0.0, &Fields::default());
        let expected = SourceEvent { key: None, value: b"not json ".to_vec(), label: None };
        assert_eq!(next(&mut lines, Duration::ZERO), SourceStep::Event(expected));
        let fields = Fields { value: "v.x".into(), ..Fields::default() };
        let (_dir, mut rows) = replay("timestamp,v.x\n2014-04-01 00:00:00,1.25\n", "oven.csv", 0.0, &fields);
        let SourceStep::Event(sample) = next(&mut rows, Duration::ZERO) else { panic!("an event") };
        let text = String::from_utf8(sample.value).unwrap();
        assert_eq!(text, r#"{"device_id":"oven","timestamp":"2014-04-01T00:00:00.000Z","v":{"x":1.25}}"#);
        assert_eq!(sample.key.as_deref(), Some(&b"oven"[..]));
    }
}
