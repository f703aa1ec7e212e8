//! `anomaly offsets accept --sink`: lets the sink continue in a recreated topic of anomalies.

use std::time::Duration;

use crate::command::output;
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::ledger::{Ledger, LedgerError};
use crate::role::detector;
use crate::store::ledger::PostgresLedger;
use crate::stream::client::{OffsetRanges, RecordFetch, TopicAdministration, insist};

/// Longest wait for one answer of the cluster.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Moves the ledger to the first record of each partition whose offset belongs to an earlier topic. A running sink
/// continues within seconds.
pub(super) fn accept(settings: &Settings) -> Result<()> {
    let (topic, group) = (&settings.topics.anomalies, &settings.sink.group);
    let mut client = detector::client_for_sink_offsets(settings)?;
    let identity = insist(&mut client, ANSWER_TIMEOUT, |client| client.identity()).map_err(Error::unavailable)?;
    let mut bounds = OffsetRanges::new();
    for partition in 0..identity.partitions {
        let (first, end) =
            insist(&mut client, ANSWER_TIMEOUT, |client| client.bounds(partition)).map_err(Error::unavailable)?;
        bounds.insert(partition, first..end);
    }
    let mut ledger = PostgresLedger::new(&settings.postgres, group, topic);
    let failed = |why: LedgerError| Error::unavailable(format_args!("{why}; nothing was changed"));
    let changed = ledger.accept(identity.id.as_deref(), &bounds).map_err(failed)?;
    for (partition, next) in &changed {
        let first = bounds.get(partition).map_or(0, |range| range.start);
        output::line(format_args!("{topic} [{partition}] continues at offset {first} instead of {next}"))?;
    }
    if changed.is_empty() {
        output::line(format_args!("nothing to accept: the offsets in sink_offsets belong to the current {topic}"))?;
    }
    Ok(())
}
