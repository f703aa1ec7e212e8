//! Anomalies by time: bars of equal width, below them a ribbon that shows what was judged, a lane for each device, and
//! the times, all on one axis. Zero is never drawn where nothing was judged: that part is hatched.

use std::fmt::Write;

use super::{Percent, escape, timed_title};
use crate::archive::{ActivityRow, BinCount, Bins, Count, CoverageRow};
use crate::event::Timestamp;
use crate::page::view::format::{day, grouped, minute};

/// Height of the bars with their ribbon, in pixels.
pub(crate) const HEIGHT: f64 = 132.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 112.0;
const MINUTE: i64 = 60_000;
/// Classes of time in which all values were of excluded series: a plain box with an outline.
const EXCLUDED_CLASSES: &str = "hb hl";

/// What the detector did with the events of a time range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coverage {
    /// Values were judged, and more of them than were learned.
    Judged,
    /// Values arrived, and more of them were learned than judged.
    Mostly,
    /// Values arrived, and all of them were learned.
    Learning,
    /// Records arrived, and all of them were rejected or of excluded series, most of them rejected.
    Rejected,
    /// Records arrived, and all of them were of excluded series or rejected, most of them of excluded series.
    Excluded,
    /// Values with other event times were judged then.
    Elsewhere,
    /// No judged value is known.
    Missing,
    /// No detector reports, and no event of the whole range is known.
    Unknown,
    /// The time is too recent to be known.
    Pending,
}

impl Coverage {
    /// Returns whether events are known to have arrived.
    pub(crate) fn has_events(self) -> bool {
        !matches!(self, Coverage::Missing | Coverage::Unknown | Coverage::Pending)
    }
}

/// A part of the range that has one state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct CoverageRun {
    /// Start as a share of the range, 0 to 1.
    pub start: f64,
    /// End as a share of the range, 0 to 1.
    pub end: f64,
    /// State of this part of the range.
    pub state: Coverage,
}

/// Returns the start of the minute of a time, because coverage is stored per minute.
pub(crate) fn minute_of(time: Timestamp) -> Timestamp {
    Timestamp::from_millis(time.millis().div_euclid(60_000) * 60_000).unwrap_or(time)
}

/// Divides the range into runs of one state. While the detector reports, the newest minutes without a row are pending,
/// not missing. `arrivals` contain what was done in minutes that no event time falls into.
pub(crate) fn runs(
    bins: &Bins,
    rows: &[CoverageRow],
    arrivals: &[ActivityRow],
    now: Timestamp,
    is_reporting: bool,
) -> Vec<CoverageRun> {
    let (from, to) = (bins.from.millis(), bins.from.millis() + bins.width * bins.count as i64);
    let share = |time: i64| ((time - from) as f64 / (to - from).max(1) as f64).clamp(0.0, 1.0);
    let mut rows = rows.iter().peekable();
    let mut arrivals = arrivals.iter().peekable();
    let mut runs = Vec::<CoverageRun>::new();
    let grain = bins.grain();
    let mut start = from.div_euclid(MINUTE) * MINUTE;
    while start < to {
        while rows.next_if(|row| row.minute.millis() < start).is_some() {}
        let row = rows.next_if(|row| row.minute.millis() < start + grain);
        while arrivals.next_if(|row| row.minute.millis() < start).is_some() {}
        let arrived = arrivals.next_if(|row| row.minute.millis() < start + grain);
        let state = match row {
            Some(row) if row.judged > 0 && row.judged < row.learning => Coverage::Mostly,
            Some(row) if row.judged > 0 => Coverage::Judged,
            Some(row) if row.learning > 0 => Coverage::Learning,
            _ if arrived.is_some_and(|row| row.activity.tally.judged > 0) => Coverage::Elsewhere,
            Some(row) if row.rejected > row.excluded => Coverage::Rejected,
            Some(row) if row.excluded > 0 => Coverage::Excluded,
            _ if is_reporting && start + grain + MINUTE > now.millis() => Coverage::Pending,
            _ => Coverage::Missing,
        };
        let end = share(start + grain);
        match runs.last_mut() {
            Some(last) if last.state == state => last.end = end,
            _ => runs.push(CoverageRun { start: share(start), end, state }),
        }
        start += grain;
    }
    match runs.as_mut_slice() {
        [all] if all.state == Coverage::Missing && !is_reporting => all.state = Coverage::Unknown,
        _ => {}
    }
    runs
}

/// Returns whether a part of the range needs the legend of excluded series.
pub(crate) fn has_excluded(runs: &[CoverageRun]) -> bool {
    runs.iter().any(|run| run.state == Coverage::Excluded)
}

