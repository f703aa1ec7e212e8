//! Places where a test can end the process as `kill -9` does: `ANOMALY_KILL_AT=place:3` at the third time that the place is
//! reached; and `ANOMALY_SNAPSHOT_VERSION=2`, which makes of this program its successor. Only in builds with debug assertions, which is to say not in what is shipped.

/// A place.
#[cfg(debug_assertions)]
pub fn point(place: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static TARGET: OnceLock<Option<(String, u32)>> = OnceLock::new();
    static REACHED: AtomicU32 = AtomicU32::new(0);
    let target = TARGET.get_or_init(|| {
        let text = std::env::var("ANOMALY_KILL_AT").ok()?;
        let (place, times) = text.rsplit_once(':')?;
        Some((place.to_owned(), times.parse().ok()?))
    });
    if let Some((target, times)) = target
        && target == place
        && REACHED.fetch_add(1, Ordering::SeqCst) + 1 == *times
    {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_place: &str) {}

/// Version of the snapshots that are written, and the newest that is understood.
#[cfg(debug_assertions)]
pub fn version(real: u8) -> u8 {
    use std::sync::OnceLock;

    static VERSION: OnceLock<Option<u8>> = OnceLock::new();
    let other = || std::env::var("ANOMALY_SNAPSHOT_VERSION").ok()?.parse().ok();
    VERSION.get_or_init(other).unwrap_or(real)
}

/// As it is.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn version(real: u8) -> u8 {
    real
}
