//! Checks that the limits of every series are consistent, whichever overrides apply to it.

use super::glob::{covers, overlaps};
use super::{Policy, PolicyOverride};

/// A conflict: a series may need more values than its window has. Each limit is that of an override, by its index, or
/// of all series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitsConflict {
    /// Override that sets `min_samples`, and its value.
    pub min_samples: (Option<usize>, usize),
    /// Override that sets `window`, and its value.
    pub window: (Option<usize>, usize),
}

/// A limit that is set for all series or by an override.
#[derive(Clone, Copy)]
struct SetLimit<'p> {
    at: Option<usize>,
    table: &'p PolicyOverride,
    value: usize,
}

impl Policy {
    /// Returns the first pair of a `min_samples` and a smaller `window` that can apply to one series. A pair does not
    /// count if a later override certainly replaces one of its limits.
    pub fn conflict(&self) -> Option<LimitsConflict> {
        let all = PolicyOverride::default();
        let counts = self.limits(&all, self.min_samples, |one| one.min_samples);
        let windows = self.limits(&all, self.window, |one| one.window);
        counts.iter().find_map(|count| {
            let fits = |window: &&SetLimit<'_>| {
                count.value > window.value
                    && meets(count.table, window.table)
                    && !is_replaced(count, window, &counts)
                    && !is_replaced(window, count, &windows)
            };
            let window = windows.iter().find(fits)?;
            Some(LimitsConflict { min_samples: (count.at, count.value), window: (window.at, window.value) })
        })
    }

    /// Returns the settings of a limit, the weakest first.
    fn limits<'p>(
        &'p self,
        all: &'p PolicyOverride,
        of_all: usize,
        limit: impl Fn(&PolicyOverride) -> Option<usize>,
    ) -> Vec<SetLimit<'p>> {
        let set = (0..).zip(&self.overrides);
        let set = set.filter_map(|(at, table)| Some(SetLimit { at: Some(at), table, value: limit(table)? }));
        std::iter::once(SetLimit { at: None, table: all, value: of_all }).chain(set).collect()
    }
}

fn pattern(of: &Option<String>) -> &str {
    of.as_deref().unwrap_or("*")
}

/// Returns whether some series matches both overrides.
fn meets(one: &PolicyOverride, other: &PolicyOverride) -> bool {
    overlaps(pattern(&one.device), pattern(&other.device)) && overlaps(pattern(&one.metric), pattern(&other.metric))
}

/// Returns whether a later override sets the same limit for every series that matches both.
fn is_replaced(limit: &SetLimit<'_>, with: &SetLimit<'_>, same: &[SetLimit<'_>]) -> bool {
    let covers = |later: &PolicyOverride, of: fn(&PolicyOverride) -> &Option<String>| {
        let outer = pattern(of(later));
        covers(outer, pattern(of(limit.table))) || covers(outer, pattern(of(with.table)))
    };
    let later = same.iter().filter(|other| other.at > limit.at);
    later.map(|other| other.table).any(|other| covers(other, |one| &one.device) && covers(other, |one| &one.metric))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row = (&'static str, &'static str, Option<usize>, Option<usize>);

    /// Returns the conflict of overrides, with a window of 100 and a minimum of 30 samples for all series.
    fn conflict(rows: &[Row]) -> Option<(Option<usize>, Option<usize>)> {
        let table = |(device, metric, min_samples, window): &Row| PolicyOverride {
            device: Some((*device).into()),
            metric: Some((*metric).into()),
            min_samples: *min_samples,
            window: *window,
            ..PolicyOverride::default()
        };
        let policy = Policy { overrides: rows.iter().map(table).collect(), ..Policy::default() };
        policy.conflict().map(|found| (found.min_samples.0, found.window.0))
    }

    #[test]
    fn no_series_may_need_more_values_than_its_window_has() {
        for (rows, found) in [
            (&[("*", "*", None, Some(20))][..], Some((None, Some(0)))),
            (&[("*", "*", Some(101), None)], Some((Some(0), None))),
            (&[("*", "*", Some(20), Some(20))], None),
            (&[("*", "*", Some(21), Some(20))], Some((Some(0), Some(0)))),
            // Two overrides that apply to a common series, and two that do not.
            (&[("pump-*", "*", Some(60), None), ("*", "temp", None, Some(50))], Some((Some(0), Some(1)))),
            (&[("pump-*", "*", Some(60), None), ("fan-*", "*", None, Some(50))], None),
            // A later override replaces the limit for all series that match both, or only for some.
            (&[("a*", "*", Some(60), None), ("a*", "t", None, Some(50)), ("a*", "*", Some(40), None)], None),
            (&[("a*", "*", Some(60), None), ("a*", "t", None, Some(50)), ("*", "t", Some(40), None)], None),
            (
                &[("a*", "*", Some(60), None), ("a*", "t", None, Some(50)), ("ab", "*", Some(40), None)],
                Some((Some(0), Some(1))),
            ),
            (&[("*", "t", None, Some(20)), ("*", "t", Some(5), None)], None),
            (&[("*", "t", Some(5), None), ("*", "t", None, Some(20))], None),
        ] {
            assert_eq!(conflict(rows), found, "{rows:?}");
        }
    }
}
