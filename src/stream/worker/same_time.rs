//! Detects series that get several values of the same time. Two sources then share one device and one metric. Their
//! values are mixed in one window, in which few values are abnormal. A few series of each partition are checked at a
//! time.

use crate::event::{Decoded, Event, Timestamp};
use crate::foreign;

/// Number of series of a partition that are checked at the same time.
const MAX_PROBES: usize = 8;
/// Number of compared values of one series before another series is checked. It is odd because sources may alternate.
const VALUES_PER_PROBE: u8 = 9;
/// Number of offsets after which a series without a new record is replaced.
const CURRENT_OFFSETS: i64 = 100_000;
/// Minimum number of comparisons for a finding.
const MIN_COMPARISONS: u32 = 20;
/// Number of comparisons at which both counts are halved, so that a change becomes visible.
const HALVING_COMPARISONS: u32 = 1_024;
/// Share of comparisons that raises the condition: one in this number. Less than half of that share clears it.
const RAISING_SHARE: u32 = 10;

/// State of the check in one partition.
#[derive(Debug, Clone, Default)]
pub(super) struct SameTime {
    /// Hash of each probe's series; 0 means free.
    fingerprints: [u64; MAX_PROBES],
    probes: [Option<Probe>; MAX_PROBES],
    newest: Option<i64>,
    /// Offset at which probes were last freed.
    roomed: i64,
    compared: u32,
    same: u32,
    example: Option<Example>,
    /// Whether the last call of [`finding`](Self::finding) returned a message.
    is_raised: bool,
}

/// The last value of a checked series.
#[derive(Debug, Clone)]
struct Probe {
    device: Box<str>,
    metric: Option<Box<str>>,
    at: Timestamp,
    value: f64,
    offset: i64,
    left: u8,
}

/// Two values of one series at the same time.
#[derive(Debug, Clone)]
struct Example {
    device: Box<str>,
    metric: Option<Box<str>>,
    at: Timestamp,
    offsets: [i64; 2],
}

impl SameTime {
    /// Notes the events of a record, in offset order. Only times that the events themselves have are compared. Values of one
    /// record that share its time are samples of a series, and are not compared with one another.
    pub(crate) fn note(&mut self, offset: i64, record: &Decoded<'_>) {
        if self.newest.is_some_and(|newest| offset <= newest) {
            return;
        }
        for (_, event) in record.events() {
            if let Some(at) = event.timestamp {
                self.newest = Some(offset);
                self.note_event(offset, event, at, record.has_own_times());
            }
        }
    }

    fn note_event(&mut self, offset: i64, event: &Event<'_>, at: Timestamp, has_own_time: bool) {
        let fingerprint = fingerprint(event);
        if let Some(place) = self.fingerprints.iter().position(|known| *known == fingerprint) {
            self.compare(place, offset, at, event, has_own_time);
        } else if let Some(free) = self.fingerprints.iter().position(|known| *known == 0) {
            let (device, metric) = (event.device_id.as_ref().into(), event.metric_name.as_deref().map(Into::into));
            self.fingerprints[free] = fingerprint;
            self.probes[free] =
                Some(Probe { device, metric, at, value: event.metric_value, offset, left: VALUES_PER_PROBE });
        } else if offset - self.roomed >= 4_096 {
            self.roomed = offset;
            self.make_room(offset);
        }
    }

    fn compare(&mut self, place: usize, offset: i64, at: Timestamp, event: &Event<'_>, has_own_time: bool) {
        let Some(probe) = &mut self.probes[place] else { return };
        if *probe.device != *event.device_id || probe.metric.as_deref() != event.metric_name.as_deref() {
            return;
        }
        if probe.offset == offset && !has_own_time {
            return;
        }
        self.compared += 1;
        // A record that was sent twice has the same value.
        if probe.at == at && probe.value.to_bits() != event.metric_value.to_bits() {
            self.same += 1;
            let (device, metric) = (probe.device.clone(), probe.metric.clone());
            self.example = Some(Example { device, metric, at, offsets: [probe.offset, offset] });
        }
        (probe.at, probe.value, probe.offset) = (at, event.metric_value, offset);
        probe.left -= 1;
        if probe.left == 0 {
            (self.fingerprints[place], self.probes[place]) = (0, None);
        }
        if self.compared >= HALVING_COMPARISONS {
            (self.compared, self.same) = (self.compared / 2, self.same / 2);
        }
    }

