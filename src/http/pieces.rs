//! A body that is sent in pieces while it is made. Few pieces wait for the client, and a client that takes none for too
//! long is disconnected.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// Size of a piece in bytes.
const PIECE_BYTES: usize = 64 * 1024;
/// Maximum number of pieces that wait for the client.
const QUEUED_PIECES: usize = 2;
/// Minimum and maximum wait between two attempts to send a piece. The wait is an eighth of the time waited so far.
const LOOK: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(100)];

/// The pieces of a body, for the connection.
#[derive(Debug)]
pub struct Pieces {
    queue: mpsc::Receiver<Bytes>,
    is_cut_off: Arc<AtomicBool>,
}

/// The other end of [`Pieces`]. The body ends when it is dropped.
#[derive(Debug)]
pub struct PieceSender {
    queue: mpsc::Sender<Bytes>,
    is_cut_off: Arc<AtomicBool>,
    patience: Duration,
}

/// Why a piece was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSent {
    /// The client has disconnected.
    Closed,
    /// The client took no piece for too long. The connection is closed before the end of the body.
    Slow,
}

/// Creates a body, whose client must take each piece of 64 KiB within `patience`.
pub fn pieces(patience: Duration) -> (PieceSender, Pieces) {
    let (sender, receiver) = mpsc::channel(QUEUED_PIECES);
    let is_cut_off = Arc::<AtomicBool>::default();
    let pieces = Pieces { queue: receiver, is_cut_off: Arc::clone(&is_cut_off) };
    (PieceSender { queue: sender, is_cut_off, patience }, pieces)
}

impl PieceSender {
    /// Sends bytes, and blocks until all of them wait for the client or were taken.
    ///
    /// # Errors
    /// Returns why nothing more can be sent.
    pub fn send(&self, bytes: impl Into<Bytes>) -> Result<(), NotSent> {
        let mut rest = bytes.into();
        while !rest.is_empty() {
            self.send_piece(rest.split_to(rest.len().min(PIECE_BYTES)))?;
        }
        Ok(())
    }

    fn send_piece(&self, mut piece: Bytes) -> Result<(), NotSent> {
        let since = Instant::now();
        loop {
            match self.queue.try_send(piece) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Closed(_)) => return Err(NotSent::Closed),
                Err(TrySendError::Full(back)) => piece = back,
            }
            let waited = since.elapsed();
            if waited >= self.patience {
                self.is_cut_off.store(true, Ordering::Release);
                return Err(NotSent::Slow);
            }
            std::thread::sleep((waited / 8).clamp(LOOK[0], LOOK[1]));
        }
    }
}

impl Pieces {
    /// Returns the next piece; `None` at the end of the body.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.queue.poll_recv(context).map(|piece| match piece {
            Some(piece) => Some(Ok(piece)),
            None if self.is_cut_off.load(Ordering::Acquire) => {
                Some(Err(io::Error::new(io::ErrorKind::TimedOut, "the client took the body too slowly")))
            }
            None => None,
        })
    }

    /// Waits for the next piece; `None` at the end of the body. It must not be called inside an async runtime.
    #[cfg(test)]
    pub(crate) fn blocking_recv(&mut self) -> Option<Bytes> {
        self.queue.blocking_recv()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_takes_nothing_is_cut_off_and_one_that_takes_each_piece_in_time_gets_all() {
        let patience = Duration::from_millis(300);
        let (sender, mut pieces) = pieces(patience);
        assert_eq!(sender.send(vec![b'x'; 10 * PIECE_BYTES]), Err(NotSent::Slow));
        drop(sender);
        assert_eq!(
            std::iter::from_fn(|| pieces.queue.blocking_recv()).map(|piece| piece.len()).sum::<usize>(),
            2 * PIECE_BYTES
        );
        let polled = pieces.poll(&mut Context::from_waker(std::task::Waker::noop()));
        assert!(
            matches!(polled, Poll::Ready(Some(Err(_)))),
            "the body does not end as if it were complete: {polled:?}"
        );

        let (sender, mut pieces) = super::pieces(patience);
        let sent = std::thread::spawn(move || sender.send(vec![b'x'; 8 * PIECE_BYTES + 1]));
        let mut bytes = 0;
        while let Some(piece) = pieces.queue.blocking_recv() {
            bytes += piece.len();
            // Slower than a piece after another, and faster than the limit.
            std::thread::sleep(patience / 10);
        }
        assert_eq!((bytes, sent.join().unwrap()), (8 * PIECE_BYTES + 1, Ok(())));
        assert!(matches!(pieces.poll(&mut Context::from_waker(std::task::Waker::noop())), Poll::Ready(None)));
        let (sender, pieces) = super::pieces(patience);
        drop(pieces);
        assert_eq!(sender.send("x"), Err(NotSent::Closed));
    }
}
