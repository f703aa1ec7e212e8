//! `anomaly dlq`: lists, shows and replays dead letters, and skips records that cannot be read.

mod skip;

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::output;
use crate::cli::{DeadLetterPosition, DeadLetterSelection, Dlq};
use crate::config::Settings;
use crate::config::resolved::KafkaSettings;
use crate::error::{Error, ExitKind, Result};
use crate::foreign;
use crate::service::signals::{self, ProcessSignal, SecondSignal};
use crate::stream::dead_letters::{self, DeadLetterReplayer, RefusedDeadLetters, RejectedRecord};
use crate::stream::topics;

/// Maximum number of characters of a message or a key in a line.
const WIDTH: usize = 60;
/// Maximum number of bytes of a value, a key or a header that `show` prints.
const MAX_SHOWN_BYTES: usize = 4_096;
/// Maximum number of dead letters of an unknown origin that `replay` names.
const MAX_NAMED: usize = 10;

/// Runs the subcommand.
///
/// # Errors
/// 69 if a service is unavailable or refuses, 66 if there is no such dead letter. 75 if a signal ended a replay. 65 in
/// these cases:
/// - A dead letter was not sent again, because it is not of the input topic, or because the topic refuses it.
/// - The dead letters cannot be read at an offset.
/// - The records to skip can be read, or are not the next ones.
pub fn run(settings: &Settings, command: &Dlq) -> Result<()> {
    match command {
        Dlq::List { pick, limit } => list(settings, pick, *limit),
        Dlq::Show { letter: place, value } => show(settings, *place, *value),
        Dlq::Replay { pick, dry_run } => replay(settings, pick, *dry_run),
        Dlq::Skip { topic, partition, offset } => skip::skip(settings, topic, *partition, *offset),
    }
}

impl DeadLetterSelection {
    fn matches(&self, dead_letter: &RejectedRecord) -> bool {
        let is_of_class =
            self.class.is_empty() || dead_letter.header("class").is_some_and(|c| self.class.iter().any(|k| k == c));
        let is_after = self.from.is_none_or(|from| dead_letter.at.is_some_and(|at| at >= from));
        let is_before = self.to.is_none_or(|to| dead_letter.at.is_some_and(|at| at < to));
        is_of_class && is_after && is_before
    }
}

fn list(settings: &Settings, pick: &DeadLetterSelection, limit: usize) -> Result<()> {
    let (mut classes, mut shown, mut replayed, mut null) = (BTreeMap::<String, u64>::new(), 0, 0, 0_u64);
    dead_letters::read(&settings.kafka, &settings.topics, |dead_letter| {
        if !pick.matches(&dead_letter) {
            return Ok(());
        }
        *classes.entry(dead_letter.header("class").unwrap_or("?").to_owned()).or_default() += 1;
        replayed += u64::from(dead_letter.replayed.is_some());
        null += u64::from(dead_letter.is_null());
        if shown < limit {
            line(&dead_letter, shown == 0)?;
        }
        shown += 1;
        Ok(())
    })?;
    let total = classes.values().sum::<u64>();
    if total == 0 {
        output::note("no dead letters");
        return Ok(());
    }
    let classes = classes.iter().map(|(class, n)| format!("{n} {class}")).collect::<Vec<_>>().join(", ");
    output::note(format_args!("{total} dead letters: {classes}; {replayed} of them were sent again"));
    if null > 0 {
        output::note(format_args!("{null} of them are null values (tombstones), which are never sent again"));
    }
    if shown > limit {
        output::note(format_args!("the first {limit} are shown; --limit shows more"));
    }
    Ok(())
}

/// Returns a header of a dead letter for a line. Headers of a foreign record can contain anything.
fn header(dead_letter: &RejectedRecord, name: &str) -> String {
    foreign::name(dead_letter.header(name).unwrap_or("?")).to_string()
}

/// Returns the place of the rejected record, as the dead letter's headers give it.
fn origin(dead_letter: &RejectedRecord) -> String {
    let [topic, partition, offset] = ["topic", "partition", "offset"].map(|name| header(dead_letter, name));
    format!("{topic}[{partition}]@{offset}")
}

fn line(dead_letter: &RejectedRecord, is_first: bool) -> Result<()> {
    if is_first {
        output::line(format_args!(
            "{:<12} {:<24} {:<15} {:<28} {:<24} MESSAGE",
            "LETTER", "REJECTED AT", "CLASS", "FROM", "REPLAYED"
        ))?;
    }
    let replayed = match &dead_letter.replayed {
        Some(at) => at,
        None if dead_letter.is_batch() => "never: oversized batch",
        None if dead_letter.is_null() => "never: null value",
        None => "-",
    };
    output::line(format_args!(
        "{:<12} {:<24} {:<15} {:<28} {:<24} {}",
        format!("{}:{}", dead_letter.partition, dead_letter.offset),
        dead_letter.at.map(|at| at.to_string()).unwrap_or_default(),
        header(dead_letter, "class"),
        origin(dead_letter),
        replayed,
        foreign::bytes(dead_letter.header("message").unwrap_or("?").as_bytes(), WIDTH),
    ))
}

