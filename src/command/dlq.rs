//! `anomaly dlq`: lists, shows and replays dead letters.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use super::output;
use crate::cli::{DeadLetterPosition, DeadLetterSelection, Dlq};
use crate::config::Settings;
use crate::config::resolved::KafkaSettings;
use crate::error::{Error, Result};
use crate::foreign;
use crate::stream::dead_letters::{self, DeadLetterReplayer, RejectedRecord};
use crate::stream::topics;

/// Maximum number of characters of a message or a key in a line.
const WIDTH: usize = 60;
/// Maximum number of bytes of a value, a key or a header that `show` prints.
const SHOWN: usize = 4_096;

/// Runs the subcommand.
///
/// # Errors
/// 69 if Kafka is unavailable or refuses, 66 if there is no such dead letter.
pub fn run(settings: &Settings, command: &Dlq) -> Result<()> {
    match command {
        Dlq::List { pick, limit } => list(settings, pick, *limit),
        Dlq::Show { letter, value } => show(settings, *letter, *value),
        Dlq::Replay { pick, dry_run } => replay(settings, pick, *dry_run),
    }
}

impl DeadLetterSelection {
    fn matches(&self, letter: &RejectedRecord) -> bool {
        let is_of_class =
            self.class.is_empty() || letter.header("class").is_some_and(|c| self.class.iter().any(|k| k == c));
        let is_after = self.from.is_none_or(|from| letter.at.is_some_and(|at| at >= from));
        let is_before = self.to.is_none_or(|to| letter.at.is_some_and(|at| at < to));
        is_of_class && is_after && is_before
    }
}

