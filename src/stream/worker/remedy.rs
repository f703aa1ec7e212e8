//! What follows from a fault: retry, abort, rebuild, yield or stop. Only `Worker::mend` decides it.

use std::time::Duration;

use super::restore::offsets;
use super::{Worker, WorkerEnding};
use crate::error::Error;
use crate::health::ComponentState;
use crate::stream::client::{Fault, Remedy, TransactionalClient};

impl<C: TransactionalClient> Worker<'_, C> {
    /// Handles a fault. Returns how the worker ends, or `None` if the loop continues.
    pub(super) fn mend(&mut self, fault: Fault) -> Option<WorkerEnding> {
        self.identity.doubt();
        match fault.remedy {
            Remedy::Stop => return Some(WorkerEnding::Failed(Error::data(fault))),
            Remedy::Correct => return Some(WorkerEnding::Failed(Error::config(fault))),
            Remedy::Yield | Remedy::Rebuild => {
                self.session.component.set(ComponentState::Degraded(fault.message.clone()));
                let (is_fenced, stop) = (fault.remedy == Remedy::Yield, self.session.stop);
                let is_replaced = !stop.is_requested() && self.session.client.is_replaced(is_fenced, stop);
                return Some(if is_replaced { WorkerEnding::Replaced } else { self.give_up(fault) });
            }
            Remedy::Retry => {
                self.session.component.set(ComponentState::Degraded(fault.message));
                self.session.client.sleep(Duration::from_millis(100));
                return None;
            }
            Remedy::Abort => {}
        }
        self.aborts += 1;
        self.refusal = fault.message.clone();
        match fault.is_too_large.then(|| self.limit_output()) {
            Some(line) => tracing::warn!("{line}"),
            // While a topic is missing, each attempt is aborted: once a second.
            None if self.session.component.is_due("transaction aborted") => tracing::warn!(
                worker = self.session.component.name,
                aborts = self.aborts,
                "transaction aborted, rewinding; `aborts` counts them since the last commit: {fault}"
            ),
            None => {}
        }
        self.report_refusal();
        let rewound = self.discard().and_then(|()| self.session.client.seek(&offsets(&self.judging.positions)));
        match rewound {
            Ok(()) => {
                // A fault that recurs at once must not use a whole core.
                self.session.client.sleep(Duration::from_millis(20) * self.aborts.pow(2).min(50));
                None
            }
            Err(worse) => self.mend_worse(worse),
        }
    }

    /// Handles a failed abort or rewind, for which only a new client is left.
    fn mend_worse(&mut self, fault: Fault) -> Option<WorkerEnding> {
        let remedy = if fault.remedy == Remedy::Yield { Remedy::Yield } else { Remedy::Rebuild };
        self.mend(Fault { remedy, ..fault })
    }

    /// Ends the worker so that a new client is created, or ends it for good if a stop was requested.
    fn give_up(&self, fault: Fault) -> WorkerEnding {
        let name = &self.session.component.name;
        if self.session.stop.is_requested() {
            tracing::warn!(
                worker = name,
                "stopped with an uncommitted transaction, which will be judged again: {fault}"
            );
            return WorkerEnding::Stopped;
        }
        self.session.meter.transactions.add("rebuilt", 1);
        self.input.forget(name);
        WorkerEnding::Rebuild(fault.message)
    }
}
