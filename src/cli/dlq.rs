//! The subcommands of `anomaly dlq`, and their options.

use clap::Subcommand;

use crate::event::{RejectClass, Timestamp};

/// Subcommands of `anomaly dlq`, which handle dead letters.
#[derive(Debug, Clone, Subcommand)]
pub enum Dlq {
    /// Print one line per dead letter, and the number of each class
    List {
        /// Options that select dead letters
        #[command(flatten)]
        pick: DeadLetterSelection,
        /// Maximum number of lines
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Print one dead letter completely
    Show {
        /// Partition and offset in the dead-letter topic, as `list` shows them, such as 2:1045
        #[arg(value_parser = letter_place, value_name = "PARTITION:OFFSET")]
        letter: DeadLetterPosition,
        /// Print only the value, byte for byte
        #[arg(long)]
        value: bool,
    },
    /// Send dead letters to the input topic again, each exactly once
    ///
    /// The same transaction writes a receipt to the dead-letter topic. A replay skips dead letters that have a receipt, so
    /// an interrupted command can be repeated. A record that is rejected again becomes a new dead letter.
    ///
    /// Records are sent to the input topic only. Dead letters of other topics or partitions are named, and the exit code
    /// is 65.
    Replay {
        /// Options that select dead letters
        #[command(flatten)]
        pick: DeadLetterSelection,
        /// Only print the number of dead letters
        #[arg(long)]
        dry_run: bool,
    },
    /// Skip the batch at which a partition cannot be read
    ///
    /// The condition `unreadable` has the topic, the partition and the offset. Everything before the batch must be
    /// judged or stored, and the batch must still be unreadable. Its records do not become dead letters, because their
    /// content is not known.
    ///
    /// For the input, stop the detectors of the group first; the records count as `skipped`. For topic `anomalies`, the
    /// detector can run.
    Skip {
        /// The input topic or the topic of anomalies, as the settings name it
        topic: String,
        /// Partition of the topic
        partition: i32,
        /// Any offset of the batch
        offset: i64,
    },
}

/// Options that select dead letters by class and time.
#[derive(Debug, Clone, clap::Args)]
pub struct DeadLetterSelection {
    /// Only this class, such as json or timestamp; may be repeated
    #[arg(long, value_parser = RejectClass::ALL.map(RejectClass::as_str))]
    pub class: Vec<String>,
    /// Only dead letters of this time or later (RFC 3339)
    #[arg(long, value_parser = time)]
    pub from: Option<Timestamp>,
    /// Only dead letters before this time (RFC 3339)
    #[arg(long, value_parser = time)]
    pub to: Option<Timestamp>,
}

/// Position of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadLetterPosition {
    /// Partition of the dead-letter topic.
    pub partition: i32,
    /// Offset of the dead letter in the partition.
    pub offset: i64,
}

fn letter_place(text: &str) -> Result<DeadLetterPosition, String> {
    let parsed = text.split_once(':').and_then(|(partition, offset)| {
        Some(DeadLetterPosition { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
    });
    parsed.ok_or_else(|| "expected PARTITION:OFFSET, such as 2:1045".into())
}

fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse_rfc3339(text).ok_or_else(|| "expected a time such as 2026-11-25T07:00:00Z".into())
}
