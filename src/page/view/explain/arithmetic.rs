//! The arithmetic of a verdict, repeated from the stored record.

use serde::Serialize;

use crate::anomaly::Anomaly;
use crate::method::{Recorded, Unrepeatable, critical_from, explanation, repeat};
use crate::page::view::format::{DASH, DisplayedNumbers, grouped, number, signed};

#[derive(Serialize)]
pub(crate) struct ArithmeticStep {
    name: String,
    formula: String,
    result: String,
}

fn step(name: &str, formula: String, result: String) -> ArithmeticStep {
    ArithmeticStep { name: name.to_owned(), formula, result }
}

/// Recomputes the stored figures, and compares every bit.
pub(crate) fn proof(anomaly: &Anomaly) -> Result<String, String> {
    let Some(threshold) = anomaly.threshold else {
        return Err("the record has no threshold to repeat the arithmetic from".to_owned());
    };
    let again = repeat(&Recorded {
        method: &anomaly.method,
        window: &anomaly.window,
        window_count: anomaly.window_count as usize,
        evidence: &anomaly.evidence,
        mean: anomaly.mean,
        threshold,
        value: anomaly.metric_value,
    })
    .map_err(|reason| unrepeatable(reason, anomaly))?;
    let from = explanation(&anomaly.method).map_or("the record", |method| method.repeated_from);
    let is_same = |a: f64, b: f64| a.to_bits() == b.to_bits();
    let bits = |x: Option<f64>| x.map(f64::to_bits);
    let is_of_moments = bits(again.mean) == bits(anomaly.mean) && bits(again.std_dev) == bits(anomaly.std_dev);
    // Version 1 does not say which deviation a floor raised.
    let is_judged = anomaly.schema_version == 1
        || anomaly.expected.is_some_and(|expected| is_same(again.expected, expected))
            && is_same(again.lower, anomaly.lower)
            && is_same(again.upper, anomaly.upper)
            && is_same(again.score, anomaly.score)
            && bits(again.z_score) == bits(anomaly.z_score)
            && again.abnormal;
    match (is_of_moments, is_judged) {
        (true, true) => Ok(format!("recomputed from {from}, equal to the stored record in every bit")),
        (true, false) => Err(format!(
            "recomputed from {from}: {} to {} expected, score {}; the record differs",
            signed(again.lower),
            signed(again.upper),
            signed(again.score)
        )),
        (false, _) => Err(format!(
            "recomputed from {from}: mean {}, deviation {}; the record differs",
            again.mean.map_or_else(|| DASH.to_owned(), signed),
            again.std_dev.map_or_else(|| DASH.to_owned(), signed)
        )),
    }
}

fn unrepeatable(reason: Unrepeatable, anomaly: &Anomaly) -> String {
    match reason {
        Unrepeatable::WindowTruncated => {
            let (count, all) = (anomaly.window.len(), grouped(u64::from(anomaly.window_count)));
            format!("the record contains the last {count} of the {all} values that it was judged by")
        }
        Unrepeatable::NoWindow => "the record contains no window".to_owned(),
        Unrepeatable::NoEvidence => "the record does not contain the state of the method".to_owned(),
        Unrepeatable::UnknownMethod => "this program does not have the method".to_owned(),
    }
}

pub(crate) fn steps(anomaly: &Anomaly) -> Vec<ArithmeticStep> {
    match (anomaly.mean, anomaly.std_dev, anomaly.threshold) {
        (Some(mean), Some(std_dev), Some(threshold)) => by_deviation(anomaly, mean, std_dev, threshold),
        _ => plain(anomaly),
    }
}

/// Returns the steps of a method that does not measure in deviations, or of a kind without figures.
fn plain(anomaly: &Anomaly) -> Vec<ArithmeticStep> {
    let figures = DisplayedNumbers::of(anomaly);
    let formula = format!("threshold {}", anomaly.threshold.map_or_else(|| DASH.to_owned(), signed));
    let evidence = anomaly.evidence.iter().map(|(name, value)| step(name, String::new(), number(*value, 4)));
    let mut steps = evidence.collect::<Vec<_>>();
    steps.extend([
        step("Expected", String::new(), figures.expected),
        step("Expected band", String::new(), format!("{} – {}", figures.lower, figures.upper)),
        step("Score", formula, number(anomaly.score, 4)),
        step(&severity(anomaly), String::new(), anomaly.severity.as_str().to_owned()),
    ]);
    steps
}

/// Returns the score from which the anomaly's method calls it critical; `None` if this program does not have the method.
fn critical(anomaly: &Anomaly) -> Option<f64> {
    critical_from(&anomaly.method, anomaly.threshold?)
}