/// The data of the chart.
pub(crate) struct MinuteChart<'a> {
    /// The time axis, as bins.
    pub bins: &'a Bins,
    /// Number of anomalies per bar.
    pub counts: &'a [BinCount],
    /// Runs of coverage, from [`runs`].
    pub runs: &'a [CoverageRun],
}

impl MinuteChart<'_> {
    fn most(&self) -> u64 {
        let most = self.counts.iter().map(|bin| bin.count.total()).max().unwrap_or(0);
        // The top of the scale is a round number whose half is also round.
        let steps = (0..19).flat_map(|power| [4, 6, 10, 16, 20, 30].map(|m| m * 10u64.pow(power)));
        steps.into_iter().find(|top| *top >= most).unwrap_or(most)
    }

    /// Draws the labels of the vertical axis.
    pub(crate) fn scale(&self) -> String {
        let most = self.most();
        let mut svg = open("");
        for value in [0, most / 2, most] {
            let y = height(value, most) + 4.0;
            let text = grouped(value);
            let _ =
                write!(svg, "<text class=\"t\" x=\"100%\" dx=\"-10\" y=\"{y:.1}\" text-anchor=\"end\">{text}</text>");
        }
        svg + "</svg>"
    }

    /// Draws the bars and the ribbon.
    pub(crate) fn bars(&self) -> String {
        let most = self.most();
        let total = self.counts.iter().fold(Count::default(), |sum, bin| Count {
            critical: sum.critical + bin.count.critical,
            warning: sum.warning + bin.count.warning,
        });
        let label = format!(
            "{} anomalies, {} critical, at most {most} in one bar; {}",
            total.total(),
            total.critical,
            self.words()
        );
        let mut svg = open(&format!(" role=\"img\" aria-label=\"{}\"", escape(&label)));
        for value in [most / 2, most] {
            let y = height(value, most);
            let _ = write!(svg, "<line class=\"grid\" x2=\"100%\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
        }
        self.behind(&mut svg);
        for bin in self.counts {
            self.bar(&mut svg, bin, most);
        }
        let _ = write!(svg, "<line class=\"axis\" x2=\"100%\" y1=\"{BOTTOM}\" y2=\"{BOTTOM}\"/>");
        self.ribbon(&mut svg);
        svg + "</svg>"
    }

    /// Draws only the ribbon of coverage.
    pub(crate) fn coverage(&self) -> String {
        let mut svg = format!(
            "<svg class=\"chart\" width=\"100%\" height=\"24\" role=\"img\" aria-label=\"{}\">",
            escape(&self.words())
        );
        self.ribbon_at(&mut svg, 4.0, 16.0);
        svg + "</svg>"
    }

    /// Describes the ribbon in words, for screen readers.
    fn words(&self) -> String {
        if self.runs.iter().any(|run| run.state == Coverage::Unknown) {
            return "it is not known whether values were judged".to_owned();
        }
        let percent = |state| self.share(state) * 100.0;
        let mut text = format!("values were judged in {:.0} % of this time", percent(Coverage::Judged));
        for (state, words) in [
            (Coverage::Mostly, "and mostly learning"),
            (Coverage::Learning, "only learning"),
            (Coverage::Elsewhere, "judged with other times"),
            (Coverage::Rejected, "only rejected"),
            (Coverage::Excluded, "only excluded"),
        ] {
            if percent(state) > 0.0 {
                text += &format!(", {words} in {:.0} %", percent(state));
            }
        }
        text
    }

    fn share(&self, state: Coverage) -> f64 {
        self.runs.iter().filter(|run| run.state == state).map(|run| run.end - run.start).sum()
    }

    /// Draws gaps over the whole height, with a name if there is space for it.
    fn behind(&self, svg: &mut String) {
        let first = self.runs.iter().position(|run| run.state.has_events());
        for (i, run) in self.runs.iter().enumerate() {
            let width = run.end - run.start;
            let (class, name) = match run.state {
                // Before the first event nothing is missing, and the ribbon is sufficient.
                Coverage::Missing if first.is_none_or(|first| i < first) => ("", "no events"),
                Coverage::Missing => ("hatch", "not judged"),
                Coverage::Unknown => ("", "not known"),
                Coverage::Learning => ("learn", "learning"),
                Coverage::Mostly => ("learn", "mostly learning"),
                Coverage::Rejected => ("hatch", "rejected"),
                Coverage::Excluded => ("hb", "excluded"),
                Coverage::Elsewhere => ("", "judged, with other times"),
                Coverage::Judged | Coverage::Pending => continue,
            };
            let (x, w) = (Percent(run.start), Percent(width));
            if !class.is_empty() {
                let _ = write!(
                    svg,
                    "<rect class=\"{class}\" x=\"{x}\" width=\"{w}\" y=\"{TOP}\" height=\"{}\"/>",
                    BOTTOM - TOP
                );
            }
            if width > 0.08 {
                // Near an end the name would be truncated.
                let anchor = if run.end > 0.97 && width < 0.12 { "end" } else { "middle" };
                let x = Percent(if anchor == "end" { run.end } else { run.start + width / 2.0 });
                let _ = write!(svg, "<text class=\"halo\" x=\"{x}\" y=\"56\" text-anchor=\"{anchor}\">{name}</text>");
            }
        }
    }

    fn bar(&self, svg: &mut String, bin: &BinCount, most: u64) {
        let Count { critical, warning } = bin.count;
        let width = 1.0 / self.bins.count.max(1) as f64;
        let x = Percent((bin.bin as f64 + 0.08) * width);
        let w = Percent(width * 0.84);
        let (middle, top) = (height(critical, most), height(critical + warning, most));
        let start = Timestamp::from_millis(self.bins.from.millis() + self.bins.width * bin.bin as i64);
        let is_long = self.bins.width * self.bins.count as i64 > 1440 * MINUTE;
        let name = |time| if is_long { format!("{} {}", day(time), minute(time)) } else { minute(time) };
        let text = format!("{critical} critical, {warning} warning");
        let title = start.map(|time| timed_title(time, &name(time), &text)).unwrap_or_default();
        let _ = write!(svg, "<g>{title}");
        if critical > 0 {
            let _ = write!(
                svg,
                "<rect class=\"c\" x=\"{x}\" width=\"{w}\" y=\"{middle:.1}\" height=\"{:.1}\"/>",
                BOTTOM - middle
            );
        }
        if warning > 0 {
            let (y, h) = (top + 0.75, (middle - top - 1.5).max(0.5));
            let _ = write!(svg, "<rect class=\"w\" x=\"{x}\" width=\"{w}\" y=\"{y:.1}\" height=\"{h:.1}\"/>");
        }
        *svg += "</g>";
    }

    fn ribbon(&self, svg: &mut String) {
        self.ribbon_at(svg, BOTTOM + 4.0, 4.0);
    }

    fn ribbon_at(&self, svg: &mut String, y: f64, height: f64) {
        for run in self.runs {
            let class = match run.state {
                Coverage::Judged => "cov",
                Coverage::Learning | Coverage::Mostly => "learning",
                Coverage::Elsewhere => "cov other",
                Coverage::Missing | Coverage::Unknown | Coverage::Rejected => "hatch",
                Coverage::Excluded => EXCLUDED_CLASSES,
                Coverage::Pending => continue,
            };
            let (x, w) = (Percent(run.start), Percent(run.end - run.start));
            let _ = write!(svg, "<rect class=\"{class}\" x=\"{x}\" width=\"{w}\" y=\"{y}\" height=\"{height}\"/>");
            if run.state == Coverage::Mostly {
                // The few judged values are a line at the bottom of the ribbon.
                let (y, height) = (y + height * 0.75, height * 0.25);
                let _ = write!(svg, "<rect class=\"cov\" x=\"{x}\" width=\"{w}\" y=\"{y}\" height=\"{height}\"/>");
            }
        }
    }

    /// Draws one device's anomalies: the height of a cell shows the number, its fill the severity.
    pub(crate) fn lane(&self, cells: &[(usize, Count)]) -> String {
        let total = cells.iter().map(|(_, count)| count.total()).sum::<u64>();
        let critical = cells.iter().map(|(_, count)| count.critical).sum::<u64>();
        let mut svg = format!(
            "<svg class=\"chart\" width=\"100%\" height=\"24\" role=\"img\" aria-label=\"{total} anomalies, {critical} critical\">\
             <line class=\"grid\" x2=\"100%\" y1=\"19.5\" y2=\"19.5\"/>"
        );
        let first = self.runs.iter().position(|run| run.state.has_events());
        let first = first.unwrap_or(usize::MAX);
        for run in self.runs.iter().skip(first) {
            let class = match run.state {
                Coverage::Missing | Coverage::Rejected => "hatch",
                Coverage::Excluded => EXCLUDED_CLASSES,
                _ => continue,
            };
            let (x, w) = (Percent(run.start), Percent(run.end - run.start));
            let _ = write!(svg, "<rect class=\"{class}\" x=\"{x}\" width=\"{w}\" y=\"5\" height=\"12\"/>");
        }
        let width = 1.0 / self.bins.count.max(1) as f64;
        for (bin, count) in cells {
            let height = match count.total() {
                0 => continue,
                1 => 7.0,
                2 | 3 => 12.0,
                _ => 16.0,
            };
            let class = if count.critical > 0 { "c" } else { "w" };
            let (x, w) = (Percent((*bin as f64 + 0.08) * width), Percent(width * 0.84));
            let _ = write!(
                svg,
                "<rect class=\"{class}\" x=\"{x}\" width=\"{w}\" y=\"{:.1}\" height=\"{height}\"/>",
                11.0 - height / 2.0
            );
        }
        svg + "</svg>"
    }
}

