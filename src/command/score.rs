//! `anomaly score`: the same detector over a file or standard input, no Kafka.

mod batch;

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::sync::mpsc::sync_channel;

use crate::anomaly::Source;
use crate::cli::Score;
use crate::detect::{Detector, Settings};
use crate::error::{Error, Result};
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
    let source = Source { topic, partition: 0, offset: 0, index: 0 };
    let mut judges = Judges::new(|| detector(options), fields, device, options.all, source)?;
    let mut counts = Counts::default();
    let progress = io::stderr().is_terminal();
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
            output.write_all(&line)?;
        }
        for (at, rejection) in rejections {
            let row = &rows[at];
            let _ = writeln!(io::stderr(), "{}:{}: {rejection}", options.file, row.line);
            if let Some(rejects) = &mut rejects {
                rejects.write_all(&row.bytes)?;
                rejects.write_all(b"\n")?;
            }
        }
        if progress {
            eprint!("\r{} records", counts.accepted + counts.rejected);
        }
        then.map_err(|e| Error::no_input(format_args!("cannot read {} any further: {e}", options.file)))?;
        next = match read.try_recv() {
            Ok(batch) => Some(batch),
            Err(_) => {
                // Whoever waits for the rest of a pipe shall see what came so far.
                output.flush()?;
                read.recv().ok()
            }
        };
    }
    if progress {
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
