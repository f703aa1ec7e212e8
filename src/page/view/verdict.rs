//! The verdict on the detection: a sentence and its checks. "Quiet" and "stopped" must never look alike. So a heartbeat
//! is needed for any claim and a judged value to call a time range normal. Judged values count by their arrival,
//! whatever times the events have.

mod checks;
mod words;

use super::banner::{Banner, BannerLine, Tone};
use super::format::{counted, duration, grouped, rough};
use super::overview_data::OverviewData;
use super::reports::{Current, SILENT_SECONDS};
use super::text::Sentence;
use crate::archive::{ConditionRow, Filter};
use crate::event::Timestamp;
use crate::health::{ConditionCode, ConditionSeverity, Tally};
use crate::page::query::{PageQuery, Span};
use crate::page::site::Site;
use words::offset;

/// Maximum number of conditions shown; the detection page lists all of them.
const MAX_CONDITIONS: usize = 3;
/// Silence of the input, in milliseconds, from which it is mentioned.
const STILL: i64 = 120_000;

/// The facts from which the sentence is made.
struct Facts<'a> {
    data: &'a OverviewData,
    current: Current<'a>,
    words: &'static str,
    /// `matching ` if a filter is set, else empty; precedes the word `anomalies`.
    which: &'static str,
    judged: u64,
    learning: u64,
    taken: Timestamp,
    now: Timestamp,
}

/// Facts that do not come from the loaded data.
#[derive(Debug, Clone, Copy, Default)]
struct BannerContext {
    /// Whether the lag shrinks; `None` while this is not known.
    pub is_shrinking: Option<bool>,
    /// Seconds by which this machine's clock is ahead of the database's, if the difference matters.
    pub ahead: Option<f64>,
}

/// Makes the banner of the overview.
pub(crate) fn of(site: &Site, data: &OverviewData, query: &PageQuery, taken: Timestamp) -> Banner {
    let is_shrinking = site.is_shrinking(data.lag(taken), taken);
    let seen = BannerContext { is_shrinking, ahead: site.clock_ahead() };
    verdict(data, query, taken, site.now(), seen)
}

/// Makes the verdict from the loaded data.
fn verdict(data: &OverviewData, query: &PageQuery, taken: Timestamp, now: Timestamp, seen: BannerContext) -> Banner {
    let arrived = data.reports.arrived.tally;
    let sum = |of: fn(&crate::archive::CoverageRow) -> u64| data.coverage.iter().map(of).sum::<u64>();
    let is_whole = query.search.is_none()
        && query.filter == Filter { from: query.filter.from, to: query.filter.to, ..Filter::default() };
    let facts = Facts {
        data,
        current: data.reports.current(taken, now),
        words: query.words(Span::Hour),
        which: if is_whole { "" } else { "matching " },
        judged: sum(|row| row.judged).max(arrived.judged),
        learning: sum(|row| row.learning).max(arrived.learning),
        taken,
        now,
    };
    let mut banner = facts.sentence();
    if banner.tone != Tone::Stopped {
        let said = banner.strong.to_string();
        let mut lines =
            facts.current.conditions.iter().filter(|(row, _)| !said.contains(&short(row))).collect::<Vec<_>>();
        let more = lines.len().saturating_sub(MAX_CONDITIONS);
        lines.truncate(MAX_CONDITIONS);
        banner.conditions = lines.into_iter().map(|(row, count)| line(row, *count)).collect();
        if more > 0 && banner.more.is_none() {
            banner.more = Some(["/detection".to_owned(), format!("{more} more")]);
        }
    }
    banner.checks = checks::all(&facts, seen);
    banner
}

/// Returns a condition's message as a sentence shows it.
fn short(row: &ConditionRow) -> String {
    super::text::shown(&row.message)
}

fn line(row: &ConditionRow, count: usize) -> BannerLine {
    let severity = if row.severity == ConditionSeverity::Degraded { "degraded" } else { "notice" };
    let times = if count > 1 { format!(" ({count} workers)") } else { String::new() };
    BannerLine { severity, text: format!("{}{times}", short(row)) }
}

