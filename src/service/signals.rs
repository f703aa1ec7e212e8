//! SIGTERM and SIGINT request a stop, SIGHUP a reload.

use std::sync::mpsc::{Receiver, channel};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::{Error, Result};

/// A request by a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessSignal {
    /// Stop the process after its work is drained.
    Stop,
    /// Read the settings and certificates again.
    Reload,
}

/// Effect of a second SIGTERM or SIGINT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecondSignal {
    /// It ends the process at once.
    Ends,
    /// It has no effect: a stop takes only seconds and must not be interrupted.
    Waits,
}

/// Starts a thread that receives the signals.
///
/// # Errors
/// 70 if the handlers cannot be installed.
pub(crate) fn listen(second: SecondSignal) -> Result<Receiver<ProcessSignal>> {
    let failed = |e: std::io::Error| Error::internal(format_args!("cannot listen for signals: {e}"));
    let requested_before = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT].into_iter().filter(|_| second == SecondSignal::Ends) {
        // In this order, the first signal only prepares the exit by the second.
        signal_hook::flag::register_conditional_shutdown(signal, 130, requested_before.clone()).map_err(failed)?;
        signal_hook::flag::register(signal, requested_before.clone()).map_err(failed)?;
    }
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(failed)?;
    let (sender, receiver) = channel();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                let request = if signal == SIGHUP { ProcessSignal::Reload } else { ProcessSignal::Stop };
                if sender.send(request).is_err() {
                    return;
                }
            }
        })
        .map_err(failed)?;
    Ok(receiver)
}
