//! The end of a transaction: deliveries, offsets, commit.

use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::producer::Producer;

use super::fault;
use super::real::{CALL, DELIVERY, KafkaLog};
use crate::stream::log::{Fault, Remedy};

/// One part of a flush: a long one waits about 100 ms for nothing.
const FLUSH: Duration = Duration::from_millis(2);

impl KafkaLog {
    /// Waits until everything sent has its report, or until one of them is bad: then the rest is held back for ever.
    pub(super) fn flush(&self) -> Result<(), Fault> {
        let deadline = Instant::now() + DELIVERY + FLUSH;
        loop {
            let flushed = self.producer.flush(FLUSH);
            if let Some(e) = self.producer.context().take_failure() {
                return Err(Fault {
                    remedy: Remedy::Abort,
                    message: format!("not delivered: {e}"),
                    is_too_large: fault::is_too_large(&e),
                });
            }
            match flushed {
                Ok(()) => return Ok(()),
                Err(e) if Instant::now() > deadline => return Err(fault::of("waiting for deliveries", &e)),
                Err(_) => {}
            }
        }
    }

    pub(super) fn commit_transaction(&mut self, list: &TopicPartitionList) -> Result<(), Fault> {
        if !self.is_committing {
            self.flush()?;
            self.send_offsets(list)?;
            self.is_committing = true;
        }
        let committed = self.producer.commit_transaction(CALL).map_err(|e| fault::of("committing", &e));
        self.is_committing = matches!(&committed, Err(fault) if fault.remedy == Remedy::Retry);
        // Once it was asked for, it may have happened: only the committed offsets tell.
        committed.map_err(|fault| match fault.remedy {
            Remedy::Abort => Fault { remedy: Remedy::Rebuild, ..fault },
            _ => fault,
        })
    }

    fn send_offsets(&self, list: &TopicPartitionList) -> Result<(), Fault> {
        // Fresh, so that a member of an older generation is refused.
        let member =
            self.consumer.group_metadata().ok_or_else(|| Fault::new(Remedy::Abort, "the consumer is in no group"))?;
        self.producer.send_offsets_to_transaction(list, &member, CALL).map_err(|e| fault::of("sending offsets", &e))
    }
}
