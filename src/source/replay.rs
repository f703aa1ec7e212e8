//! A file's events again, at their original pace, scaled, or as fast as they are taken. JSON Lines pass byte for byte,
//! well-formed or not: what is not an event is for the detector to reject. A table's rows become JSON.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use super::file::{Row, open};
use super::{Next, Sample, Source, Writer};
use crate::config::resolved::{FileFormat, Producer};
use crate::error::{Error, Result};
use crate::event::{Fields, Instant};

/// Rows that are read ahead.
const AHEAD: usize = 4096;
/// Before the reader is asked again.
const PATIENCE: Duration = Duration::from_millis(5);

/// See the module.
pub struct Replay {
    rows: Receiver<Result<Row>>,
    path: String,
    /// Of a table without a device column.
    device: String,
    fields: Fields,
    writer: Writer,
    speed: f64,
    left: u64,
    first: Option<Instant>,
    waiting: Option<(Duration, Sample)>,
}

impl Replay {
    /// Opens the file.
    ///
    /// # Errors
    /// 66 when it cannot be read, 65 when a table lacks the value's column.
    pub fn new(settings: &Producer, fields: &Fields) -> Result<Self> {
        Ok(Replay {
            rows: read(&settings.file, settings.format, fields)?,
            path: settings.file.clone(),
            device: device_of(&settings.file),
            fields: fields.clone(),
            writer: Writer::new(fields),
            speed: settings.speed,
            left: if settings.count == 0 { u64::MAX } else { settings.count },
            first: None,
            waiting: None,
        })
    }

    /// When it is due after the start, and what it is; `None` for a table's row that is no event.
    fn sample(&mut self, row: &Row) -> Option<(Duration, Sample)> {
        let event = match row.event(&self.fields, &self.device) {
            Ok(event) => Some(event),
            Err(rejection) if row.is_table() => {
                tracing::warn!("{} line {}: not sent: {rejection}", self.path, row.line);
                return None;
            }
            Err(_) => None,
        };
        let at = event.as_ref().and_then(|event| event.timestamp);
        let due = match (at, self.speed > 0.0) {
            (Some(at), true) => {
                let first = *self.first.get_or_insert(at);
                Duration::from_secs_f64(((at.millis() - first.millis()).max(0) as f64 / 1000.0 / self.speed).min(1e9))
            }
            _ => Duration::ZERO,
        };
        let key = event.as_ref().map(|event| event.device_id.as_bytes().to_vec());
        let value = match (&event, row.is_table()) {
            (Some(event), true) => {
                let metric = event.metric_name.as_deref();
                self.writer.event(&event.device_id, metric, event.metric_value, event.timestamp)
            }
            _ => row.bytes.clone(),
        };
        Some((due, Sample { key, value, label: None }))
    }
}

/// Rows as they are read, by a thread of their own: a pipe may keep silent for as long as it likes.
fn read(path: &str, format: FileFormat, fields: &Fields) -> Result<Receiver<Result<Row>>> {
    let (sender, receiver) = sync_channel(AHEAD);
    let (path, fields) = (path.to_owned(), fields.clone());
    // A file's errors are told at the start; opening a pipe waits for its first bytes.
    let opened = if path == "-" { None } else { Some(open(&path, format, &fields)?) };
    let body = move || {
        let failed = |sender: &SyncSender<Result<Row>>, error| {
            let _ = sender.send(Err(error));
        };
        let mut records = match opened.map_or_else(|| open(&path, format, &fields), Ok) {
            Ok(records) => records,
            Err(error) => return failed(&sender, error),
        };
        loop {
            match records.read() {
                Ok(Some(row)) => {
                    // Nobody listens any more.
                    if sender.send(Ok(row)).is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(e) => {
                    let error = Error::no_input(format_args!("cannot read {path} any further: {e}"));
                    return failed(&sender, error);
                }
            }
        }
    };
    std::thread::Builder::new()
        .name("replay".into())
        .spawn(body)
        .map_err(|e| Error::internal(format_args!("cannot start a thread: {e}")))?;
    Ok(receiver)
}

/// A file's name without directory and extension.
pub fn device_of(path: &str) -> String {
    if path == "-" {
        return "stdin".into();
    }
    Path::new(path).file_stem().map_or_else(|| path.to_owned(), |stem| stem.to_string_lossy().into_owned())
}

impl Source for Replay {
    fn next(&mut self, elapsed: Duration) -> Result<Next> {
        while self.waiting.is_none() {
            if self.left == 0 {
                return Ok(Next::End);
            }
            match self.rows.try_recv() {
                Ok(row) => self.waiting = self.sample(&row?),
                Err(TryRecvError::Empty) => return Ok(Next::Wait(PATIENCE)),
                Err(TryRecvError::Disconnected) => return Ok(Next::End),
            }
        }
        match self.waiting.take() {
            Some((due, sample)) if due > elapsed => {
                self.waiting = Some((due, sample));
                Ok(Next::Wait(due - elapsed))
            }
            Some((_, sample)) => {
                self.left -= 1;
                Ok(Next::Event(sample))
            }
            None => Ok(Next::End),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Places, load};

    fn replay(text: &str, name: &str, speed: f64, fields: &Fields) -> (tempfile::TempDir, Replay) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let mut settings = load(&Places::default()).unwrap().settings.producer;
        (settings.file, settings.speed) = (path.to_str().unwrap().to_owned(), speed);
        (dir, Replay::new(&settings, fields).unwrap())
    }

    /// The answer once the reader has come so far.
    fn next(replay: &mut Replay, elapsed: Duration) -> Next {
        loop {
            match replay.next(elapsed).unwrap() {
                Next::Wait(PATIENCE) => std::thread::sleep(PATIENCE),
                other => return other,
            }
        }
    }

    #[test]
    fn speed_scales_the_original_pace() {
        let text = "{\"device_id\":\"a\",\"metric_value\":1,\"timestamp\":100}\n{\"device_id\":\"a\",\"metric_value\":1,\"timestamp\":110}\n";
        let (_dir, mut replay) = replay(text, "x.jsonl", 10.0, &Fields::default());
        assert!(matches!(next(&mut replay, Duration::ZERO), Next::Event(_)));
        assert_eq!(next(&mut replay, Duration::from_millis(400)), Next::Wait(Duration::from_millis(600)));
        assert!(matches!(next(&mut replay, Duration::from_secs(1)), Next::Event(_)));
        assert_eq!(next(&mut replay, Duration::from_secs(1)), Next::End);
    }

    #[test]
    fn lines_pass_byte_for_byte_and_rows_become_json() {
        let (_dir, mut lines) = replay("not json \n", "x.jsonl", 0.0, &Fields::default());
        let expected = Sample { key: None, value: b"not json ".to_vec(), label: None };
        assert_eq!(next(&mut lines, Duration::ZERO), Next::Event(expected));
        let fields = Fields { value: "v.x".into(), ..Fields::default() };
        let (_dir, mut rows) = replay("timestamp,v.x\n2014-04-01 00:00:00,1.25\n", "oven.csv", 0.0, &fields);
        let Next::Event(sample) = next(&mut rows, Duration::ZERO) else { panic!("an event") };
        let text = String::from_utf8(sample.value).unwrap();
        assert_eq!(text, r#"{"device_id":"oven","timestamp":"2014-04-01T00:00:00.000Z","v":{"x":1.25}}"#);
        assert_eq!(sample.key.as_deref(), Some(&b"oven"[..]));
    }
}
