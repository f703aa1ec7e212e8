//! The overview's data from the archive; the verdict on the detection uses it, too.

use std::time::{Duration, Instant as Clock};

use super::reports::{self, Reports};
use crate::archive::{
    AnomalyPage, Archive, BinCount, Bins, Count, CoverageRow, Cursor, Filter, LaneCount, NameCount, NoAnswer, Outside,
    PUNCTUAL, Review, StatusRow,
};
use crate::event::Timestamp;
use crate::page::chart::minutes::minute_of;
use crate::page::query::{PageQuery, Span};

/// Maximum number of devices shown as lanes.
const LANES: u32 = 7;
/// Maximum number of names in a side list.
const NAMES: u32 = 8;
/// Maximum number of rows of newest anomalies.
const MAX_ROWS: u32 = 12;
/// Maximum number of rows of anomalies with times outside the range.
const OUTSIDE: u32 = 6;
/// Time in milliseconds for which a detection counts as new.
pub(crate) const NEWS: i64 = 30_000;

const HOUR: i64 = 3_600_000;
/// Number of hours before the shown hour from which the usual number is derived.
const HOURS_BEFORE: usize = 24;
/// Minimum number of hours for a usual number.
const MIN_HOURS: usize = 3;

/// Data that the page loads from the archive.
pub(crate) struct OverviewData {
    pub bins: Bins,
    pub by_time: Vec<BinCount>,
    /// Usual number of anomalies in an hour; present if one hour is shown and enough earlier hours are known.
    pub usual: Option<u64>,
    pub devices: Vec<NameCount>,
    pub lanes: Vec<LaneCount>,
    pub metrics: Vec<NameCount>,
    /// Coverage of the range, by minute.
    pub coverage: Vec<CoverageRow>,
    /// Reports of the detectors, with their age.
    pub reports: Reports,
    /// Anomalies detected in the range with times outside of it.
    pub outside: Outside,
    /// Number of anomalies detected within the last [`NEWS`] milliseconds.
    pub fresh: u64,
    /// The policy's `min_samples`, while no series has enough values to be judged.
    pub min_samples: Option<u64>,
    /// Newest anomalies of the range; if it has none, earlier ones.
    pub newest: AnomalyPage,
    pub reviews: Vec<(Review, u64)>,
    pub cursor: Cursor,
    /// Time that loading the data took.
    pub took: Duration,
}

impl OverviewData {
    /// Returns the number of records not yet processed; `None` if it is unknown for a partition.
    pub(crate) fn lag(&self, taken: Timestamp) -> Option<u64> {
        let current = self.reports.current(taken, taken);
        let lag = |row: &StatusRow| row.lag.filter(|_| !current.is_silent(row)).map(|lag| lag.max(0) as u64);
        current.rows.iter().map(|row| lag(row)).sum()
    }

    /// Returns the number of anomalies in the range.
    pub(crate) fn total(&self) -> Count {
        self.by_time.iter().fold(Count::default(), |sum, bin| Count {
            critical: sum.critical + bin.count.critical,
            warning: sum.warning + bin.count.warning,
        })
    }
}