impl Facts<'_> {
    fn sentence(&self) -> Banner {
        if self.current.rows.is_empty() {
            // A worker without partitions reports no row, but its condition contains the reason.
            return self
                .current
                .degrading()
                .next()
                .map_or_else(|| self.unknown(), |condition| self.degraded(condition));
        }
        if !self.current.is_reporting() {
            // A worker without partitions reports no row. If it still reports a condition, it has not stopped.
            return self.current.later().map_or_else(|| self.stopped(), |condition| self.degraded(condition));
        }
        if self.data.reports.is_all_rejected() && self.current.degrades(ConditionCode::AllRejected) {
            return self.rejected();
        }
        if let Some(condition) = self.current.degrading().next() {
            return self.degraded(condition);
        }
        if let Some(missed) = self.missed() {
            return Banner {
                detail: Sentence::say("What arrives there is not judged.").then(self.found()),
                more: Some(["/detection".to_owned(), "All partitions".to_owned()]),
                counts: self.counts(),
                ..Banner::of(Tone::Degraded, "Degraded.", missed, "")
            };
        }
        if let Some(states) = self.current.starting() {
            return self.starting(&states);
        }
        match self.current.waiting().as_slice() {
            [] => self.serving(),
            waiting => self.partly(waiting),
        }
    }

    /// Describes the partitions that do not report; `None` if all do.
    fn missed(&self) -> Option<Sentence> {
        let missed = self.current.missed();
        let all = counted(self.current.rows.len() as u64, "partition", "partitions");
        let have = if missed.len() == 1 { "has" } else { "have" };
        let said = Sentence::say(&format!("{} of {all} {have} not reported ", grouped(missed.len() as u64)));
        let last = self.current.last(missed.iter().copied());
        (!missed.is_empty()).then(|| match last {
            Some(last) => said.and("since ").time(last, self.now).and("."),
            None => said.and("up to now."),
        })
    }

    fn starting(&self, states: &[&str]) -> Banner {
        let said = states.iter().take(MAX_CONDITIONS).map(|state| Sentence::default().name(state));
        Banner {
            detail: said.fold(Sentence::default(), Sentence::then).then(self.found()),
            counts: self.counts(),
            ..Banner::of(
                Tone::Learning,
                "Starting.",
                Sentence::say("Windows are being restored: nothing is judged yet."),
                "",
            )
        }
    }

    /// Makes the banner for a detector of which some workers are not ready, mostly because they restore windows. All
    /// partitions of a worker have its state, also those that it already judges.
    fn partly(&self, waiting: &[&str]) -> Banner {
        let mut states = waiting.to_vec();
        states.sort_unstable();
        states.dedup();
        let all = counted(self.current.rows.len() as u64, "partition", "partitions");
        let strong = match waiting.len() {
            1 => format!("The worker of 1 of {all} is not ready: this partition is not judged yet."),
            count => {
                let count = grouped(count as u64);
                format!("The workers of {count} of {all} are not ready: not all of these are judged yet.")
            }
        };
        let said = states.into_iter().take(MAX_CONDITIONS).map(|state| Sentence::default().name(state));
        Banner {
            detail: said.fold(Sentence::default(), Sentence::then).then(self.found()),
            more: Some(["/detection".to_owned(), "All partitions".to_owned()]),
            counts: self.counts(),
            ..Banner::of(Tone::Learning, "Partly starting.", Sentence::say(&strong), "")
        }
    }

    fn unknown(&self) -> Banner {
        Banner {
            detail: Sentence::say("The first heartbeat comes a few seconds after a detector has started."),
            command: Some("systemctl status anomaly-detector"),
            ..Banner::of(
                Tone::Unknown,
                "No detector has reported yet.",
                Sentence::say("It is not known whether anything is judged."),
                "",
            )
        }
    }

    fn stopped(&self) -> Banner {
        let (Some(silence), Some(since)) =
            (self.current.newest(), self.current.last(self.current.rows.iter().copied()))
        else {
            return self.dated_ahead();
        };
        let ago = duration((silence * 1000.0) as i64);
        let (strong, detail) = match self.current.has_ended() {
            true => (format!("The detector ended {ago} ago."), "Nothing has been judged since "),
            false => (format!("No report for {ago}."), "The detector has not reported since "),
        };
        let detail = Sentence::say(detail).time(since, self.now).and(". Anomalies since then are not known.");
        // A worker without partitions reports no row, but its condition may contain the reason.
        let (strong, detail) = match self.data.reports.last_reason() {
            Some(reason) => (Sentence::default().name(&reason.message), Sentence::say(&strong).then(detail)),
            None => (Sentence::say(&strong), detail),
        };
        Banner {
            detail,
            command: Some("journalctl -u anomaly-detector -n 50"),
            ..Banner::of(Tone::Stopped, "Detection has stopped.", strong, "")
        }
    }

    /// Makes the banner for a last report that the database's clock dated when it was ahead.
    fn dated_ahead(&self) -> Banner {
        let ahead = self.current.rows.iter().map(|row| -row.age).fold(SILENT_SECONDS, f64::max);
        let ahead = duration((ahead * 1000.0) as i64);
        let strong = format!("Its last report is dated {ahead} ahead of the database's clock.");
        Banner {
            detail: Sentence::say("A detector that runs reports every few seconds."),
            command: Some("systemctl status anomaly-detector"),
            ..Banner::of(Tone::Unknown, "It is not known whether the detector runs.", Sentence::say(&strong), "")
        }
    }

    fn rejected(&self) -> Banner {
        let lately = self.data.reports.lately();
        let count = format!("({} of {})", grouped(lately.rejected), grouped(lately.sum()));
        let strong = match &self.data.reports.rejected {
            Some(sample) => Sentence::default().name(&sample.message).and(" ").and(&count),
            None => Sentence::say("no record is an event ").and(&count),
        };
        Banner {
            detail: Sentence::say("Nothing of the last 5 minutes was judged.").then(self.found()),
            more: Some(["/dead-letters".to_owned(), "Rejected records".to_owned()]),
            counts: self.counts(),
            ..Banner::of(Tone::Degraded, "Events arrive, all rejected:", strong, "")
        }
    }

    fn degraded(&self, condition: &ConditionRow) -> Banner {
        Banner {
            detail: Sentence::say("since ")
                .time(condition.since, self.now)
                .then(self.missed().unwrap_or_default())
                .then(self.found()),
            more: Some(["/detection".to_owned(), "All conditions".to_owned()]),
            counts: self.counts(),
            ..Banner::of(Tone::Degraded, "Degraded.", Sentence::default().name(&condition.message), "")
        }
    }

    /// Makes the banner for a detector without problems.
    fn serving(&self) -> Banner {
        let lately = self.data.reports.lately();
        let (total, outside) = (self.data.total().total(), self.data.outside.records.len() as u64);
        let within = format!("in {}.", self.words);
        let is_learning = lately.learning > lately.judged || (self.judged == 0 && self.learning > 0);
        if total == 0 && outside == 0 && is_learning {
            return self.learning_only(lately.judged);
        }
        if total > 0 || outside > 0 {
            let (tone, lead) =
                if is_learning { (Tone::Learning, "Mostly learning.") } else { (Tone::Well, "Detecting.") };
            let strong = match total {
                0 => Sentence::say(&format!("{} detected", self.detected())),
                _ => Sentence::say(&self.anomalies(total)),
            };
            let detail = self.last().then(self.usual(total)).then(self.beyond(total)).then(self.times());
            return Banner { detail, counts: self.counts(), ..Banner::of(tone, lead, strong, &within) };
        }
        if self.judged > 0 {
            let judged = Sentence::say(&format!("{} values judged", rough(self.judged)));
            let detail = match self.last() {
                last if last.is_empty() => judged.and(if self.which.is_empty() { ", none abnormal" } else { "" }),
                last => judged.then(last),
            };
            let arrived = &self.data.reports.arrived;
            let off = arrived.late + arrived.early;
            // The events have other times, so nothing can be claimed about the hour itself.
            if off > 0 && self.data.coverage.iter().all(|row| row.judged == 0) {
                let strong = Sentence::say(&format!("{} judged,", rough(arrived.tally.judged)));
                let tail = format!("their times are {}. None is abnormal.", offset(arrived));
                return Banner { detail, ..Banner::of(Tone::Well, "Detecting.", strong, &tail) };
            }
            let strong = Sentence::say(&format!("No {}anomalies", self.which));
            let detail = detail.then(self.still()).then(self.times());
            return Banner { detail, ..Banner::of(Tone::Well, "Quiet.", strong, &within) };
        }
        let Tally { rejected, ignored, excluded, .. } = self.data.reports.arrived.tally;
        let came =
            |n, what: &str| Sentence::say(&format!("{} came, and all were {what}.", counted(n, "record", "records")));
        let detail = match (rejected, ignored, excluded) {
            (0, 0, 0) => Sentence::say("The detector runs, but no records arrived."),
            (0, n, 0) => came(n, "ignored: null values, or what `fields.ignore` names"),
            (n, 0, 0) => came(n, "rejected"),
            (0, 0, n) => came(n, "of excluded series: an override says `enabled = false`"),
            (n, m, 0) => came(n + m, "rejected or ignored"),
            (n, m, k) => came(n + m + k, "rejected, ignored or of excluded series"),
        };
        let more = (rejected > 0).then(|| ["/dead-letters".to_owned(), "Rejected records".to_owned()]);
        Banner {
            detail: detail.then(self.still()),
            more,
            ..Banner::of(Tone::Well, "Waiting.", Sentence::say("No event"), &within)
        }
    }

    fn learning_only(&self, judged: u64) -> Banner {
        let seen = rough(self.learning);
        let series = self.current.rows.iter().map(|row| row.series.max(0) as u64).sum::<u64>();
        let need = self.data.min_samples;
        let detail = match (self.left(), need) {
            (Some(minutes), _) => format!("{seen} values seen; a series is judged in about {minutes} min."),
            // The series names never repeat, so waiting does not help.
            (None, Some(need)) if series > 0 && self.learning / series < need / 2 && self.learning > 1_000 => format!(
                "{seen} values of {} series: {:.1} for each, and {need} are needed before one is judged.",
                grouped(series),
                self.learning as f64 / series as f64
            ),
            _ => format!("{seen} values seen; a series is judged once it has enough of them."),
        };
        let (lead, strong) = match (judged, self.judged) {
            (0, 0) => ("Learning.", "Nothing is judged yet.".to_owned()),
            (0, _) => ("Learning.", "Nothing is judged at present.".to_owned()),
            _ => ("Mostly learning.", format!("No {}anomalies in {}.", self.which, self.words)),
        };
        Banner {
            detail: Sentence::say(&detail).then(self.times()),
            ..Banner::of(Tone::Learning, lead, Sentence::say(&strong), "")
        }
    }

    /// Estimates the minutes until an average series has enough values; returns `None` if this is not possible.
    fn left(&self) -> Option<u64> {
        const LATELY: i64 = 5;
        let (data, taken) = (self.data, self.taken);
        let series = self.current.rows.iter().map(|row| row.series.max(0) as u64).sum::<u64>();
        let since = taken.millis() - LATELY * 60_000;
        let lately =
            data.coverage.iter().filter(|row| row.minute.millis() >= since).map(|row| row.learning).sum::<u64>();
        if series == 0 || lately == 0 {
            return None;
        }
        let missing = data.min_samples? as f64 - self.learning as f64 / series as f64;
        // The rate is computed over the minutes that have passed, at least half a minute.
        let first = data.coverage.first();
        let counted = first.map_or(1.0, |row| ((taken.millis() - row.minute.millis()) as f64 / 60_000.0).max(0.5));
        let pace = lately as f64 / series as f64 / counted.min(LATELY as f64);
        let minutes = (missing / pace).ceil();
        (missing > 0.0 && minutes.is_finite()).then_some(minutes as u64)
    }

    fn split_series(&self) -> bool {
        self.current.has(ConditionCode::SplitSeries)
    }
}
