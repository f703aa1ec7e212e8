//! Synthetic devices. Value, device and label of event `i` are functions of (seed, i) and of its virtual time `start +
//! i x step`. The same settings therefore give the same events; the rate only affects when they are sent.

use std::f64::consts::TAU;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_distr::StandardNormal;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::{EventSource, SourceEvent, SourceStep, Writer};
use crate::config::resolved::ProducerSettings;
use crate::error::Result;
use crate::event::{Fields, Timestamp};

/// Kinds of devices: name, metric, usual level in the metric's unit.
const KINDS: [(&str, &str, f64); 4] =
    [("pump", "temperature", 60.0), ("press", "pressure", 4.0), ("fan", "vibration", 2.0), ("motor", "current", 12.0)];

/// Kinds of injected anomalies, with the number of events of the device that each lasts.
const LABELS: [(&str, u64); 6] =
    [("spike", 1), ("dip", 1), ("level_shift", 30), ("drift", 40), ("stuck", 30), ("noise_burst", 12)];
/// Number of events per block: each block of a device's events contains one injected anomaly or none.
const BLOCK: u64 = 200;
const DAY: f64 = 86_400.0;

/// The generator of synthetic events.
pub(crate) struct Generator {
    seed: u64,
    devices: u64,
    rate: f64,
    start: Timestamp,
    step: Duration,
    /// Probability that a block contains an anomaly.
    chance: f64,
    count: u64,
    writer: Writer,
    next: u64,
}

/// Properties of a synthetic device.
struct GeneratedDevice {
    level: f64,
    daily: f64,
    noise: f64,
    drift: f64,
    phase: f64,
}

impl Generator {
    /// Creates a generator; `now` is the virtual start unless the settings name one.
    pub(crate) fn new(settings: &ProducerSettings, fields: &Fields, now: Timestamp) -> Self {
        let per_event = if settings.rate > 0.0 { 1.0 / settings.rate } else { 0.001 };
        let mean_length = LABELS.iter().map(|(_, length)| length).sum::<u64>() as f64 / LABELS.len() as f64;
        Generator {
            seed: settings.seed,
            devices: settings.devices,
            rate: settings.rate,
            start: settings.start.unwrap_or(now),
            step: settings.step.unwrap_or_else(|| Duration::from_secs_f64(per_event.min(1e9))),
            chance: (settings.anomaly_rate * BLOCK as f64 / mean_length).min(1.0),
            count: settings.count,
            writer: Writer::new(fields),
            next: 0,
        }
    }

    /// Creates a random-number generator for one purpose and one position.
    fn random(&self, purpose: u64, place: u64) -> Xoshiro256PlusPlus {
        let mixed = (self.seed ^ purpose.rotate_left(48)).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ place;
        Xoshiro256PlusPlus::seed_from_u64(mixed)
    }

    fn device(&self, device: u64) -> GeneratedDevice {
        let mut random = self.random(1, device);
        let (_, _, usual) = KINDS[(device % KINDS.len() as u64) as usize];
        let level = usual * random.random_range(0.7..1.3);
        GeneratedDevice {
            level,
            daily: level * random.random_range(0.02..0.08),
            noise: level * random.random_range(0.004..0.015),
            drift: level * random.random_range(-0.05..0.05),
            phase: random.random_range(0.0..TAU),
        }
    }

    /// Returns the virtual time in seconds since the epoch.
    fn seconds(&self, event: u64) -> f64 {
        self.start.millis() as f64 / 1000.0 + event as f64 * self.step.as_secs_f64()
    }

    /// Returns the value without anomalies.
    fn ordinary(&self, of: &GeneratedDevice, event: u64) -> f64 {
        let at = self.seconds(event);
        let noise: f64 = self.random(2, event).sample(StandardNormal);
        let daily = of.daily * (TAU * at / DAY + of.phase).sin();
        let drift = of.drift * (TAU * at / (30.0 * DAY) + of.phase).sin();
        of.level + daily + drift + of.noise * noise
    }

    /// Returns the kind of the injected anomaly that this event belongs to, and the event's position in it.
    fn injected(&self, device: u64, turn: u64) -> Option<(usize, u64)> {
        let block = turn / BLOCK;
        // All events of a block use the same random draw.
        let mut random = self.random(3, device.wrapping_mul(0x1_0000_0001).wrapping_add(block.rotate_left(20)));
        if random.random::<f64>() >= self.chance {
            return None;
        }
        let kind = random.random_range(0..LABELS.len());
        let length = LABELS[kind].1;
        let first = random.random_range(0..=BLOCK - length);
        let place = (turn % BLOCK).checked_sub(first)?;
        (place < length).then_some((kind, place))
    }