/// Names the step that decides the severity.
fn severity(anomaly: &Anomaly) -> String {
    critical(anomaly).map_or_else(
        || "Severity".to_owned(),
        |critical| format!("Severity: critical from a score of {}", signed(critical)),
    )
}

fn by_deviation(anomaly: &Anomaly, mean: f64, std_dev: f64, threshold: f64) -> Vec<ArithmeticStep> {
    let figures = DisplayedNumbers::of(anomaly);
    let digits = figures.decimals + 4;
    let show = |x: f64| number(x, digits);
    let judging = anomaly.evidence.get("deviation").copied().unwrap_or(std_dev);
    let distance = (anomaly.metric_value - mean).abs();
    let mut steps = moments(anomaly, mean, std_dev, &show);
    if judging.to_bits() != std_dev.to_bits() {
        let formula = "max(std dev, min_std_dev, min_relative_std_dev × |mean|)".to_owned();
        steps.push(step("Deviation that judges, raised by a floor", formula, show(judging)));
    }
    let limit = threshold * judging;
    steps.push(step(
        "Expected band",
        format!("mean ± {} × {}", signed(threshold), show(judging)),
        format!("{} – {}", show(anomaly.lower), show(anomaly.upper)),
    ));
    let formula = format!("|{} − {}|", signed(anomaly.metric_value), show(mean));
    steps.push(step("Distance from the mean", formula, show(distance)));
    steps.push(step(
        "Is it more than threshold × standard deviation?",
        format!("{} > {}", show(distance), show(limit)),
        if distance > limit { "yes: abnormal".to_owned() } else { "by less than is shown".to_owned() },
    ));
    let formula = match anomaly.z_score {
        Some(z) => {
            let compared = critical(anomaly).map_or_else(String::new, |critical| {
                format!(" {} {}", if z.abs() >= critical { '≥' } else { '<' }, signed(critical))
            });
            format!("z = {} / {} = {}{compared}", show(distance), show(judging), number(z.abs(), 4))
        }
        None => "a deviation of 0 allows no other value".to_owned(),
    };
    steps.push(step(&severity(anomaly), formula, anomaly.severity.as_str().to_owned()));
    steps
}

