//! The subcommands of `anomaly offsets`.

use clap::Subcommand;

/// Subcommands of `anomaly offsets`. Without one the offsets are listed.
#[derive(Debug, Clone, Subcommand)]
pub enum Offsets {
    /// Set the committed offset of one partition or of all
    ///
    /// The records between the last known offset of a detector and a later offset get the outcome `skipped`. From an
    /// earlier offset on, records are judged again, and the counts of outcomes begin again. If the stored windows contain
    /// records after the offset, they are deleted, and the next start reads windows back from the input.
    Set {
        /// Number of a partition, or all
        #[arg(value_parser = partition, value_name = "PARTITION|all")]
        partition: PartitionChoice,
        /// First record that the input still has, its end, or an offset
        #[arg(value_parser = offset, value_name = "earliest|latest|OFFSET")]
        offset: OffsetChoice,
    },
    /// Continue at the committed offsets, although no detector has committed them
    ///
    /// The records between the last known offset of a detector and a later committed offset get the outcome `skipped`. If
    /// the group has lost its offsets, it continues at the offset of the stored windows. Partitions with which a start has
    /// no problem do not change.
    Accept {
        /// Accept that topic anomalies was created again: the sink continues at its first record
        ///
        /// The rows that the earlier topic had stay in the database. The sinks may run.
        #[arg(long)]
        sink: bool,
    },
}

/// The partitions to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionChoice {
    /// All partitions of the input.
    All,
    /// One partition.
    One(i32),
}

/// The offset to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetChoice {
    /// The first offset that the input still has.
    Earliest,
    /// The end of the input.
    Latest,
    /// This offset.
    At(i64),
}

fn partition(text: &str) -> Result<PartitionChoice, String> {
    match text {
        "all" => Ok(PartitionChoice::All),
        number => number.parse().map(PartitionChoice::One).map_err(|_| "expected a number, or all".into()),
    }
}

fn offset(text: &str) -> Result<OffsetChoice, String> {
    match text {
        "earliest" => Ok(OffsetChoice::Earliest),
        "latest" => Ok(OffsetChoice::Latest),
        number => match number.parse::<i64>() {
            Ok(offset) if offset >= 0 => Ok(OffsetChoice::At(offset)),
            _ => Err("expected earliest, latest, or an offset from 0 on".into()),
        },
    }
}