/// Draws round clock times below an axis, and the end of the axis if it is not the current time.
pub(crate) fn clock(bins: &Bins, end: Option<Timestamp>) -> String {
    let (from, span) = (bins.from.millis(), bins.width * bins.count as i64);
    let steps = [1, 2, 5, 10, 15, 30, 60, 120, 240, 360, 720, 1440, 2880, 7200, 10_080].map(|minutes| minutes * MINUTE);
    let step = steps.into_iter().find(|step| span / step <= 7).unwrap_or(span.max(1));
    let mut svg = "<svg class=\"chart\" width=\"100%\" height=\"22\" aria-hidden=\"true\">".to_owned();
    let first = from.div_euclid(step) + 1;
    for (i, k) in (first..=(from + span).div_euclid(step)).enumerate() {
        let share = (k * step - from) as f64 / span.max(1) as f64;
        let Some(time) = Timestamp::from_millis(k * step) else { continue };
        let (x, class) = (Percent(share), if i % 2 == 1 || share > 0.74 { " odd" } else { "" });
        let _ = write!(svg, "<line class=\"tick\" x1=\"{x}\" x2=\"{x}\" y1=\"0\" y2=\"4\"/>");
        // Close to `now` the two labels would touch.
        if (0.03..0.93).contains(&share) {
            let is_day = step >= 1440 * MINUTE;
            let (form, text) = if is_day { ("day", day(time)) } else { ("minute", minute(time)) };
            let _ = write!(
                svg,
                "<text class=\"t{class}\" x=\"{x}\" y=\"17\" text-anchor=\"middle\" data-t=\"{time}\" data-form=\"{form}\">{text}</text>"
            );
        }
    }
    let (data, text) = match end {
        Some(time) => (format!(" data-t=\"{time}\" data-form=\"minute\""), minute(time)),
        None => (String::new(), "now".to_owned()),
    };
    svg + &format!("<text class=\"t\" x=\"100%\" y=\"17\" text-anchor=\"end\"{data}>{text}</text></svg>")
}