/// Returns the steps that compute the mean and the deviation.
fn moments(anomaly: &Anomaly, mean: f64, std_dev: f64, show: &dyn Fn(f64) -> String) -> Vec<ArithmeticStep> {
    let n = anomaly.window_count;
    let (shown_mean, shown_std_dev) = (show(mean), show(std_dev));
    let Some(method) = explanation(&anomaly.method).and_then(|method| method.moments) else {
        return vec![step("Mean", String::new(), shown_mean), step("Standard deviation", String::new(), shown_std_dev)];
    };
    if !method.is_of_window {
        return vec![
            step(method.mean, method.mean_formula.to_owned(), shown_mean),
            step(method.std_dev, method.std_dev_formula.to_owned(), shown_std_dev),
        ];
    }
    // The sums are shown only if the record contains all values that were summed.
    let is_whole = anomaly.window.len() == n as usize;
    let sum = |x: f64| if is_whole { show(x * f64::from(n)) } else { "…".to_owned() };
    let (total, squares) = (sum(mean), sum(std_dev * std_dev));
    vec![
        step(&format!("Mean of the {n} values before it"), format!("Σx / n = {total} / {n}"), shown_mean),
        step(method.std_dev, format!("√(Σ(x − mean)² / n) = √({squares} / {n})"), shown_std_dev),
    ]
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::anomaly::RecordId;
    use crate::detect::{DetectionSettings, Detector, Verdict};
    use crate::event::Event;
    use crate::policy::Policy;

    fn of_method(method: &str) -> Policy {
        Policy { method: method.into(), ..Policy::default() }
    }

    /// Returns the anomaly that the detector reports for a value after `count` others, read back from its JSON.
    fn judged(settings: DetectionSettings, count: i64) -> Anomaly {
        let mut detector = Detector::new(settings).unwrap();
        let mut judge = |offset: i64, value: f64| {
            let event =
                Event { device_id: Cow::Borrowed("d"), metric_name: None, metric_value: value, timestamp: None };
            let source = RecordId { topic: "t".into(), generation: 0, partition: 0, offset, index: 0 };
            detector.within(0, |judge| judge.judge(&source, &event, None, || None))
        };
        for offset in 0..count {
            judge(offset, 20.0 + 0.3 * (offset as f64).sin());
        }
        let Verdict::Anomalous(anomaly) = judge(count, 77.7) else { panic!("77.7 is far from 20") };
        Anomaly::from_json(&serde_json::to_vec(&anomaly).unwrap()).unwrap()
    }

    #[test]
    fn the_arithmetic_of_each_method_can_be_repeated_in_every_bit() {
        let floors = [(0.0, 0.0), (5.0, 0.0), (0.0, 0.2)];
        let cases = crate::method::NAMES.into_iter().flat_map(|method| [(method, 140), (method, 250)]);
        for (method, count) in cases {
            let has_moments = explanation(method).is_some_and(|method| method.moments.is_some());
            for (min_std_dev, min_relative_std_dev) in floors {
                let policy = Policy { min_std_dev, min_relative_std_dev, ..of_method(method) };
                let anomaly = judged(DetectionSettings { policy, ..DetectionSettings::default() }, count);
                assert!(proof(&anomaly).is_ok_and(|text| text.contains("in every bit")), "{:?}", proof(&anomaly));
                let raised = steps(&anomaly).iter().any(|step| step.name.contains("raised by a floor"));
                assert_eq!(raised, has_moments && (min_std_dev, min_relative_std_dev) != (0.0, 0.0), "{method}");
            }
        }
    }

    #[test]
    fn one_bit_more_or_less_in_any_figure_is_found() {
        fn next(x: &mut f64) {
            *x = f64::from_bits(x.to_bits() + 1);
        }
        fn next_of(x: &mut Option<f64>) {
            next(x.as_mut().unwrap());
        }
        let changes: [fn(&mut Anomaly); 7] = [
            |a| next_of(&mut a.mean),
            |a| next_of(&mut a.std_dev),
            |a| next_of(&mut a.z_score),
            |a| next_of(&mut a.expected),
            |a| next(&mut a.lower),
            |a| next(&mut a.upper),
            |a| next(&mut a.score),
        ];
        for method in ["sigma", "ewma"] {
            let anomaly = judged(DetectionSettings { policy: of_method(method), ..DetectionSettings::default() }, 40);
            for (at, change) in changes.iter().enumerate() {
                let mut other = anomaly.clone();
                change(&mut other);
                assert!(proof(&other).is_err(), "{method} {at}");
            }
        }
    }

    #[test]
    fn missing_values_of_the_record_are_named() {
        let of =
            |method: &str| judged(DetectionSettings { policy: of_method(method), ..DetectionSettings::default() }, 40);
        let reason = |anomaly: Anomaly| proof(&anomaly).unwrap_err();
        let short = judged(DetectionSettings { context: 7, ..DetectionSettings::default() }, 40);
        assert_eq!(reason(short), "the record contains the last 7 of the 40 values that it was judged by");
        let old = Anomaly { evidence: std::collections::BTreeMap::new(), ..of("ewma") };
        assert_eq!(reason(old), "the record does not contain the state of the method");
        let other = Anomaly { method: "other".into(), ..of("sigma") };
        assert_eq!(reason(other.clone()), "this program does not have the method");
        let lost = Anomaly { mean: None, ..of("sigma") };
        assert!(reason(lost).ends_with("the record differs"));
        let lost = Anomaly { mean: None, ..of("ewma") };
        assert_eq!(reason(lost), "the record does not contain the state of the method");
        let none = Anomaly { mean: None, std_dev: None, z_score: None, threshold: None, ..other };
        assert!(reason(none.clone()).starts_with("the record has no threshold"));
        assert!(steps(&none).iter().any(|step| step.name == "Score" && step.formula.ends_with(DASH)));
    }

    /// A page must not claim a rule that another method, or a later version of this one, does not have.
    #[test]
    fn the_severity_is_explained_by_the_method_of_the_anomaly() {
        let named = |anomaly: &Anomaly| steps(anomaly).pop().unwrap().name;
        let of =
            |method: &str| judged(DetectionSettings { policy: of_method(method), ..DetectionSettings::default() }, 140);
        for method in crate::method::NAMES {
            let anomaly = of(method);
            let critical = critical_from(method, anomaly.threshold.unwrap()).unwrap();
            assert_eq!(named(&anomaly), format!("Severity: critical from a score of {}", signed(critical)));
        }
        let unknown = Anomaly { method: "other".into(), ..of("sigma") };
        assert_eq!(named(&unknown), "Severity");
        let without_moments = Anomaly { mean: None, std_dev: None, z_score: None, ..unknown };
        assert_eq!(named(&without_moments), "Severity");
        let evidence = [("median".to_owned(), 20.0)].into();
        let with_evidence = steps(&Anomaly { evidence, ..without_moments });
        assert!(with_evidence.iter().any(|step| step.name == "median" && step.result.starts_with("20")));
    }
}