    /// Returns event number `i`: device, metric, value, label.
    fn event(&self, i: u64) -> (String, &'static str, f64, Option<&'static str>) {
        let (device, turn) = (i % self.devices, i / self.devices);
        let of = self.device(device);
        let (kind, metric, _) = KINDS[(device % KINDS.len() as u64) as usize];
        let mut value = self.ordinary(&of, i);
        let injected = self.injected(device, turn);
        if let Some((which, place)) = injected {
            let size = of.noise * (10.0 + 10.0 * self.random(4, i - place * self.devices).random::<f64>());
            match LABELS[which].0 {
                "spike" | "level_shift" => value += size,
                "dip" => value -= size,
                "drift" => value += size * (place + 1) as f64 / LABELS[which].1 as f64,
                "stuck" => value = self.ordinary(&of, i - place * self.devices),
                _ => value += of.noise * 8.0 * self.random(5, i).sample::<f64, _>(StandardNormal),
            }
        }
        // Sensors have a limited resolution.
        let value = (value * 1e4).round() / 1e4;
        (format!("{kind}-{device:04}"), metric, value, injected.map(|(which, _)| LABELS[which].0))
    }
}

impl EventSource for Generator {
    fn next(&mut self, elapsed: Duration) -> Result<SourceStep> {
        let i = self.next;
        if self.count > 0 && i >= self.count {
            return Ok(SourceStep::End);
        }
        if self.rate > 0.0 {
            let due = Duration::from_secs_f64((i as f64 / self.rate).min(1e12));
            if due > elapsed {
                return Ok(SourceStep::Wait(due - elapsed));
            }
        }
        self.next += 1;
        let (device, metric, value, label) = self.event(i);
        let at = Timestamp::from_millis((self.seconds(i) * 1000.0) as i64);
        let value = self.writer.event(&device, Some(metric), value, at);
        Ok(SourceStep::Event(SourceEvent { key: Some(device.into_bytes()), value, label }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{SettingFiles, load};

    fn settings(rate: f64) -> ProducerSettings {
        let mut settings = load(&SettingFiles::default()).unwrap().settings.producer;
        (settings.rate, settings.devices, settings.start) = (rate, 20, Timestamp::from_millis(1_764_000_000_000));
        settings.step = Some(Duration::from_millis(10));
        settings
    }

    fn run(settings: &ProducerSettings, n: usize) -> Vec<SourceEvent> {
        let mut generator = Generator::new(settings, &Fields::default(), Timestamp::now());
        std::iter::repeat_with(|| match generator.next(Duration::from_secs(1 << 30)).unwrap() {
            SourceStep::Event(sample) => sample,
            other => panic!("{other:?}"),
        })
        .take(n)
        .collect()
    }

    #[test]
    fn the_same_settings_give_the_same_events_whatever_the_rate() {
        assert_eq!(run(&settings(1.0), 5_000), run(&settings(0.0), 5_000));
        let other = ProducerSettings { seed: 2, ..settings(0.0) };
        assert_ne!(run(&settings(0.0), 100), run(&other, 100));
    }

    #[test]
    fn every_kind_is_injected_at_about_the_stated_rate() {
        let n = 400_000;
        let events = run(&ProducerSettings { anomaly_rate: 0.01, ..settings(0.0) }, n);
        let share = |label: &str| events.iter().filter(|e| e.label == Some(label)).count() as f64 / n as f64;
        let total = LABELS.iter().map(|(label, _)| share(label)).sum::<f64>();
        assert!((0.008..0.012).contains(&total), "{total}");
        for (label, _) in LABELS {
            assert!(share(label) > 0.0, "{label}");
        }
    }

    #[test]
    fn the_rate_paces_and_the_count_ends() {
        let mut generator =
            Generator::new(&ProducerSettings { count: 2, ..settings(10.0) }, &Fields::default(), Timestamp::now());
        assert!(matches!(generator.next(Duration::ZERO).unwrap(), SourceStep::Event(_)));
        assert_eq!(generator.next(Duration::from_millis(30)).unwrap(), SourceStep::Wait(Duration::from_millis(70)));
        assert!(matches!(generator.next(Duration::from_millis(100)).unwrap(), SourceStep::Event(_)));
        assert_eq!(generator.next(Duration::from_secs(9)).unwrap(), SourceStep::End);
    }
}
