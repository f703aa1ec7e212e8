//! The window's figures equal the oracle's in every bit, and the screen never changes a verdict.

use std::borrow::Cow;

use anomaly::anomaly::RecordId;
use anomaly::detect::{DetectionSettings, Detector, Verdict};
use anomaly::event::Event;
use anomaly::policy::{Policy, PolicyOverride};
use anomaly::series_block::SeriesBlock;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::oracle::Oracle;

/// Sequences that are hard for floating point: tiny spreads far from zero, constants, subnormals, alternating signs.
fn values() -> impl Strategy<Value = Vec<f64>> {
    let offset = prop_oneof![Just(0.0), Just(0.1), Just(1e6), Just(-1e9), Just(1e12), Just(-1e12)];
    let spread = prop_oneof![Just(0.0), Just(1e-6), Just(1e-3), Just(1.0), Just(1e3), Just(1e9)];
    let around = (offset, spread, vec(-1.0..1.0f64, 2..260))
        .prop_map(|(offset, spread, noise)| noise.into_iter().map(|x| offset + spread * x).collect::<Vec<_>>());
    let constant = (any::<f64>().prop_filter("finite", |x| x.is_finite()), 2..260usize).prop_map(|(x, n)| vec![x; n]);
    let subnormal = vec(0u64..1 << 40, 2..200).prop_map(|bits| bits.into_iter().map(f64::from_bits).collect());
    let alternating = (1e-300..1e300f64, vec(0.5..2.0f64, 2..200)).prop_map(|(size, factors)| {
        factors.into_iter().enumerate().map(|(i, f)| if i % 2 == 0 { size * f } else { -size * f }).collect()
    });
    let stepping = vec((0..4u8, -3.0..3.0f64), 2..260).prop_map(|steps| {
        let mut level = 0.0;
        let step = |(kind, x): (u8, f64)| {
            level += if kind == 0 { x * 1e6 } else { 0.0 };
            level + x
        };
        steps.into_iter().map(step).collect()
    });
    prop_oneof![3 => around, 1 => constant, 1 => subnormal, 1 => alternating, 2 => stepping]
}

/// Sizes hundreds of orders of magnitude apart: a sum of them has more bits than two f64 hold, so that what lies exactly
/// between two f64 may be rounded to either.
fn wild() -> impl Strategy<Value = Vec<f64>> {
    vec(any::<f64>().prop_filter("finite", |x| x.is_finite()), 2..150)
}

/// Returns whether two numbers are equal or neighbours among the f64.
fn are_close(a: f64, b: f64) -> bool {
    a == b || a.next_up() == b || a.next_down() == b
}

/// Number of cases: `PROPTEST_CASES`, or a number that takes seconds.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(400)
}