    fn make_room(&mut self, offset: i64) {
        for (fingerprint, probe) in self.fingerprints.iter_mut().zip(&mut self.probes) {
            if probe.as_ref().is_some_and(|probe| offset - probe.offset > CURRENT_OFFSETS) {
                (*fingerprint, *probe) = (0, None);
            }
        }
    }

    /// Returns the message while too many comparisons found the same time.
    pub(crate) fn finding(&mut self, topic: &str, partition: i32) -> Option<String> {
        let least = if self.is_raised {
            self.compared.div_ceil(2 * RAISING_SHARE)
        } else {
            self.compared.div_ceil(RAISING_SHARE)
        };
        self.is_raised = self.compared >= MIN_COMPARISONS && self.same >= least.max(1);
        let Example { device, metric, at, offsets: [one, other] } = self.example.as_ref().filter(|_| self.is_raised)?;
        let metric = metric.as_ref().map(|metric| format!(", metric {}", foreign::name(metric))).unwrap_or_default();
        Some(format!(
            "device {}{metric} gets several values of the same time: {at} at offsets {one} and {other} of {topic} [{partition}], \
             and so did {} of {} values compared. If they come from several sources, one window mixes them and anomalies are \
             missed: set fields.metric, or put fields.device together from several paths, as {{tags.host}}/{{tags.cpu}}",
            foreign::name(device),
            self.same,
            self.compared
        ))
    }
}

/// Returns a cheap hash of the series, which is never 0.
fn fingerprint(event: &Event<'_>) -> u64 {
    let metric = event.metric_name.as_deref().unwrap_or_default();
    (tail(event.device_id.as_bytes()) ^ tail(metric.as_bytes()).rotate_left(17)) | 1
}

/// Returns the last eight bytes, where names differ most often, combined with the length.
fn tail(bytes: &[u8]) -> u64 {
    let last = match bytes.last_chunk::<8>() {
        Some(last) => u64::from_le_bytes(*last),
        None => bytes.iter().fold(0, |all, byte| all << 8 | u64::from(*byte)),
    };
    last ^ (bytes.len() as u64) << 56
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn note(found: &mut SameTime, offset: i64, device: &str, second: i64, value: f64) {
        let timestamp = Timestamp::from_millis(second * 1_000);
        let event = Event { device_id: Cow::Borrowed(device), metric_name: None, metric_value: value, timestamp };
        found.note(offset, &Decoded::One(event));
    }

    #[test]
    fn two_sources_with_one_name_are_detected_also_among_many_series_and_in_any_order() {
        for (series, sources) in [(1, 2), (1, 3), (40, 2), (200, 8)] {
            let mut found = SameTime::default();
            let mut offset = 0;
            for second in 0..60 {
                for device in 0..series {
                    for source in 0..sources {
                        note(&mut found, offset, &format!("host-{device}"), second, f64::from(source));
                        offset += 1;
                    }
                }
            }
            let finding = found.finding("raw", 3);
            assert!(finding.is_some_and(|text| text.contains("of raw [3]")), "{series} series of {sources} sources");
        }
    }

    #[test]
    fn one_source_repeated_records_and_records_read_again_are_no_finding() {
        let mut found = SameTime::default();
        for second in 0..500 {
            // The producer sends every third record twice.
            note(&mut found, 3 * second, "d", second, second as f64);
            if second % 3 == 0 {
                note(&mut found, 3 * second + 1, "d", second, second as f64);
            }
            // The record is read again after an aborted transaction.
            note(&mut found, 3 * second, "d", second, second as f64 + 1.0);
            note(&mut found, 3 * second + 2, &format!("other-{}", second % 30), second, 1.0);
        }
        assert_eq!(found.finding("raw", 0), None);
    }

    #[test]
    fn a_finding_ends_when_times_differ_again() {
        let mut found = SameTime::default();
        (0..100).for_each(|i| note(&mut found, i, "d", i / 2, i as f64));
        assert!(found.finding("raw", 0).is_some());
        (100..9_000).for_each(|i| note(&mut found, i, "d", i, i as f64));
        assert_eq!(found.finding("raw", 0), None);
    }
}