/// Loads the data from the archive.
///
/// # Errors
/// The errors of the archive.
pub(crate) fn load(archive: &dyn Archive, query: &PageQuery, now: Timestamp) -> Result<OverviewData, NoAnswer> {
    let start = Clock::now();
    let bins = query.axis(Span::Hour, now);
    // The position is read first: a row committed meanwhile is then sent twice, which is better than never.
    let cursor = archive.position()?;
    let always = query.found(archive, query.filter.clone())?;
    let filter = Filter { from: Some(bins.from), to: bins.to(), ..always.clone() };
    let reports = reports::load(archive, bins.from, bins.grain(), now)?;
    let coverage = archive.coverage(minute_of(bins.from), bins.to().unwrap_or(now), bins.grain())?;
    let is_learning = coverage.iter().all(|row| row.judged == 0) && coverage.iter().any(|row| row.learning > 0);
    let min_samples = match reports.status.first().filter(|_| is_learning) {
        Some(row) => archive.settings(&row.settings_hash)?.and_then(|settings| {
            settings.iter().find(|(name, _)| name == "min_samples").and_then(|(_, value)| value.parse().ok())
        }),
        None => None,
    };
    let reviews = archive.reviews(bins.from, bins.to().unwrap_or(now))?;
    let (newest, by_time) = rows_and_bars(archive, &always, &filter, &bins, now)?;
    // A range that the user gave refers to event times, so anomalies with other times do not belong to it.
    let outside = match query.filter.from.is_none() && query.filter.to.is_none() {
        true => archive.outside(&filter, bins.from, OUTSIDE)?,
        false => Outside::default(),
    };
    let fresh = archive.fresh(&always, Timestamp::from_millis(now.millis() - NEWS).unwrap_or(now))?;
    let usual = usual(archive, &filter, &bins)?;
    let devices = archive.by_device(&filter, LANES)?;
    let names = devices.iter().filter_map(|device| device.name.clone()).collect::<Vec<_>>();
    let lanes = archive.lanes(&filter, &bins, &names)?;
    let metrics = archive.by_metric(&filter, NAMES)?;
    Ok(OverviewData {
        bins,
        by_time,
        usual,
        devices,
        lanes,
        metrics,
        coverage,
        reports,
        outside,
        fresh,
        min_samples,
        newest,
        reviews,
        cursor,
        took: start.elapsed(),
    })
}

/// Reads the rows and the bars of a range. They are two queries; if their counts differ because of a commit in between,
/// both are read again.
fn rows_and_bars(
    archive: &dyn Archive,
    always: &Filter,
    filter: &Filter,
    bins: &Bins,
    now: Timestamp,
) -> Result<(AnomalyPage, Vec<BinCount>), NoAnswer> {
    let mut page = archive.newest(filter, None, MAX_ROWS)?;
    let mut bars = archive.by_time(filter, bins)?;
    let shown = page.records.len() as u64;
    if page.next.is_none() && bars.iter().map(|bar| bar.count.total()).sum::<u64>() != shown {
        page = archive.newest(filter, None, MAX_ROWS)?;
        bars = archive.by_time(filter, bins)?;
    }
    if page.records.is_empty() {
        // If the range has no anomalies, earlier ones are shown. Those with times in the future are left out, since
        // they would hide the others.
        let end = Timestamp::from_millis(now.millis() + PUNCTUAL);
        page = archive.newest(&Filter { to: always.to.or(end), ..always.clone() }, None, MAX_ROWS)?;
    }
    Ok((page, bars))
}

/// Computes the median number of anomalies of the hours before the shown one, from the first hour that has any. Bursts
/// and hours without judged values change a median little.
fn usual(archive: &dyn Archive, filter: &Filter, bins: &Bins) -> Result<Option<u64>, NoAnswer> {
    // Only queries that the roll-ups can answer are run; bars of an hour always begin at a full minute.
    let is_quick = filter.is_plain() && filter.devices.is_empty() && filter.metrics.is_empty();
    let from = Timestamp::from_millis(bins.from.millis() - HOUR * HOURS_BEFORE as i64);
    // An hour plus the rest of its first minute.
    let is_hour = (HOUR..=HOUR + bins.width).contains(&(bins.width * bins.count as i64));
    let (Some(from), true) = (from, is_quick && is_hour && bins.width == HOUR / 60) else { return Ok(None) };
    let hours = Bins { from, width: HOUR, count: HOURS_BEFORE };
    let counts = archive.by_time(&Filter { from: Some(from), to: Some(bins.from), ..filter.clone() }, &hours)?;
    let mut known =
        vec![0; counts.iter().map(|hour| hour.bin).min().map_or(0, |first| HOURS_BEFORE.saturating_sub(first))];
    counts.iter().zip(&mut known).for_each(|(hour, known)| *known = hour.count.total());
    known.sort_unstable();
    Ok(known.get(known.len() / 2).copied().filter(|median| known.len() >= MIN_HOURS && *median > 0))
}
