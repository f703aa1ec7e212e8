//! The methods: each is one file behind [`Method`], a pure function of the ordered window, the state and the value.
//! A new method is a new file here, its name in [`by_name`] and in the settings' table.

mod distance;
mod ewma;
mod recorded;
mod sigma;

use serde::{Deserialize, Serialize};

use crate::window::Window;
pub use distance::Limits;
pub use recorded::{Recorded, Unrepeatable};

/// What a method says of one value. All numbers are finite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judgement {
    /// Mean that the value is compared with.
    pub mean: f64,
    /// Standard deviation that belongs to the mean, before any floor.
    pub std_dev: f64,
    /// Signed distance from the mean in deviations (after the floors); `None` when the deviation is 0 and the value differs.
    pub z_score: Option<f64>,
    /// Higher is more abnormal; `f64::MAX` when `z_score` is `None`.
    pub score: f64,
    /// The value that the method expected.
    pub expected: f64,
    /// Least expected value.
    pub lower: f64,
    /// Greatest expected value.
    pub upper: f64,
    /// The verdict.
    pub abnormal: bool,
    /// Further numbers of the method, by name; with the window they suffice to repeat the arithmetic.
    pub evidence: Evidence,
}

/// Names and finite numbers; the last place is free for a deviation that a floor raised.
pub type Evidence = [Option<(&'static str, f64)>; 4];

/// Name and version of a method. Two versions update the state or judge in different ways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodId {
    /// As in the settings.
    pub name: String,
    /// 1, 2, ...
    pub version: u32,
}

/// One method of detection. It judges a value from the window and the state before it; then the state is updated, and then the
/// value joins the window.
pub trait Method: Send + std::fmt::Debug {
    /// Its name in settings and records.
    fn name(&self) -> &'static str;

    /// Version of its arithmetic; see [`MethodId`].
    fn version(&self) -> u32;

    /// Numbers that it remembers of each series besides the window; they are 0 before the first value.
    fn state_len(&self) -> usize {
        0
    }

    /// True only for values that [`Method::judge`] would certainly call normal; cheap.
    fn certainly_normal(&self, _window: &Window, _value: f64) -> bool {
        false
    }

    /// The exact figures and the verdict; `None` before the first value. `time`: that of the event, in milliseconds.
    fn judge(&self, window: &Window, state: &[f64], value: f64, time: Option<i64>) -> Option<Judgement>;

    /// Score from which an anomaly is critical, at that threshold.
    fn critical_from(&self, threshold: f64) -> f64 {
        critical_from(threshold)
    }

    /// Updates a state by a finite value that is judged already.
    fn update(&self, _state: &mut [f64], _value: f64, _time: Option<i64>) {}
}

impl dyn Method + '_ {
    /// Name and version.
    pub fn id(&self) -> MethodId {
        MethodId { name: self.name().into(), version: self.version() }
    }

    /// The state of a series whose values so far are those of the window, in order. A method starts from it when a series had
    /// another method before.
    pub fn state_from(&self, window: &Window) -> Vec<f64> {
        let mut state = vec![0.0; self.state_len()];
        window.iter().for_each(|value| self.update(&mut state, value, None));
        state
    }
}

/// See [`Method::critical_from`]; the same for all methods that measure in deviations.
pub fn critical_from(threshold: f64) -> f64 {
    2.0 * threshold
}

/// How a method comes to its mean and its deviation, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explanation {
    /// What the mean is.
    pub mean: &'static str,
    /// Its formula; empty where it is the plain mean of the window.
    pub mean_formula: &'static str,
    /// What the deviation is.
    pub std_dev: &'static str,
    /// Its formula, likewise.
    pub std_dev_formula: &'static str,
    /// Mean and deviation are those of the window and follow from it alone.
    pub is_of_window: bool,
    /// What the arithmetic is repeated from.
    pub repeated_from: &'static str,
}

/// Of the method of that name; `None` of one that this program does not have, which a record can have from another program.
pub fn explanation(name: &str) -> Option<Explanation> {
    match name {
        "sigma" => Some(sigma::EXPLANATION),
        "ewma" => Some(ewma::EXPLANATION),
        _ => None,
    }
}

/// Judges once more. The evidence of the result is empty.
///
/// # Errors
/// When the record does not hold enough.
pub fn repeat(recorded: &Recorded<'_>) -> Result<Judgement, Unrepeatable> {
    let (mean, std_dev) = match recorded.method {
        "sigma" => sigma::repeat(recorded)?,
        "ewma" => ewma::repeat(recorded)?,
        _ => return Err(Unrepeatable::UnknownMethod),
    };
    let deviation = recorded.evidence.get(distance::DEVIATION).copied().unwrap_or(std_dev);
    Ok(distance::by_deviation(recorded.threshold, mean, std_dev, deviation, recorded.value))
}

/// For methods that judge nothing.
const NO_LIMITS: Limits = Limits { threshold: 1.0, min_std_dev: 0.0, min_relative_std_dev: 0.0 };

/// The method of that name; `window`: the number of values that a window holds.
pub fn by_name(name: &str, limits: Limits, window: usize) -> Option<Box<dyn Method>> {
    match name {
        "sigma" => Some(Box::new(sigma::Sigma(limits))),
        "ewma" => Some(Box::new(ewma::Ewma::new(limits, window))),
        _ => None,
    }
}

/// Version of the method of that name.
pub fn version_of(name: &str) -> Option<u32> {
    Some(by_name(name, NO_LIMITS, 2)?.version())
}

/// The method that updates states as this one does, whatever its limits; `None` of one that this program does not have.
pub fn by_id(id: &MethodId, window: usize) -> Option<Box<dyn Method>> {
    by_name(&id.name, NO_LIMITS, window).filter(|method| method.version() == id.version)
}
