//! `anomaly score`: the same detector over a file or standard input, no Kafka.

mod batch;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::sync_channel;

use super::output;
use crate::anomaly::Source;
use crate::cli::Score;
use crate::detect::{Detector, Settings};
use crate::error::{Error, Kind, Result};
use crate::event::Fields;
use crate::source::file;
use crate::source::replay::device_of;
use batch::{Counts, Judged, Judges};

/// Most rows that are judged together.
const BATCH: usize = 16_384;
/// Batches that are read ahead.
const AHEAD: usize = 2;

/// Reads to the end; anomalies and rejects are no errors.
///
/// # Errors
/// 64 for options that contradict one another, 65 for a table without the column, 66 when the file cannot be read.
pub fn run(options: &Score) -> Result<()> {
    let counts = judge(options, &mut BufWriter::with_capacity(1 << 16, output::raw()))?;
    output::note(format_args!(
        "{} events accepted ({} while learning), {} anomalies, {} records rejected",
        counts.accepted, counts.learning, counts.anomalies, counts.rejected
    ));
    Ok(())
}

fn judge(options: &Score, to: &mut impl Write) -> Result<Counts> {
    if options.min_samples > options.window {
        return Err(Error::usage(format_args!(
            "error: --min-samples {} is more than --window {}: nothing would ever be judged",
            options.min_samples, options.window
        )));
    }
    let fields = Fields {
        device: options.device_field.clone(),
        metric: options.metric_field.clone(),
        value: options.value_field.clone(),
        time: options.time_field.clone(),
    };
    if let Some((a, b)) = fields.clash() {
        return Err(Error::usage(format_args!("error: the paths `{a}` and `{b}` lead to the same field")));
    }
    let mut records = file::open(&options.file, options.format, &fields)?;
    if let Some(rejects) = options.rejects.as_deref().and_then(|path| path.canonicalize().ok())
        && Path::new(&options.file).canonicalize().is_ok_and(|input| input == rejects)
    {
        return Err(Error::usage("error: --rejects names the input itself, which would be overwritten"));
    }
    let mut rejects = options.rejects.as_deref().map(create).transpose()?;
    let device = device_of(&options.file);
    let name = Path::new(&options.file).file_name().map_or("stdin".into(), |name| name.to_string_lossy().into_owned());
    let topic = if options.file == "-" { "stdin".to_owned() } else { name };
    let source = Source { topic, partition: 0, offset: 0, index: 0 };
    let mut judges = Judges::new(|| detector(options), fields, device, options.all, source)?;
    let mut counts = Counts::default();
    let (batches, read) = sync_channel(AHEAD);
    // A thread of its own: it reads while we judge, and a pipe may keep silent for as long as it likes.
    std::thread::spawn(move || {
        loop {
            let (rows, then) = records.read_many(BATCH);
            let has_more = matches!(then, Ok(true));
            if batches.send((rows, then)).is_err() || !has_more {
                break;
            }
        }
    });
    let mut next = read.recv().ok();
    while let Some((rows, then)) = next.take() {
        let Judged { lines, rejections } = judges.judge(&rows, &mut counts);
        for (_, line) in lines {
            output::written(to.write_all(&line))?;
        }
        for (at, rejection) in rejections {
            let row = &rows[at];
            output::note(format_args!("{}:{}: {rejection}", options.file, row.line));
            if let Some(rejects) = &mut rejects {
                let written = rejects.write_all(&row.bytes).and_then(|()| rejects.write_all(b"\n"));
                written.map_err(|e| not_kept(options, &e))?;
            }
        }
        output::progress(format_args!("{} records", counts.accepted + counts.rejected));
        then.map_err(|e| Error::no_input(format_args!("cannot read {} any further: {e}", options.file)))?;
        next = match read.try_recv() {
            Ok(batch) => Some(batch),
            Err(_) => {
                // Whoever waits for the rest of a pipe shall see what came so far.
                output::written(to.flush())?;
                read.recv().ok()
            }
        };
    }
    output::progress("");
    output::written(to.flush())?;
    if let Some(mut rejects) = rejects {
        rejects.flush().map_err(|e| not_kept(options, &e))?;
    }
    Ok(counts)
}

fn not_kept(options: &Score, why: &std::io::Error) -> Error {
    let path = options.rejects.as_deref().unwrap_or(Path::new("--rejects"));
    Error::new(Kind::Output, format_args!("cannot write rejects to {}: {why}; the file is incomplete", path.display()))
}

fn detector(options: &Score) -> Result<Detector> {
    let settings = Settings {
        window: options.window as usize,
        min_samples: options.min_samples as usize,
        method: options.method.clone(),
        threshold: options.threshold,
        // A file ends; and what is forgotten must not depend on the number of cores.
        max_series: usize::MAX,
        idle_after: None,
        ..Settings::default()
    };
    Detector::new(settings).ok_or_else(|| Error::internal(format_args!("no rule is called {}", options.method)))
}

fn create(path: &Path) -> Result<BufWriter<File>> {
    File::create(path)
        .map(BufWriter::new)
        .map_err(|e| Error::unavailable(format_args!("cannot write rejects to {}: {e}", path.display())))
}
