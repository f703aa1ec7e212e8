//! `anomaly score`: the same detector over a file or standard input, no Kafka.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use serde::Serialize;

use crate::anomaly::{Anomaly, Source};
use crate::cli::Score;
use crate::detect::{Detector, Settings, Verdict};
use crate::error::{Error, Result};
use crate::event::{Event, Fields, Instant};
use crate::rule::Figures;
use crate::source::file;
use crate::source::replay::device_of;

/// Records between two signs of progress.
const PROGRESS: u64 = 100_000;

/// A line of `--all`: figures are null before `min_samples`, the time is null when the record has none.
#[derive(Serialize)]
struct Line<'a> {
    device_id: &'a str,
    metric_name: Option<&'a str>,
    metric_value: f64,
    timestamp: Option<Instant>,
    mean: Option<f64>,
    std_dev: Option<f64>,
    z_score: Option<f64>,
    score: Option<f64>,
    is_anomaly: bool,
    source: &'a Source,
}

#[derive(Default)]
struct Counts {
    accepted: u64,
    learning: u64,
    anomalies: u64,
    rejected: u64,
}

/// Reads to the end; anomalies and rejects are no errors.
///
/// # Errors
/// 64 for options that contradict one another, 65 for a table without the column, 66 when the file cannot be read.
pub fn run(options: &Score) -> Result<()> {
    match judge(options, &mut BufWriter::with_capacity(1 << 16, io::stdout().lock())) {
        // Whoever read our output has enough.
        Err(Ended::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(Ended::Output(e)) => Err(Error::unavailable(format_args!("cannot write: {e}"))),
        Err(Ended::Failed(error)) => Err(error),
        Ok(counts) => {
            // Whoever closed standard error does not want to know.
            let _ = writeln!(
                io::stderr(),
                "{} events accepted ({} while learning), {} anomalies, {} records rejected",
                counts.accepted,
                counts.learning,
                counts.anomalies,
                counts.rejected
            );
            Ok(())
        }
    }
}

enum Ended {
    Output(io::Error),
    Failed(Error),
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Ended::Failed(error)
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Ended::Output(error)
    }
}

fn judge(options: &Score, output: &mut impl Write) -> Result<Counts, Ended> {
    if options.min_samples > options.window {
        return Err(Ended::Failed(Error::new(
            crate::error::Kind::Usage,
            format_args!(
                "error: --min-samples {} is more than --window {}: nothing would ever be judged",
                options.min_samples, options.window
            ),
        )));
    }
    let fields = Fields {
        device: options.device_field.clone(),
        metric: options.metric_field.clone(),
        value: options.value_field.clone(),
        time: options.time_field.clone(),
    };
    if let Some((a, b)) = fields.clash() {
        let message = format!("error: the paths `{a}` and `{b}` lead to the same field");
        return Err(Ended::Failed(Error::new(crate::error::Kind::Usage, message)));
    }
    let mut detector = detector(options)?;
    let mut records = file::open(&options.file, options.format, &fields)?;
    if let Some(rejects) = options.rejects.as_deref().and_then(|path| path.canonicalize().ok())
        && Path::new(&options.file).canonicalize().is_ok_and(|input| input == rejects)
    {
        let message = "error: --rejects names the input itself, which would be overwritten";
        return Err(Ended::Failed(Error::new(crate::error::Kind::Usage, message)));
    }
    let mut rejects = options.rejects.as_deref().map(create).transpose()?;
    let device = device_of(&options.file);
    let name = Path::new(&options.file).file_name().map_or("stdin".into(), |name| name.to_string_lossy().into_owned());
    let topic = if options.file == "-" { "stdin".to_owned() } else { name };
    let mut source = Source { topic, partition: 0, offset: 0, index: 0 };
    let mut counts = Counts::default();
    let progress = io::stderr().is_terminal();
    loop {
        let row = records
            .read()
            .map_err(|e| Error::no_input(format_args!("cannot read {} any further: {e}", options.file)))?;
        let Some(row) = row else { break };
        source.offset = row.index;
        match row.event(&fields, &device) {
            Ok(event) => accept(&mut detector, options.all, &source, &event, &mut counts, output)?,
            Err(rejection) => {
                counts.rejected += 1;
                let _ = writeln!(io::stderr(), "{}:{}: {rejection}", options.file, row.line);
                if let Some(rejects) = &mut rejects {
                    rejects.write_all(&row.bytes)?;
                    rejects.write_all(b"\n")?;
                }
            }
        }
        // Nobody takes anything back here; without this the trail would grow with the file.
        detector.commit();
        let seen = counts.accepted + counts.rejected;
        if progress && seen % PROGRESS == 0 {
            eprint!("\r{seen} records");
        }
    }
    if progress && counts.accepted + counts.rejected >= PROGRESS {
        eprint!("\r");
    }
    output.flush()?;
    if let Some(mut rejects) = rejects {
        rejects.flush()?;
    }
    Ok(counts)
}

fn detector(options: &Score) -> Result<Detector> {
    let settings = Settings {
        window: options.window as usize,
        min_samples: options.min_samples as usize,
        method: options.method.clone(),
        threshold: options.threshold,
        ..Settings::default()
    };
    Detector::new(settings).ok_or_else(|| Error::internal(format_args!("no rule is called {}", options.method)))
}

fn create(path: &Path) -> Result<BufWriter<File>> {
    File::create(path)
        .map(BufWriter::new)
        .map_err(|e| Error::unavailable(format_args!("cannot write rejects to {}: {e}", path.display())))
}

fn accept(
    detector: &mut Detector,
    all: bool,
    source: &Source,
    event: &Event<'_>,
    counts: &mut Counts,
    output: &mut impl Write,
) -> io::Result<()> {
    counts.accepted += 1;
    let at = event.timestamp;
    if all {
        let explained = detector.explain(source, event, at);
        counts.learning += u64::from(explained.is_none());
        counts.anomalies += u64::from(explained.as_ref().is_some_and(|(figures, _)| figures.abnormal));
        return line(output, source, event, explained.as_ref().map(|(figures, _)| figures));
    }
    match detector.judge(source, event, at, None) {
        Verdict::Learning => counts.learning += 1,
        Verdict::Normal => {}
        Verdict::Anomalous(anomaly) => {
            counts.anomalies += 1;
            return write_json::<Anomaly>(output, &anomaly);
        }
    }
    Ok(())
}

fn line(output: &mut impl Write, source: &Source, event: &Event<'_>, figures: Option<&Figures>) -> io::Result<()> {
    let line = Line {
        device_id: &event.device_id,
        metric_name: event.metric_name.as_deref(),
        metric_value: event.metric_value,
        timestamp: event.timestamp,
        mean: figures.map(|f| f.mean),
        std_dev: figures.map(|f| f.std_dev),
        z_score: figures.and_then(|f| f.z_score),
        score: figures.map(|f| f.score),
        is_anomaly: figures.is_some_and(|f| f.abnormal),
        source,
    };
    write_json(output, &line)
}

fn write_json<T: Serialize>(output: &mut impl Write, value: &T) -> io::Result<()> {
    serde_json::to_writer(&mut *output, value).map_err(io::Error::from)?;
    output.write_all(b"\n")
}
