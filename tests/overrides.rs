//! [[detector.override]] through a real Kafka: methods, limits and exclusions of single series, also after a change of them.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::common::{Case, Process, Sent, event, wait};
use crate::oracle::Oracle;
use crate::pipeline::wait_done;

const DEVICES: [&str; 4] = ["calm-1", "noisy-2", "plain-3", "off-4"];
/// Records of each run.
const RUN: i64 = 8_000;

fn records(seed: u64) -> impl Iterator<Item = Sent> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    (0..RUN).map(move |i| {
        let spike = if random.random_range(0..60) == 0 { random.random_range(-12.0..12.0) } else { 0.0 };
        event(DEVICES[i as usize % DEVICES.len()], 20.0 + random.random_range(-1.0..1.0) + spike)
    })
}

/// What holds for a device: method, window, min_samples and threshold; `None`: it is excluded.
type Held = BTreeMap<&'static str, Option<(&'static str, usize, usize, u32)>>;

fn start(case: &Case, overrides: &str) -> Process {
    std::fs::create_dir_all(case.dir.path().join("conf.d")).unwrap();
    std::fs::write(case.dir.path().join("conf.d/10.toml"), overrides).unwrap();
    // No sweep: the run after it replays this one.
    case.detector("a", &[("DETECTOR__SNAPSHOT_INTERVAL", "1h")])
}

#[test]
fn series_have_methods_and_limits_of_their_own_and_an_excluded_one_is_counted_also_after_a_change() {
    let case = Case::new("overrides");
    let first = "[[detector.override]]\ndevice = \"calm-*\"\nmethod = \"ewma\"\nthreshold = 4\nwindow = 60\n\
                 [[detector.override]]\ndevice = \"noisy-?\"\nmetric = \"m\"\nthreshold = 5\nwindow = 40\nmin_samples = 10\n\
                 [[detector.override]]\ndevice = \"off-*\"\nenabled = false\n";
    case.produce(records(1));
    let mut detector = start(&case, first);
    wait_done(&case, RUN);
    wait("the counter", || detector.metric("anomaly_events_total{kind=\"excluded\"}") == RUN as f64 / 4.0);
    let excluded = "select coalesce(sum(excluded), 0)::bigint from coverage";
    wait("the coverage", || case.sql().query_one(excluded, &[]).unwrap().get::<_, i64>(0) == RUN / 4);
    detector.child.kill().unwrap();
    detector.child.wait().unwrap();
    let ends = case.read(&case.raw()).iter().fold(BTreeMap::new(), |mut ends, got| {
        *ends.entry(got.partition).or_insert(0) += 1;
        ends
    });
    // Another method for one, another window for the second, and the excluded one begins to learn.
    let second = "[[detector.override]]\ndevice = \"calm-*\"\nthreshold = 4\nwindow = 50\n\
                  [[detector.override]]\ndevice = \"noisy-?\"\nthreshold = 3\nmethod = \"ewma\"\n";
    case.produce(records(2));
    let detector = start(&case, second);
    wait_done(&case, 2 * RUN);
    assert!(!detector.log().contains("ERROR"), "{}", detector.log());

    let plain = Some(("sigma", 100, 30, 3));
    let held: [Held; 2] = [
        [
            ("calm-1", Some(("ewma", 60, 30, 4))),
            ("noisy-2", Some(("sigma", 40, 10, 5))),
            ("plain-3", plain),
            ("off-4", None),
        ]
        .into(),
        [
            ("calm-1", Some(("sigma", 50, 30, 4))),
            ("noisy-2", Some(("ewma", 100, 30, 3))),
            ("plain-3", plain),
            ("off-4", plain),
        ]
        .into(),
    ];
    let mut oracles = BTreeMap::new();
    let (mut expected, mut edges) = (BTreeSet::new(), BTreeSet::new());
    for got in case.read(&case.raw()) {
        let (place, json) = ((got.partition, got.offset), got.json());
        let device = DEVICES.into_iter().find(|device| json["device_id"] == *device).unwrap();
        let round = usize::from(got.offset >= ends.get(&got.partition).copied().unwrap_or(0));
        let Some((method, window, min_samples, threshold)) = held[round][device] else { continue };
        let oracle = oracles.entry(device).or_insert_with(|| Oracle::of(method, window, min_samples, threshold));
        oracle.set(method, window);
        oracle.set_limits(min_samples, threshold);
        match oracle.judge(device, json["metric_value"].as_f64().unwrap()) {
            Some(judged) if judged.is_edge => _ = edges.insert(place),
            Some(judged) if judged.is_abnormal => _ = expected.insert((place, device, method, threshold)),
            _ => {}
        }
    }
    let found = case.read(&case.anomalies()).into_iter().filter_map(|got| {
        let json = got.json();
        let place = (json["source"]["partition"].as_i64().unwrap() as i32, json["source"]["offset"].as_i64().unwrap());
        let device = DEVICES.into_iter().find(|device| json["device_id"] == *device).unwrap();
        let method = ["sigma", "ewma"].into_iter().find(|method| json["method"] == *method).unwrap();
        let threshold = json["threshold"].as_f64().unwrap() as u32;
        (!edges.contains(&place)).then_some((place, device, method, threshold))
    });
    assert_eq!(found.collect::<BTreeSet<_>>(), expected);
    for device in DEVICES {
        let methods = expected.iter().filter(|(_, of, ..)| *of == device).map(|(.., method, _)| *method);
        let methods = methods.collect::<BTreeSet<_>>();
        let wanted = if ["calm-1", "noisy-2"].contains(&device) { 2 } else { 1 };
        assert_eq!(methods.len(), wanted, "{device} has anomalies of {methods:?}");
    }
}
