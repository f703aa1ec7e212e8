//! `anomaly score`: runs the detector over a file or standard input, without Kafka.

mod batch;
mod feed;
mod fields;
mod order;
mod print;
mod report;
mod sort;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::Receiver;

use super::output;
use crate::anomaly::{FIRST_GENERATION, RecordId};
use crate::cli::{OutputForm, Score};
use crate::detect::{DetectionSettings, Detector};
use crate::error::{Error, ExitKind, Result};
use crate::event::Parser;
use crate::source::file::{self, BatchRow, FileOptions};
use batch::{JudgedBatch, ParallelDetectors};
use feed::FedBatch;
use print::ResultWriter;
use report::ScoreReport;

/// Reads and judges the whole input; anomalies and rejected records are not errors.
///
/// # Errors
/// 64 for options that contradict each other, 65 for data that cannot be read or contains no event, 66 if the file
/// cannot be read, 74 if the output cannot be written.
pub fn run(options: &Score) -> Result<()> {
    let settings = &options.judging.settings;
    let parser = usable(options)?;
    let records = file::open(
        &options.file,
        &FileOptions {
            format: options.format,
            delimiter: options.delimiter,
            decimal_comma: options.decimal_comma,
            wide: options.wide,
            fields: &settings.fields,
            parser: &parser,
            named: options.judging.named,
        },
    )?;
    let print = ResultWriter {
        is_all: options.all,
        is_table: match options.output {
            OutputForm::Auto => output::is_terminal(),
            form => form == OutputForm::Table,
        },
    };
    let name = Path::new(&options.file).file_name().map_or("stdin".into(), |name| name.to_string_lossy().into_owned());
    let topic = if options.file == "-" { "stdin".to_owned() } else { name };
    let source = RecordId { topic, generation: FIRST_GENERATION, partition: 0, offset: 0, index: 0 };
    let mut scoring = Scoring {
        judges: ParallelDetectors::new(|| detector(settings.detection()), print, source)?,
        report: ScoreReport::new(options, records.reading()),
        rejects: options.rejects.as_deref().map(Rejects::create).transpose()?,
        to: BufWriter::with_capacity(1 << 16, output::raw()),
        print: Some(print),
        is_closed: false,
    };
    let end = scoring.judge_all(&feed::start(records, options.sort)?);
    output::progress("");
    if end.as_ref().is_err_and(|error| matches!(error.kind, ExitKind::Closed | ExitKind::Output)) {
        return end;
    }
    scoring.report.say();
    end
}

/// Checks that the options do not contradict each other; returns the parser of the records.
fn usable(options: &Score) -> Result<Parser> {
    let settings = &options.judging.settings;
    if settings.detector.min_samples > settings.detector.window {
        return Err(Error::usage(format_args!(
            "--min-samples {} is more than --window {}: nothing would ever be judged",
            settings.detector.min_samples, settings.detector.window
        )));
    }
    if let Some((a, b)) = settings.fields.clash() {
        return Err(Error::usage(format_args!("the paths `{a}` and `{b}` lead to the same field")));
    }
    if options.wide && (options.judging.named[1] || options.judging.named[2]) {
        return Err(Error::usage(
            "--wide reads each numeric column as a metric: name no --metric-field or --value-field",
        ));
    }
    let parser = Parser::new(&settings.fields)
        .map_err(|problem| Error::usage(format_args!("{}: {}", problem.title, problem.expected)))?;
    if options.rejects.as_deref().is_some_and(|rejects| is_input(rejects, &options.file)) {
        return Err(Error::usage("--rejects names the input itself, which would be overwritten"));
    }
    if options.rejects.as_deref().is_some_and(output::is_output) {
        return Err(Error::usage("--rejects names the file of standard output: both would be mixed"));
    }
    Ok(parser)
}

struct Scoring<'a, W: Write> {
    judges: ParallelDetectors,
    report: ScoreReport<'a>,
    rejects: Option<Rejects<'a>>,
    to: BufWriter<W>,
    /// Present until the header is written.
    print: Option<ResultWriter>,
    /// Whether the reader has closed the output. The file of rejects is completed without it.
    is_closed: bool,
}

