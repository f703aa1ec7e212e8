//! Closes clients of librdkafka in the background. librdkafka 2.12.1 can block for ever while it closes a consumer whose
//! offset it is about to reset: the callback of the discarded operation takes a lock that its own thread holds.

use std::sync::mpsc::{Receiver, channel};
use std::thread::Builder;
use std::time::Duration;

/// Longest wait until a client is closed. A close usually takes less than 100 ms.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A client that is being closed. Dropping this waits for it, but not longer than [`CLOSE_TIMEOUT`].
pub(super) struct Closing {
    closed: Receiver<()>,
    limit: Duration,
}

/// Starts to close a client, on a thread of its own.
pub(super) fn close<C: Send + 'static>(client: C) -> Closing {
    let (done, closed) = channel();
    let task = move || {
        drop(client);
        let _ = done.send(());
    };
    // Without a thread the closure is dropped here, and the client with it.
    let _ = Builder::new().name("closing".into()).spawn(task);
    Closing { closed, limit: CLOSE_TIMEOUT }
}

impl Drop for Closing {
    fn drop(&mut self) {
        use std::sync::mpsc::RecvTimeoutError::Timeout;
        if self.closed.recv_timeout(self.limit) == Err(Timeout) {
            tracing::warn!(
                "a Kafka client did not close within {} s; it is left behind until this process ends",
                self.limit.as_secs_f64()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    /// A client whose close waits for a lock, and then sets a flag.
    struct SlowClient(Arc<Mutex<()>>, Arc<AtomicBool>);

    impl Drop for SlowClient {
        fn drop(&mut self) {
            let _lock = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            self.1.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_client_that_never_closes_does_not_block_its_owner_and_another_one_is_waited_for() {
        let (lock, is_closed) = (Arc::<Mutex<()>>::default(), Arc::<AtomicBool>::default());
        drop(close(SlowClient(lock.clone(), is_closed.clone())));
        assert!(is_closed.load(Ordering::SeqCst), "the owner waits for the close");
        is_closed.store(false, Ordering::SeqCst);
        let held = lock.lock().unwrap();
        let mut closing = close(SlowClient(lock.clone(), is_closed.clone()));
        closing.limit = Duration::from_millis(10);
        drop(closing);
        assert!(!is_closed.load(Ordering::SeqCst));
        drop(held);
    }
}