fn list(settings: &Settings, pick: &DeadLetterSelection, limit: usize) -> Result<()> {
    let (mut classes, mut shown, mut replayed, mut null) = (BTreeMap::<String, u64>::new(), 0, 0, 0_u64);
    dead_letters::read(&settings.kafka, &settings.topics, |letter| {
        if !pick.matches(&letter) {
            return Ok(());
        }
        *classes.entry(letter.header("class").unwrap_or("?").to_owned()).or_default() += 1;
        replayed += u64::from(letter.replayed.is_some());
        null += u64::from(letter.is_null());
        if shown < limit {
            line(&letter, shown == 0)?;
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

fn line(letter: &RejectedRecord, is_first: bool) -> Result<()> {
    if is_first {
        output::line(format_args!(
            "{:<12} {:<24} {:<15} {:<28} {:<24} MESSAGE",
            "LETTER", "REJECTED AT", "CLASS", "FROM", "REPLAYED"
        ))?;
    }
    // Headers of a foreign record can contain anything.
    let header = |name| foreign::name(letter.header(name).unwrap_or("?")).to_string();
    let replayed = match &letter.replayed {
        Some(at) => at,
        None if letter.is_null() => "never: null value",
        None => "-",
    };
    output::line(format_args!(
        "{:<12} {:<24} {:<15} {:<28} {:<24} {}",
        format!("{}:{}", letter.partition, letter.offset),
        letter.at.map(|at| at.to_string()).unwrap_or_default(),
        header("class"),
        format!("{}[{}]@{}", header("topic"), header("partition"), header("offset")),
        replayed,
        foreign::bytes(letter.header("message").unwrap_or("?").as_bytes(), WIDTH),
    ))
}

fn show(settings: &Settings, place: DeadLetterPosition, value_only: bool) -> Result<()> {
    let mut found = None;
    dead_letters::read(&settings.kafka, &settings.topics, |letter| {
        if (letter.partition, letter.offset) == (place.partition, place.offset) {
            found = Some(letter);
        }
        Ok(())
    })?;
    let letter = found.ok_or_else(|| {
        let topic = &settings.topics.dead_letter;
        Error::no_input(format_args!(
            "{topic} has no dead letter {}:{}; `anomaly dlq list` shows them",
            place.partition, place.offset
        ))
    })?;
    output::written(print(&letter, value_only))
}

fn print(letter: &RejectedRecord, value_only: bool) -> io::Result<()> {
    let mut out = output::raw();
    if value_only {
        return out.write_all(letter.value.as_deref().unwrap_or_default());
    }
    writeln!(out, "rejected at  {}", letter.at.map(|at| at.to_string()).unwrap_or_default())?;
    writeln!(out, "sent again   {}", letter.replayed.as_deref().unwrap_or("no"))?;
    let shown = |value: &Option<Vec<u8>>| match value {
        None => "(null)".to_owned(),
        Some(bytes) => foreign::bytes(bytes, SHOWN).to_string(),
    };
    for (name, value) in letter.said() {
        writeln!(out, "{:<12} {}", foreign::name(name).to_string(), shown(value))?;
    }
    for (name, value) in letter.own_headers() {
        writeln!(out, "header       {}: {}", foreign::name(name), shown(value))?;
    }
    let text = |part: &Option<Vec<u8>>| match part {
        None => "(null)".to_owned(),
        Some(bytes) => match bytes.split_at_checked(SHOWN) {
            Some((shown, rest)) if !rest.is_empty() => {
                format!("{}… ({} bytes; show --value prints them all)", shown.escape_ascii(), bytes.len())
            }
            _ => bytes.escape_ascii().to_string(),
        },
    };
    writeln!(out, "key          {}", text(&letter.key))?;
    writeln!(out, "value        {}", text(&letter.value))
}

/// Warns about the effect of a topic's compaction on replayed records.
fn warn_of_compaction(kafka: &KafkaSettings, topic: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::internal)?;
    if let Some(hazard) = runtime.block_on(topics::replay_hazard(kafka, topic))? {
        output::note(format_args!("warning: {hazard}"));
    }
    Ok(())
}

fn replay(settings: &Settings, pick: &DeadLetterSelection, dry_run: bool) -> Result<()> {
    let (kafka, topics) = (&settings.kafka, &settings.topics);
    // A later replay fences an earlier one: two replays never send the same dead letter.
    let name = format!("{}-dlq", settings.detector.group);
    let mut sender = if dry_run { None } else { Some(DeadLetterReplayer::new(kafka, topics, &name)?) };
    let (mut chosen, mut before, mut cut, mut unknown, mut null) = (0_u64, 0_u64, 0_u64, 0_u64, 0_u64);
    let mut partial = 0_u64;
    let mut looked_at = BTreeSet::new();
    dead_letters::read(kafka, topics, |letter| {
        match () {
            () if !pick.matches(&letter) => {}
            () if letter.replayed.is_some() => before += 1,
            () if letter.is_null() => null += 1,
            () if letter.is_partial() => partial += 1,
            () if letter.is_cut() => cut += 1,
            () if letter.header("topic").is_none_or(str::is_empty) => unknown += 1,
            () => {
                chosen += 1;
                let to = letter.header("topic").unwrap_or_default();
                if !looked_at.contains(to) {
                    looked_at.insert(to.to_owned());
                    warn_of_compaction(kafka, to)?;
                }
                if let Some(sender) = &mut sender {
                    sender.send(letter)?;
                    if chosen % 1_000 == 0 {
                        output::progress(format_args!("{} sent again", sender.sent));
                    }
                }
            }
        }
        Ok(())
    })?;
    match &mut sender {
        Some(sender) => {
            sender.flush()?;
            output::progress("");
            output::line(format_args!("{} dead letters were sent again", sender.sent))?;
        }
        None => output::line(format_args!("{chosen} dead letters would be sent again"))?,
    }
    if before > 0 {
        output::line(format_args!("{before} were skipped: they had been sent again before"))?;
    }
    if cut > 0 {
        output::line(format_args!("{cut} were truncated when they were rejected, and cannot be sent again"))?;
    }
    if null > 0 {
        output::line(format_args!(
            "{null} have a null value (a tombstone), and are never sent again: in a compacted topic they would delete newer records"
        ))?;
    }
    if partial > 0 {
        output::line(format_args!(
            "{partial} were judged by their valid values, and are never sent again: these would be judged twice"
        ))?;
    }
    if unknown > 0 {
        output::line(format_args!("{unknown} records were skipped: they do not name the topic that they came from"))?;
    }
    Ok(())
}