impl<W: Write> Scoring<'_, W> {
    fn judge_all(&mut self, from: &Receiver<FedBatch>) -> Result<()> {
        let mut next = from.recv().ok();
        while let Some((batch, then)) = next.take() {
            self.report.see(&batch);
            let JudgedBatch { lines, rejections } = self.judges.judge(&batch, &mut self.report.counts);
            for (at, rejection) in rejections {
                if let Some(rejects) = &mut self.rejects {
                    rejects.write(batch.row(at))?;
                }
                self.report.reject(&batch, at, rejection);
            }
            // Warnings come before verdicts that may be wrong, as far as they are known by now.
            let problem = matches!(then, Ok(false)).then(|| self.report.check());
            let is_all = self.report.records() == batch.len() as u64;
            if !(is_all && matches!(problem, Some(Err(_)))) {
                let written = self.write(&lines);
                self.unless_closed(written)?;
            }
            output::progress(format_args!("{} records", self.report.records()));
            next = match from.try_recv() {
                Ok(batch) => Some(batch),
                Err(_) => {
                    // A reader of the pipe sees the results so far while it waits.
                    self.flush()?;
                    from.recv().ok()
                }
            };
            then?;
            problem.transpose()?;
        }
        self.flush()?;
        if self.is_closed { Err(Error::new(ExitKind::Closed, "")) } else { Ok(()) }
    }

    fn write(&mut self, lines: &[batch::ResultLine]) -> Result<()> {
        if self.is_closed || lines.is_empty() {
            return Ok(());
        }
        let is_terminal = output::is_terminal();
        if is_terminal {
            // The lines begin where the progress stands.
            output::progress("");
        }
        if let Some(print) = self.print.take() {
            output::written(self.to.write_all(print.header().as_bytes()))?;
        }
        lines.iter().try_for_each(|(_, line)| output::written(self.to.write_all(line)))?;
        // The next progress must follow a whole line.
        if is_terminal { output::written(self.to.flush()) } else { Ok(()) }
    }

    /// Continues after the reader has closed the output, if rejected records go to a file: it would lack those that were
    /// not read.
    fn unless_closed(&mut self, written: Result<()>) -> Result<()> {
        match written {
            Err(error) if error.kind == ExitKind::Closed && self.rejects.is_some() => {
                self.is_closed = true;
                Ok(())
            }
            written => written,
        }
    }

    fn flush(&mut self) -> Result<()> {
        if !self.is_closed {
            let flushed = output::written(self.to.flush());
            self.unless_closed(flushed)?;
        }
        self.rejects.as_mut().map_or(Ok(()), Rejects::flush)
    }
}

/// Returns whether the file of rejects is the input, under any name.
fn is_input(rejects: &Path, input: &str) -> bool {
    let file = match input {
        "-" => std::io::stdin().as_fd().try_clone_to_owned().and_then(|stdin| File::from(stdin).metadata()),
        path => std::fs::metadata(path),
    };
    // A terminal may be standard input and receive the rejects.
    let file = file.ok().filter(|file| input != "-" || file.is_file());
    let rejects = std::fs::metadata(rejects).ok();
    file.zip(rejects).is_some_and(|(file, rejects)| (file.dev(), file.ino()) == (rejects.dev(), rejects.ino()))
}

fn detector(settings: DetectionSettings) -> Result<Detector> {
    let method = settings.policy.method.clone();
    // No series is evicted, because evictions must not depend on the number of cores.
    Detector::new(DetectionSettings { max_series: usize::MAX, idle_after: None, ..settings })
        .ok_or_else(|| Error::internal(format_args!("no method is called {method}")))
}

/// The file of `--rejects`, which receives rejected records.
struct Rejects<'a> {
    path: &'a Path,
    to: BufWriter<File>,
}

impl<'a> Rejects<'a> {
    fn create(path: &'a Path) -> Result<Self> {
        File::create(path)
            .map(|file| Rejects { path, to: BufWriter::new(file) })
            .map_err(|e| Error::unavailable(format_args!("cannot write rejects to {}: {e}", path.display())))
    }

    fn write(&mut self, row: BatchRow<'_>) -> Result<()> {
        let written = self.to.write_all(row.bytes).and_then(|()| self.to.write_all(b"\n"));
        written.map_err(|e| self.incomplete(&e))
    }

    fn flush(&mut self) -> Result<()> {
        self.to.flush().map_err(|e| self.incomplete(&e))
    }

    fn incomplete(&self, why: &std::io::Error) -> Error {
        let path = self.path.display();
        Error::new(ExitKind::Output, format_args!("cannot write rejects to {path}: {why}; the file is incomplete"))
    }
}