fn show(settings: &Settings, place: DeadLetterPosition, value_only: bool) -> Result<()> {
    let mut found = None;
    dead_letters::read(&settings.kafka, &settings.topics, |dead_letter| {
        if (dead_letter.partition, dead_letter.offset) == (place.partition, place.offset) {
            found = Some(dead_letter);
        }
        Ok(())
    })?;
    let dead_letter = found.ok_or_else(|| {
        let topic = &settings.topics.dead_letter;
        Error::no_input(format_args!(
            "{topic} has no dead letter {}:{}; `anomaly dlq list` shows them",
            place.partition, place.offset
        ))
    })?;
    output::written(print(&dead_letter, value_only))
}

fn print(dead_letter: &RejectedRecord, value_only: bool) -> io::Result<()> {
    let mut out = output::raw();
    if value_only {
        return out.write_all(dead_letter.value.as_deref().unwrap_or_default());
    }
    writeln!(out, "rejected at  {}", dead_letter.at.map(|at| at.to_string()).unwrap_or_default())?;
    writeln!(out, "sent again   {}", dead_letter.replayed.as_deref().unwrap_or("no"))?;
    let shown = |value: &Option<Vec<u8>>| match value {
        None => "(null)".to_owned(),
        Some(bytes) => foreign::bytes(bytes, MAX_SHOWN_BYTES).to_string(),
    };
    for (name, value) in dead_letter.said() {
        writeln!(out, "{:<12} {}", foreign::name(name).to_string(), shown(value))?;
    }
    for (name, value) in dead_letter.own_headers() {
        writeln!(out, "header       {}: {}", foreign::name(name), shown(value))?;
    }
    let text = |part: &Option<Vec<u8>>| match part {
        None => "(null)".to_owned(),
        Some(bytes) => match bytes.split_at_checked(MAX_SHOWN_BYTES) {
            Some((shown, rest)) if !rest.is_empty() => {
                format!("{}… ({} bytes; show --value prints them all)", shown.escape_ascii(), bytes.len())
            }
            _ => bytes.escape_ascii().to_string(),
        },
    };
    writeln!(out, "key          {}", text(&dead_letter.key))?;
    writeln!(out, "value        {}", text(&dead_letter.value))
}

/// Warns about the effect of a topic's compaction on replayed records.
fn warn_of_compaction(kafka: &KafkaSettings, topic: &str) -> Result<()> {
    if let Some(hazard) = topics::replay_hazard(kafka, topic)? {
        output::note(format_args!("warning: {hazard}"));
    }
    Ok(())
}

/// Lists the first places of this number of dead letters.
fn named(count: u64, places: &[String]) -> String {
    match count.saturating_sub(places.len() as u64) {
        0 => places.join(", "),
        more => format!("{} and {more} more", places.join(", ")),
    }
}

/// What a replay does with the selected dead letters: their numbers, and the places of those of an unknown origin.
#[derive(Default)]
struct ReplayCounts {
    chosen: u64,
    before: u64,
    cut: u64,
    null: u64,
    partial: u64,
    elsewhere: u64,
    /// The first places of the dead letters that are counted in `elsewhere`.
    places: Vec<String>,
    batches: u64,
    /// The first places of the dead letters that are counted in `batches`.
    batch_places: Vec<String>,
}

impl ReplayCounts {
    /// Counts a dead letter; returns whether it is sent to `topic`, which has this number of partitions.
    fn chooses(&mut self, dead_letter: &RejectedRecord, topic: &str, partitions: usize) -> bool {
        match () {
            () if dead_letter.replayed.is_some() => self.before += 1,
            () if dead_letter.is_batch() => {
                self.batches += 1;
                if self.batch_places.len() < MAX_NAMED {
                    self.batch_places.push(format!(
                        "{}:{} from {}",
                        dead_letter.partition,
                        dead_letter.offset,
                        origin(dead_letter)
                    ));
                }
            }
            () if dead_letter.is_null() => self.null += 1,
            () if dead_letter.is_partial() => self.partial += 1,
            () if dead_letter.is_cut() => self.cut += 1,
            () if !dead_letter.is_from(topic, partitions) => {
                self.elsewhere += 1;
                if self.places.len() < MAX_NAMED {
                    self.places.push(format!(
                        "{}:{} from {}",
                        dead_letter.partition,
                        dead_letter.offset,
                        origin(dead_letter)
                    ));
                }
            }
            () => {
                self.chosen += 1;
                return true;
            }
        }
        false
    }

