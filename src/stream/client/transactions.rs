//! Transactions: records, and the progress that is committed with them.

use super::connection::ClusterConnection;
use super::fault::Fault;
use super::record::OutgoingRecord;
use crate::stream::progress::ProgressByPartition;

/// A transactional producer, whose transactions can contain a group's offsets.
#[allow(clippy::missing_errors_doc)]
pub(crate) trait TransactionalProducer: ClusterConnection {
    /// Initialises the producer, which fences an earlier one with the same transactional id.
    fn init_transactions(&mut self) -> Result<(), Fault>;

    /// Begins a transaction, which is then open.
    fn begin(&mut self) -> Result<(), Fault>;

    /// Queues a record in the open transaction.
    fn send(&mut self, record: OutgoingRecord) -> Result<(), Fault>;

    /// Waits until the cluster has accepted every sent record. `Abort` if it refuses one.
    fn flush(&mut self) -> Result<(), Fault>;

    /// Commits the sent records together with this progress. A producer outside of a group has none. After `Retry` call
    /// it again with the same progress.
    fn commit(&mut self, next: &ProgressByPartition) -> Result<(), Fault>;

    /// Aborts the open transaction and its records.
    fn abort(&mut self) -> Result<(), Fault>;
}