/// Draws a bar that compares a name's anomalies with the largest number, critical ones first.
pub(crate) fn bar(count: Count, most: u64) -> String {
    let share = |n: u64| n as f64 / most.max(1) as f64;
    let (critical, warning) = (Percent(share(count.critical)), Percent(share(count.warning)));
    let mut svg = "<svg class=\"chart\" width=\"100%\" height=\"12\" aria-hidden=\"true\">".to_owned();
    if count.warning > 0 {
        let _ = write!(svg, "<rect class=\"w\" x=\"{critical}\" width=\"{warning}\" y=\"1\" height=\"10\"/>");
    }
    if count.critical > 0 {
        let _ = write!(svg, "<rect class=\"c\" width=\"{critical}\" height=\"12\"/>");
    }
    svg + "</svg>"
}

fn open(more: &str) -> String {
    format!("<svg class=\"chart\" width=\"100%\" height=\"{HEIGHT}\"{more}>")
}

fn height(value: u64, most: u64) -> f64 {
    BOTTOM - (BOTTOM - TOP) * value as f64 / most.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_millis(minute * MINUTE).unwrap()
    }

    fn row(minute: i64, judged: u64, learning: u64) -> CoverageRow {
        CoverageRow { minute: at(minute), judged, learning, rejected: 0, excluded: 0 }
    }

    const BINS: fn() -> Bins = || Bins { from: at(100), width: MINUTE, count: 10 };

    #[test]
    fn gaps_are_missing_and_the_newest_minute_is_pending() {
        let rows = [row(102, 0, 5), row(103, 9, 0), row(104, 9, 0), row(106, 9, 0), row(107, 9, 0), row(108, 9, 0)];
        let states = |is_reporting| {
            runs(&BINS(), &rows, &[], at(110), is_reporting)
                .iter()
                .map(|run| ((run.end * 10.0).round() as i64, run.state))
                .collect::<Vec<_>>()
        };
        use Coverage::*;
        assert_eq!(states(true), [(2, Missing), (3, Learning), (5, Judged), (6, Missing), (9, Judged), (10, Pending)]);
        assert_eq!(states(false).last(), Some(&(10, Missing)), "who does not report has judged nothing");
    }

    #[test]
    fn mostly_learning_all_rejected_and_other_times_do_not_look_like_judged() {
        let rejected = CoverageRow { rejected: 9, ..row(104, 0, 0) };
        let rows = [row(102, 2, 5_000), row(103, 9, 1), rejected];
        let mut arrived = crate::health::Activity::default();
        arrived.tally.judged = 60;
        let runs = runs(&BINS(), &rows, &[ActivityRow { minute: at(106), activity: arrived }], at(200), true);
        use Coverage::*;
        let states = runs.iter().map(|run| run.state).collect::<Vec<_>>();
        assert_eq!(states, [Missing, Mostly, Judged, Rejected, Missing, Elsewhere, Missing]);
        let svg = MinuteChart { bins: &BINS(), counts: &[], runs: &runs }.coverage();
        assert!(svg.contains("judged in 10 % of this time, and mostly learning in 10 %"), "{svg}");
        assert!(svg.contains("class=\"cov other\"") && svg.contains("class=\"learning\""), "{svg}");
    }

    #[test]
    fn minutes_of_excluded_series_only_look_neither_judged_nor_missing_and_have_their_name() {
        let all = |judged, rejected, excluded| CoverageRow { rejected, excluded, ..row(0, judged, 0) };
        let kinds = [all(9, 0, 0), all(0, 0, 7), all(0, 0, 7), all(0, 3, 7), all(0, 9, 7), all(1, 0, 7)];
        let rows = (102..).zip(kinds).map(|(minute, row)| CoverageRow { minute: at(minute), ..row });
        let runs = runs(&BINS(), &rows.collect::<Vec<_>>(), &[], at(200), true);
        use Coverage::*;
        let states = runs.iter().map(|run| run.state).collect::<Vec<_>>();
        assert_eq!(states, [Missing, Judged, Excluded, Rejected, Judged, Missing]);
        assert!(has_excluded(&runs) && !has_excluded(&runs[..2]));
        let chart = MinuteChart { bins: &BINS(), counts: &[], runs: &runs };
        let (ribbon, bars, lane) = (chart.coverage(), chart.bars(), chart.lane(&[]));
        assert!(ribbon.contains("only rejected in 10 %, only excluded in 30 %"), "{ribbon}");
        let place = "x=\"30.00%\" width=\"30.00%\"";
        for svg in [&ribbon, &bars, &lane] {
            assert!(svg.contains(&format!("<rect class=\"hb hl\" {place}")), "{svg}");
        }
        assert!(bars.contains(&format!("<rect class=\"hb\" {place}")) && bars.contains(">excluded</text>"), "{bars}");
    }

    #[test]
    fn bars_stand_on_their_minute_and_gaps_are_hatched() {
        let counts = [BinCount { bin: 3, count: Count { critical: 1, warning: 3 } }];
        let runs = runs(&BINS(), &[row(103, 9, 0), row(105, 9, 0)], &[], at(200), true);
        let chart = MinuteChart { bins: &BINS(), counts: &counts, runs: &runs };
        let svg = chart.bars();
        assert!(svg.contains("<rect class=\"c\" x=\"30.80%\" width=\"8.40%\" y=\"86.5\" height=\"25.5\"/>"), "{svg}");
        assert!(svg.contains("<rect class=\"w\" x=\"30.80%\" width=\"8.40%\" y=\"10.8\" height=\"75.0\"/>"), "{svg}");
        // The gap in the middle and the end appear behind the bars and in the ribbon. The gap before the first event
        // appears only in the ribbon.
        assert_eq!(svg.matches("class=\"hatch\"").count(), 5, "{svg}");
        assert!(chart.scale().contains(">4</text>"));
    }

    #[test]
    fn a_range_without_judged_values_has_no_ribbon() {
        let runs = runs(&BINS(), &[], &[], at(200), false);
        let svg = MinuteChart { bins: &BINS(), counts: &[], runs: &runs }.bars();
        assert!(!svg.contains("\"cov\"") && svg.contains("class=\"hatch\""), "{svg}");
    }

    #[test]
    fn ticks_are_round_clock_times() {
        let hour = Bins { from: Timestamp::parse_rfc3339("2026-11-23T17:42:31Z").unwrap(), width: MINUTE, count: 60 };
        let svg = clock(&hour, None);
        for time in ["17:50", "18:00", "18:30"] {
            assert!(svg.contains(time), "{svg}");
        }
        assert!(svg.contains("x=\"12.47%\""), "{svg}");
    }
}
