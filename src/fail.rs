//! Failure points for tests. `ANOMALY_KILL_AT=place:3` ends the process, as `kill -9` does, when it reaches the place
//! for the third time. `ANOMALY_SNAPSHOT_VERSION=3` makes the program write the next snapshot version;
//! `ANOMALY_NEXT_SCHEMA=file.sql` gives it the next version of the database schema. All exist only in builds with debug
//! assertions, not in the shipped program.

/// Ends the process here if `ANOMALY_KILL_AT` names this place.
#[cfg(debug_assertions)]
pub(crate) fn point(place: &str) {
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

/// Does nothing in the shipped program.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn point(_place: &str) {}

/// Returns the version of the snapshots that are written, which is also the newest version that is understood.
#[cfg(debug_assertions)]
pub(crate) fn version(real: u8) -> u8 {
    use std::sync::OnceLock;

    static VERSION: OnceLock<Option<u8>> = OnceLock::new();
    let other = || std::env::var("ANOMALY_SNAPSHOT_VERSION").ok()?.parse().ok();
    VERSION.get_or_init(other).unwrap_or(real)
}

/// Returns the version unchanged in the shipped program.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn version(real: u8) -> u8 {
    real
}

/// Returns the SQL that leads to the next version of the schema.
#[cfg(debug_assertions)]
pub(crate) fn next_schema() -> Option<String> {
    std::fs::read_to_string(std::env::var_os("ANOMALY_NEXT_SCHEMA")?).ok()
}

/// Returns `None` in the shipped program.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn next_schema() -> Option<String> {
    None
}
