//! The arithmetic that made a value an anomaly, done again from the stored window.

use serde::Serialize;

use crate::anomaly::Anomaly;
use crate::method::{critical_from, explanation};
use crate::page::view::format::{DisplayedNumbers, grouped, number, signed};
use crate::window::moments;

#[derive(Serialize)]
pub struct Step {
    name: String,
    formula: String,
    result: String,
}

/// Whether the stored figures come out again, in every bit.
pub fn proof(anomaly: &Anomaly) -> Result<String, String> {
    let count = anomaly.window.len();
    if !explanation(&anomaly.method).is_of_window {
        return Err("mean and deviation follow from all values before it, not from the window alone".to_owned());
    }
    if count != anomaly.window_count as usize {
        let all = grouped(u64::from(anomaly.window_count));
        return Err(format!("the record holds the last {count} of the {all} values that it was judged by"));
    }
    match moments(anomaly.window.iter().copied()) {
        Some(again)
            if again.mean.to_bits() == anomaly.mean.to_bits()
                && again.std_dev.to_bits() == anomaly.std_dev.to_bits() =>
        {
            Ok("recomputed from the window, equal to the stored record in every bit".to_owned())
        }
        Some(again) => Err(format!(
            "recomputed from the window: mean {}, deviation {}; the record differs",
            signed(again.mean),
            signed(again.std_dev)
        )),
        None => Err("the record holds no window".to_owned()),
    }
}

/// The deviation that judged: the window's, unless a floor raised it.
pub fn deviation(anomaly: &Anomaly) -> f64 {
    let band = (anomaly.upper / 2.0 - anomaly.lower / 2.0) / anomaly.threshold;
    let is_same = (band - anomaly.std_dev).abs() <= 1e-9 * anomaly.std_dev.abs().max(anomaly.mean.abs() * 1e-3);
    if is_same || !band.is_finite() { anomaly.std_dev } else { band }
}

pub fn steps(anomaly: &Anomaly) -> Vec<Step> {
    let figures = DisplayedNumbers::of(anomaly);
    let digits = figures.decimals + 4;
    let show = |x: f64| number(x, digits);
    let step = |name: &str, formula: String, result: String| Step { name: name.to_owned(), formula, result };
    let (n, mean, std_dev) = (anomaly.window_count, show(anomaly.mean), show(anomaly.std_dev));
    let judging = deviation(anomaly);
    let distance = (anomaly.metric_value - anomaly.mean).abs();
    let threshold = signed(anomaly.threshold);
    // The sums are shown only where the record holds all that was summed.
    let is_whole = anomaly.window.len() == n as usize;
    let sum = |x: f64| if is_whole { show(x * f64::from(n)) } else { "…".to_owned() };
    let (total, squares) = (sum(anomaly.mean), sum(anomaly.std_dev * anomaly.std_dev));
    let method = explanation(&anomaly.method);
    let mut steps = match method.is_of_window {
        true => vec![
            step(&format!("Mean of the {n} values before it"), format!("Σx / n = {total} / {n}"), mean.clone()),
            step(method.std_dev, format!("√(Σ(x − mean)² / n) = √({squares} / {n})"), std_dev),
        ],
        false => vec![
            step(method.mean, method.mean_formula.to_owned(), mean.clone()),
            step(method.std_dev, method.std_dev_formula.to_owned(), std_dev),
        ],
    };
    if judging.to_bits() != anomaly.std_dev.to_bits() {
        let formula = "max(std dev, min_std_dev, min_relative_std_dev × |mean|)".to_owned();
        steps.push(step("Deviation that judges, raised by a floor", formula, show(judging)));
    }
    let limit = anomaly.threshold * judging;
    steps.push(step(
        "Expected band",
        format!("mean ± {threshold} × {}", show(judging)),
        format!("{} – {}", show(anomaly.lower), show(anomaly.upper)),
    ));
    let formula = format!("|{} − {mean}|", signed(anomaly.metric_value));
    steps.push(step("Distance from the mean", formula, show(distance)));
    steps.push(step(
        "Is it more than threshold × standard deviation?",
        format!("{} > {}", show(distance), show(limit)),
        if distance > limit { "yes: abnormal".to_owned() } else { "by less than is shown".to_owned() },
    ));
    let critical = critical_from(anomaly.threshold);
    let twice = signed(critical);
    let formula = match anomaly.z_score {
        Some(z) => {
            let sign = if z.abs() >= critical { '≥' } else { '<' };
            format!("z = {} / {} = {} {sign} {twice}", show(distance), show(judging), number(z.abs(), 4))
        }
        None => "a deviation of 0 allows no other value".to_owned(),
    };
    steps.push(step("Severity: critical from twice the threshold", formula, anomaly.severity.as_str().to_owned()));
    steps
}