    /// Prints the numbers of the dead letters that are not sent, with the reasons.
    fn print(&self, topic: &str) -> Result<()> {
        for (count, reason) in [
            (self.before, "were skipped: they had been sent again before".to_owned()),
            (self.cut, "were truncated when they were rejected, and cannot be sent again".to_owned()),
            (
                self.null,
                "have a null value (a tombstone), and are never sent again: in a compacted topic they would delete newer \
                 records"
                    .to_owned(),
            ),
            (
                self.partial,
                "were judged by their valid values, and are never sent again: these would be judged twice".to_owned(),
            ),
            (
                self.batches,
                format!(
                    "are about oversized batches, and do not have their records: {}",
                    named(self.batches, &self.batch_places)
                ),
            ),
            (self.elsewhere, format!("were skipped: their headers do not name a partition of {topic}")),
        ] {
            if count > 0 {
                output::line(format_args!("{count} {reason}"))?;
            }
        }
        Ok(())
    }

    /// Fails if dead letters were not sent because of their origin, or because a topic refuses them.
    fn verify(&self, topic: &str, refused: &RefusedDeadLetters) -> Result<()> {
        let mut problems = Vec::new();
        if refused.count > 0 {
            let places = named(refused.count, &refused.places);
            problems.push(format!("{} dead letters were refused and not sent: {places}", refused.count));
        }
        if self.elsewhere > 0 {
            let places = named(self.elsewhere, &self.places);
            problems.push(format!(
                "{} dead letters are not of {topic} (topics.raw_events), and are not sent anywhere else: {places}",
                self.elsewhere
            ));
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::data(format_args!("{}; `anomaly dlq show` prints one", problems.join(". "))))
    }
}

fn replay(settings: &Settings, pick: &DeadLetterSelection, dry_run: bool) -> Result<()> {
    let (kafka, topics) = (&settings.kafka, &settings.topics);
    // Headers of a dead letter can be foreign text. Only our own input topic is written to.
    let input = &topics.raw_events;
    let Some(partitions) = topics::partitions(kafka, input)? else {
        return Err(Error::unavailable(format_args!("topic {input} does not exist; `anomaly topics` creates it")));
    };
    // A later replay fences an earlier one: two replays never send the same dead letter.
    let name = format!("{}-dlq", settings.detector.group);
    let mut sender = if dry_run { None } else { Some(DeadLetterReplayer::new(kafka, topics, &name)?) };
    let mut counts = ReplayCounts::default();
    let mut signals = None;
    let read = dead_letters::read(kafka, topics, |dead_letter| {
        if !pick.matches(&dead_letter) || !counts.chooses(&dead_letter, input, partitions) {
            return Ok(());
        }
        if counts.chosen == 1 {
            warn_of_compaction(kafka, input)?;
        }
        if let Some(sender) = &mut sender {
            // Before the first dead letter is sent, a signal ends the process at once.
            let signals = match &mut signals {
                Some(signals) => signals,
                None => signals.insert(signals::listen(SecondSignal::Ends)?),
            };
            if signals.try_iter().any(|signal| signal == ProcessSignal::Stop) {
                let message = "stopped by a signal; the next `anomaly dlq replay` sends the other dead letters";
                return Err(Error::new(ExitKind::Interrupted, message));
            }
            sender.send(dead_letter)?;
            if counts.chosen.is_multiple_of(1_000) {
                output::progress(format_args!("{} sent again", sender.sent));
            }
        }
        Ok(())
    });
    let mut refused = RefusedDeadLetters::default();
    let ended = match &mut sender {
        Some(sender) => {
            let ended = read.and_then(|()| sender.flush());
            output::progress("");
            // The number is printed also when the replay ended early.
            output::line(format_args!("{} dead letters were sent again", sender.sent))?;
            refused = std::mem::take(&mut sender.refused);
            ended
        }
        None => {
            read?;
            output::line(format_args!("{} dead letters would be sent again", counts.chosen))
        }
    };
    counts.print(input)?;
    // Both reasons are printed. The one that ended the replay determines the exit code.
    match (ended, counts.verify(input, &refused)) {
        (Err(ended), Err(Error { message, .. })) => {
            Err(Error::new(ended.kind, format_args!("{}. {message}", ended.message)))
        }
        (ended, verified) => ended.and(verified),
    }
}
