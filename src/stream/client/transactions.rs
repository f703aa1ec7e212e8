//! Transactions: records, and the progress that is committed with them.

use super::connection::ClusterConnection;
use super::fault::Fault;
use super::record::OutgoingRecord;
use crate::stream::progress::ProgressByPartition;

/// A transactional producer, whose transactions contain the group's offsets.
#[allow(clippy::missing_errors_doc)]
pub(crate) trait TransactionalProducer: ClusterConnection {
    /// Initialises the producer, which fences an earlier one with the same transactional id.
    fn init_transactions(&mut self) -> Result<(), Fault>;

    /// Begins a transaction, which is then open.
    fn begin(&mut self) -> Result<(), Fault>;

    /// Queues a record in the open transaction.
    fn send(&mut self, record: OutgoingRecord) -> Result<(), Fault>;

    /// Commits the sent records together with this progress. After `Retry` call it again with the same progress.
    fn commit(&mut self, next: &ProgressByPartition) -> Result<(), Fault>;

    /// Aborts the open transaction and its records.
    fn abort(&mut self) -> Result<(), Fault>;
}
