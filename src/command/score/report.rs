//! The report at the end, on standard error: each problem once, with its count and its first line.

use super::batch::ScoreCounts;
use super::fields;
use crate::cli::Score;
use crate::command::output;
use crate::error::{Error, Result};
use crate::event::RejectClass;
use crate::foreign;
use crate::source::file::{FileReading, LineCount, RecordBatch, SkippedLines};
use crate::source::reasons::ReasonCounts;

/// Collects the report while the file is judged.
pub(crate) struct ScoreReport<'a> {
    options: &'a Score,
    /// Name of the file for messages.
    file: String,
    /// Counts of the outcomes of the file.
    pub counts: ScoreCounts,
    reasons: ReasonCounts,
    passed: SkippedLines,
    /// Names of the fields of the first records, or of the columns.
    there: Vec<String>,
    is_table: bool,
    /// Device of all rows of a table without a column for it.
    only_device: Option<String>,
    /// Whether a rejected row would be an event with a comma as decimal point.
    needs_comma: bool,
    /// Which columns of a wide table are metrics.
    wide: Option<String>,
    /// Paths that `--ignore` names and that no record has had.
    unseen: Vec<String>,
}

impl<'a> ScoreReport<'a> {
    /// Creates an empty report for these options and this file.
    pub(crate) fn new(options: &'a Score, reading: &FileReading) -> Self {
        ScoreReport {
            options,
            file: if options.file == "-" { "standard input".into() } else { foreign::name(&options.file).to_string() },
            counts: ScoreCounts::default(),
            reasons: ReasonCounts::default(),
            passed: SkippedLines::default(),
            there: Vec::new(),
            is_table: false,
            only_device: None,
            needs_comma: false,
            wide: None,
            unseen: reading.ignored().map(str::to_owned).collect(),
        }
    }

    /// Examines a batch before it is judged.
    pub(crate) fn see(&mut self, batch: &RecordBatch) {
        self.passed.join(batch.passed);
        let reading = batch.reading();
        let has = |path: &String| (0..batch.len()).any(|at| reading.has(batch.row(at).bytes, path));
        self.unseen.retain(|path| !has(path));
        if self.there.is_empty() {
            self.is_table = reading.is_table();
            self.wide = reading.wide().map(|wide| wide.described(&self.file));
            self.only_device = reading.only_device().map(str::to_owned);
            self.there = match reading.columns() {
                [] => fields::of(batch),
                columns => columns.to_vec(),
            };
        }
    }

    /// Counts a rejected record of a batch.
    pub(crate) fn reject(&mut self, batch: &RecordBatch, at: usize, rejection: crate::event::Rejection) {
        let is_value = rejection.class == RejectClass::MetricValue;
        if self.reasons.add(batch.row(at), rejection) && is_value && !self.needs_comma {
            self.needs_comma = batch.reading().is_event_with_comma(batch.row(at).bytes);
        }
    }

    /// Returns the number of records that were read.
    pub(crate) fn records(&self) -> u64 {
        self.counts.judged_records + self.counts.ignored + self.reasons.count() - self.counts.partial
    }

    /// Returns an error if the whole file is unusable.
    ///
    /// # Errors
    /// 65 if there is no event, or if no event has a field that the user named, or no record one that `--ignore` names.
    pub(crate) fn check(&self) -> Result<()> {
        let file = &self.file;
        let what = if self.is_table { "its columns are" } else { "the fields of its records are" };
        let there = match self.there.is_empty() {
            true => String::new(),
            false => format!("; {what}: {}", self.there.join(", ")),
        };
        if self.records() == 0 {
            let what = if self.is_table { "a header line, and no row" } else { "no record" };
            return Err(Error::data(format_args!("{file} has {what}: nothing was judged")));
        }
        if self.counts.accepted == 0 {
            return Err(Error::data(format_args!(
                "none of the {} records of {file} is an event: nothing was judged{there}",
                self.records()
            )));
        }
        if let Some(path) = self.unseen.first() {
            return Err(Error::data(format_args!(
                "`{}`, which --ignore names, is in none of the {} records of {file}{there}",
                foreign::name(path),
                self.records()
            )));
        }
        for (path, option, with) in self.named() {
            if with == 0 {
                return Err(Error::data(format_args!(
                    "`{}`, which {option} names, is in none of the {} events of {file}{there}",
                    foreign::name(path),
                    self.counts.accepted
                )));
            }
        }
        Ok(())
    }