/// Method, window, min_samples, threshold and floor of the deviation that a series must have.
type Expected = (&'static str, usize, usize, u32, f64);

/// Series, and what must apply to each under [`overrides`]; `None`: it is excluded.
const SERIES: [(&str, Option<&str>, Option<Expected>); 6] = [
    ("other", None, Some(("sigma", 40, 5, 3, 0.0))),
    ("pump-1", Some("flow"), Some(("sigma", 12, 5, 4, 0.0))),
    // Two overrides apply, and the later one wins where both set a limit.
    ("pump-1", Some("temperature"), Some(("ewma", 12, 8, 2, 0.0))),
    ("fan", Some("temperature"), Some(("ewma", 40, 8, 2, 0.0))),
    ("fan", Some("speed"), Some(("sigma", 40, 5, 3, 0.5))),
    ("pump-off", Some("temperature"), None),
];

fn overrides() -> Vec<PolicyOverride> {
    let on = |device: &str, metric: &str| PolicyOverride {
        device: Some(device.into()),
        metric: Some(metric.into()),
        ..PolicyOverride::default()
    };
    vec![
        PolicyOverride { window: Some(12), threshold: Some(4.0), ..on("pump-*", "*") },
        PolicyOverride { method: Some("ewma".into()), threshold: Some(2.0), min_samples: Some(8), ..on("*", "temp*") },
        PolicyOverride { min_std_dev: Some(0.5), ..on("fan", "spee?") },
        PolicyOverride { enabled: Some(false), ..on("*-off", "*") },
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mean_and_deviation_equal_exact_arithmetic_in_every_bit(values in values(), capacity in 2..120usize) {
        let (mut window, mut oracle) = (SeriesBlock::default(), Oracle::new(capacity, 1, 3));
        for value in values {
            if let Some(judged) = oracle.judge("s", value) {
                let moments = window.moments().unwrap();
                prop_assert_eq!(moments.mean.to_bits(), (judged.mean + 0.0).to_bits(), "{} {}", moments.mean, judged.mean);
                prop_assert_eq!(moments.std_dev, judged.std_dev);
            }
            window.push(value, capacity);
        }
    }

    #[test]
    fn sizes_far_apart_cost_at_most_the_last_bit(values in wild(), capacity in 2..120usize) {
        let (mut window, mut oracle) = (SeriesBlock::default(), Oracle::new(capacity, 1, 3));
        for value in values {
            if let Some(judged) = oracle.judge("s", value) {
                let moments = window.moments().unwrap();
                prop_assert!(are_close(moments.mean, judged.mean), "{:e} {:e}", moments.mean, judged.mean);
                prop_assert!(are_close(moments.std_dev, judged.std_dev), "{:e} {:e}", moments.std_dev, judged.std_dev);
            }
            window.push(value, capacity);
        }
    }

    #[test]
    fn a_value_that_the_screen_lets_pass_is_normal_by_exact_arithmetic(
        values in prop_oneof![values(), wild()], capacity in 2..120usize, threshold in 1..6u32,
    ) {
        let (mut window, mut oracle) = (SeriesBlock::default(), Oracle::new(capacity, 1, threshold));
        for value in values {
            let passes = window.certainly_within(value, f64::from(threshold));
            if let Some(judged) = oracle.judge("s", value) {
                prop_assert!(!(passes && judged.is_abnormal), "{value:e} passes, but is abnormal");
            }
            window.push(value, capacity);
        }
    }

    #[test]
    fn every_verdict_equals_the_oracles(values in values(), method in prop::sample::select(&["sigma", "ewma"][..])) {
        let policy = Policy { window: 40, min_samples: 5, method: method.into(), ..Policy::default() };
        let settings = DetectionSettings { policy, ..DetectionSettings::default() };
        let (mut detector, mut oracle) = (Detector::new(settings).unwrap(), Oracle::of(method, 40, 5, 3));
        for (offset, value) in values.into_iter().enumerate() {
            let source = RecordId { topic: "t".into(), generation: 0, partition: 0, offset: offset as i64, index: 0 };
            let event =
                Event { device_id: Cow::Borrowed("d"), metric_name: None, metric_value: value, timestamp: None };
            let verdict = detector.within(0, |judge| judge.judge(&source, &event, None, || None));
            match oracle.judge("s", value) {
                None => prop_assert_eq!(verdict, Verdict::Learning),
                // The rule is stated over figures that are f64: near 1e12 rounding the mean may decide.
                Some(judged) => {
                    let is_abnormal = (value - judged.mean).abs() > 3.0 * judged.std_dev;
                    prop_assert_eq!(matches!(verdict, Verdict::Anomalous(_)), is_abnormal, "{:e}", value);
                    if let Verdict::Anomalous(anomaly) = verdict {
                        prop_assert_eq!(anomaly.mean.map(f64::to_bits), Some((judged.mean + 0.0).to_bits()));
                        prop_assert_eq!(anomaly.std_dev, Some(judged.std_dev));
                    }
                }
            }
        }
    }
    #[test]
    fn every_verdict_equals_the_oracle_of_its_own_series_under_overrides(
        values in values(), turns in vec(0..SERIES.len(), 260),
    ) {
        let policy = Policy { window: 40, min_samples: 5, overrides: overrides(), ..Policy::default() };
        let mut detector = Detector::new(DetectionSettings { policy, ..DetectionSettings::default() }).unwrap();
        let mut oracles = SERIES.map(|(.., expected)| {
            expected.map(|(method, window, min_samples, threshold, _)| Oracle::of(method, window, min_samples, threshold))
        });
        let mut seen = [0; SERIES.len()];
        // Each value goes to two series, so that all of them get past their minimum.
        let values = values.into_iter().flat_map(|value| [value; 2]);
        for (offset, (value, at)) in values.zip(turns.iter().chain(turns.iter().rev()).copied()).enumerate() {
            let (device, metric, expected) = SERIES[at];
            let source = RecordId { topic: "t".into(), generation: 0, partition: 0, offset: offset as i64, index: 0 };
            let event = Event {
                device_id: Cow::Borrowed(device),
                metric_name: metric.map(Cow::Borrowed),
                metric_value: value,
                timestamp: None,
            };
            let verdict = detector.within(0, |judge| judge.judge(&source, &event, None, || None));
            let Some(((method, window, _, threshold, floor), oracle)) = expected.zip(oracles[at].as_mut()) else {
                prop_assert_eq!(verdict, Verdict::Excluded);
                continue;
            };
            let before = seen[at];
            seen[at] += 1;
            match oracle.judge("s", value) {
                None => prop_assert_eq!(verdict, Verdict::Learning, "{:?}", SERIES[at]),
                Some(judged) => {
                    let limit = f64::from(threshold) * judged.std_dev.max(floor);
                    let is_abnormal = (value - judged.mean).abs() > limit;
                    prop_assert_eq!(matches!(verdict, Verdict::Anomalous(_)), is_abnormal, "{:?} {:e}", SERIES[at], value);
                    if let Verdict::Anomalous(anomaly) = verdict {
                        let held = (anomaly.method.as_str(), anomaly.threshold, anomaly.window_count as usize);
                        prop_assert_eq!(held, (method, Some(f64::from(threshold)), window.min(before)));
                        prop_assert_eq!(anomaly.mean.map(f64::to_bits), Some((judged.mean + 0.0).to_bits()));
                        prop_assert_eq!(anomaly.std_dev, Some(judged.std_dev));
                    }
                }
            }
        }
    }
}
