//! `anomaly offsets`: lists the committed offsets of the detector's group, and sets or accepts them while the group is
//! stopped. It also lets the sink continue in a recreated topic.

mod sink;

use super::output;
use crate::cli::{OffsetChoice, Offsets, PartitionChoice};
use crate::config::Settings;
use crate::detect::Detector;
use crate::error::{Error, Result};
use crate::role::detector;
use crate::stream::client::{CommittedOffset, Fault, Remedy};
use crate::stream::worker::{OffsetChange, OffsetReport, OffsetTarget, accept_offsets, list_offsets, set_offsets};

/// Lists the offsets, or changes them.
///
/// # Errors
/// 65 if the partition or the offset does not exist, or the stored windows cannot be trusted; 69 if Kafka is unavailable or
/// refuses, as while a detector runs.
pub fn run(settings: &Settings, action: Option<&Offsets>) -> Result<()> {
    if let Some(Offsets::Accept { sink: true }) = action {
        return sink::accept(settings);
    }
    let mut client = detector::client_for_offsets(settings)?;
    let Some(action) = action else {
        let reports = list_offsets(&mut client).map_err(Error::unavailable)?;
        output::line(format_args!(
            "{:>9} {:>14} {:>14} {:>14}  COMMITTED BY",
            "PARTITION", "COMMITTED", "START", "END"
        ))?;
        return reports.iter().try_for_each(print);
    };
    let windows = Detector::new(settings.detection())
        .ok_or_else(|| Error::config(format_args!("detector.method `{}` is unknown", settings.detector.method)))?;
    let mut count = 0;
    let note = |change: &OffsetChange| {
        count += 1;
        output::line(describe(&settings.topics.raw_events, change)).map_err(Stopped::ByOutput)
    };
    let done = match action {
        Offsets::Set { partition, offset } => {
            let partition = match partition {
                PartitionChoice::All => None,
                PartitionChoice::One(partition) => Some(*partition),
            };
            let target = match offset {
                OffsetChoice::Earliest => OffsetTarget::Earliest,
                OffsetChoice::Latest => OffsetTarget::Latest,
                OffsetChoice::At(offset) => OffsetTarget::At(*offset),
            };
            set_offsets(&mut client, settings, &windows, partition, target, note)
        }
        Offsets::Accept { .. } => accept_offsets(&mut client, settings, &windows, note),
    };
    done.map_err(|stopped| stopped.into_error(settings, count))?;
    if count == 0 {
        output::line("nothing to accept: a start continues at each of the committed offsets")?;
    }
    Ok(())
}

/// Why the changes ended early.
enum Stopped {
    ByFault(Fault),
    ByOutput(Error),
}

impl From<Fault> for Stopped {
    fn from(fault: Fault) -> Self {
        Stopped::ByFault(fault)
    }
}

impl Stopped {
    /// Returns the error; `count` partitions were changed before.
    fn into_error(self, settings: &Settings, count: usize) -> Error {
        let changed = match count {
            0 => "nothing was changed".to_owned(),
            count => format!("{count} partitions were changed, as printed"),
        };
        match self {
            Stopped::ByOutput(error) => error,
            Stopped::ByFault(fault) if fault.remedy == Remedy::Stop => Error::data(format_args!("{fault}; {changed}")),
            Stopped::ByFault(fault) => Error::unavailable(format_args!(
                "{fault}; {changed}. Stop every detector of group {}, wait for detector.session_timeout, and run the \
                 command again",
                settings.detector.group
            )),
        }
    }
}

fn print(report: &OffsetReport) -> Result<()> {
    let (offset, by) = match report.standing {
        CommittedOffset::At(progress) => (progress.offset.to_string(), "a detector".to_owned()),
        CommittedOffset::New | CommittedOffset::Added { .. } => ("-".to_owned(), "-".to_owned()),
        CommittedOffset::Earlier(offset) => {
            (offset.to_string(), "another program, before the first detector".to_owned())
        }
        CommittedOffset::Foreign { offset, was: None } => (offset.to_string(), "another program".to_owned()),
        CommittedOffset::Foreign { offset, was: Some(was) } => {
            (offset.to_string(), format!("another program, with the metadata of offset {}", was.offset))
        }
    };
    let OffsetReport { partition, bounds, .. } = report;
    output::line(format_args!("{partition:>9} {offset:>14} {:>14} {:>14}  {by}", bounds.start, bounds.end))
}

/// Describes a change in one line.
fn describe(topic: &str, change: &OffsetChange) -> String {
    let OffsetChange { partition, last, next, is_state_deleted } = change;
    let offset = next.offset;
    let from = last.map(|last| format!(" instead of {}", last.offset)).unwrap_or_default();
    let counts = match last {
        Some(last) if offset > last.offset => format!(": {} records count as skipped", offset - last.offset),
        Some(last) if offset < last.offset => {
            format!(": {} records are judged again, and the counts begin again", last.offset - offset)
        }
        _ => String::new(),
    };
    let windows = if *is_state_deleted { ". Windows are read back from the input" } else { "" };
    format!("{topic} [{partition}] continues at offset {offset}{from}{counts}{windows}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::progress::Progress;

    #[test]
    fn a_change_says_what_happens_to_the_records_between_the_offsets() {
        let at = |offset| Progress { offset, ..Progress::default() };
        let text = |last: Option<i64>, next, is_state_deleted| {
            describe("raw", &OffsetChange { partition: 2, last: last.map(at), next: at(next), is_state_deleted })
        };
        assert_eq!(text(None, 7, false), "raw [2] continues at offset 7");
        assert_eq!(text(Some(5), 7, false), "raw [2] continues at offset 7 instead of 5: 2 records count as skipped");
        let back = "raw [2] continues at offset 5 instead of 7: 2 records are judged again, and the counts begin again. \
                    Windows are read back from the input";
        assert_eq!(text(Some(7), 5, true), back);
    }
}