    /// Returns the optional fields that the user named: path, option, and the number of events that have it.
    fn named(&self) -> impl Iterator<Item = (&str, &'static str, u64)> {
        let fields = &self.options.judging.settings.fields;
        let [_, metric, _, time] = self.options.judging.named;
        let named = [
            metric.then_some((fields.metric.as_str(), "--metric-field", self.counts.with_metric)),
            time.then_some((fields.time.as_str(), "--time-field", self.counts.with_time)),
        ];
        named.into_iter().flatten()
    }

    /// Prints the report on standard error.
    pub(crate) fn say(&self) {
        self.say_rejected();
        self.say_skipped();
        self.say_layout();
        self.say_doubts();
        let partial = match self.counts.partial {
            0 => String::new(),
            count => format!(", {count} records judged by their valid values only"),
        };
        output::note(format_args!(
            "{} events accepted ({} while learning), {} anomalies, {} records rejected{partial}",
            self.counts.accepted,
            self.counts.learning,
            self.counts.anomalies,
            self.reasons.count() - self.counts.partial
        ));
    }

    /// Prints the reasons of rejected records, with remedies.
    fn say_rejected(&self) {
        let file = &self.file;
        for reason in self.reasons.all() {
            let more = match reason.seen.count {
                1 => String::new(),
                count => format!(" ({count} records like this)"),
            };
            output::note(format_args!("{file}:{}: {}{more}", reason.seen.first, reason.rejection));
        }
        let others = self.reasons.others();
        self.note(others, "records were rejected for other reasons");
        if self.needs_comma {
            output::note("if a comma is the decimal point of this file: --decimal-comma");
        }
        if self.reasons.all().iter().any(|reason| reason.rejection.class == RejectClass::Utf8) {
            output::note("text that is not UTF-8 may be Latin-1: iconv -f LATIN1 -t UTF-8 converts it");
        }
    }

    /// Prints what was skipped.
    fn say_skipped(&self) {
        if self.counts.ignored > 0 {
            let why = match self.options.judging.settings.fields.ignore.is_empty() {
                true => "without a value",
                false => "that match --ignore or are without a value",
            };
            output::note(format_args!("{}: {} records {why} were skipped", self.file, self.counts.ignored));
        }
        self.note(self.passed.comments, "lines that begin with # were skipped");
        self.note(self.passed.headers, "more lines that repeat the header line were skipped");
    }

    /// Prints how the columns were read, if the user did not name them.
    fn say_layout(&self) {
        if let Some(device) = &self.only_device {
            let column = foreign::name(&self.options.judging.settings.fields.device);
            output::note(format_args!(
                "{} has no column `{column}`: all its rows are the device `{}`; --device-field names another column",
                self.file,
                foreign::name(device)
            ));
        }
        if let Some(wide) = &self.wide {
            output::note(wide);
        }
    }

    /// Prints what may be wrong with the options or with the order of the records.
    fn say_doubts(&self) {
        let accepted = self.counts.accepted;
        for (path, option, with) in self.named().filter(|(_, _, with)| (1..accepted).contains(with)) {
            output::note(format_args!(
                "warning: `{}`, which {option} names, is in {with} of the {accepted} events only",
                foreign::name(path)
            ));
        }
        self.note(
            self.counts.backwards,
            "times are earlier than the one before them in their series, and were judged in the order of the file \
             (--sort judges by time)",
        );
        if accepted > 0 && self.counts.learning == accepted {
            output::note(format_args!(
                "warning: no value was judged: no series has more than {} values (--min-samples)",
                self.options.judging.settings.detector.min_samples
            ));
        }
    }

    fn note(&self, seen: LineCount, what: &str) {
        if seen.count > 0 {
            output::note(format_args!("warning: {}:{}: {} {what}", self.file, seen.first, seen.count));
        }
    }
}
