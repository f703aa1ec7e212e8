//! Divides the memory of the process between the series and everything else.

use std::sync::Arc;

use crate::series::SeriesBudget;
use crate::service::memory;

/// Share of the available memory that the process uses by default, in percent. The rest is for the allocator, and for
/// tables that grow while their old copy still exists.
const SHARE: u64 = 80;
/// Bytes that the process needs without series, and further bytes for the clients of each worker.
const BASE: u64 = 128 << 20;
const WORKER: u64 = 32 << 20;

/// Returns the budget of all series; `None` if the memory is neither set nor known. `setting` is `detector.max_memory`
/// in MiB.
pub(super) fn budget(setting: u64, workers: usize) -> Option<Arc<SeriesBudget>> {
    let whole = match setting {
        0 => memory::available().map(|bytes| bytes / 100 * SHARE),
        set => Some(set << 20),
    };
    let Some(whole) = whole else {
        tracing::warn!(
            "neither a limit of memory of the unit nor the memory of the machine can be read: the memory of the series is not \
             limited. Set detector.max_memory"
        );
        return None;
    };
    let series = for_series(whole, workers);
    tracing::info!(max_memory_mib = whole >> 20, series_mib = series >> 20, "memory of the process, and of its series");
    Some(SeriesBudget::new(series))
}

/// Returns the bytes for series, of all bytes of the process.
fn for_series(whole: u64, workers: usize) -> u64 {
    // Small blocks leave gaps of about a tenth.
    (whole.saturating_sub(BASE + WORKER * workers as u64) / 10 * 9).max(whole / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_of_two_gibibytes_has_memory_for_more_than_a_million_full_windows() {
        let default = (2 << 30) / 100 * SHARE;
        let bytes = for_series(default, 2);
        // A window of 100 values takes about 980 bytes, see `make bench-memory`.
        assert!(bytes / 980 > 1_300_000 && bytes < default, "{bytes}");
        assert_eq!(for_series(100 << 20, 64), 25 << 20);
    }
}
