//! The detection methods. Each method is one file behind [`Method`]: a pure function of the ordered window, the state
//! and the value. A new method needs a file here, and its definition in `METHODS`.

mod adaptive;
mod distance;
mod ewma;
mod finite;
mod recorded;
mod sigma;
mod tail;

use serde::{Deserialize, Serialize};

use crate::limits::Limits;
use crate::series_block::SeriesBlock;
pub use recorded::{Recorded, Unrepeatable};

/// Result of judging one value. All numbers are finite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judgement {
    /// Mean that the value is compared with. `None` if the method has none.
    pub mean: Option<f64>,
    /// Standard deviation that belongs to the mean, before any floor. `None` if the method has none.
    pub std_dev: Option<f64>,
    /// Signed distance from the mean in deviations, after the floors. `None` if the deviation is 0 and the value
    /// differs, or if the method has no deviation.
    pub z_score: Option<f64>,
    /// Distance from normal; higher is more abnormal. `f64::MAX` if a deviation of 0 allows no other value.
    pub score: f64,
    /// Threshold in the unit of the score.
    pub threshold: f64,
    /// The value that the method expected.
    pub expected: f64,
    /// Lower end of the expected range.
    pub lower: f64,
    /// Upper end of the expected range.
    pub upper: f64,
    /// Whether the value is abnormal.
    pub abnormal: bool,
    /// Further numbers of the method, by name. Together with the window they suffice to repeat the arithmetic.
    pub evidence: Evidence,
    /// What within the method is most abnormal. `None` if the method has one criterion only.
    pub reason: Option<&'static str>,
    /// Number of values that pass on average, in this series, until one is at least as abnormal. `None` while unknown.
    pub return_period_events: Option<f64>,
    /// The same in seconds. `None` while unknown.
    pub return_period_seconds: Option<f64>,
    /// Whether an episode begins with this value. `None` if the method leaves that to the episode's own rule.
    pub opens: Option<bool>,
}

/// Names and finite numbers. The last element is reserved for a deviation that a floor raised.
pub type Evidence = [Option<(&'static str, f64)>; 12];

/// Name and version of a method. Two versions update the state or judge in different ways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodId {
    /// Name of the method, as in the settings.
    pub name: String,
    /// Version of the method's arithmetic: 1, 2, ...
    pub version: u32,
}

/// A detection method. It judges a value from the window and the state before it. The state is updated afterwards, then
/// the value joins the window.
pub trait Method: Send + std::fmt::Debug {
    /// Returns the name of the method in settings and records.
    fn name(&self) -> &'static str;

    /// Returns the version of the method's arithmetic; see [`MethodId`].
    fn version(&self) -> u32;

    /// Returns the number of words that the method stores for each series besides the window. They are 0 before the
    /// first value.
    fn state_len(&self) -> usize {
        0
    }

    /// Returns true only for values that [`Method::judge`] would certainly call normal. The call is cheap.
    fn certainly_normal(&self, _block: &SeriesBlock, _value: f64) -> bool {
        false
    }

    /// Returns the exact figures and the verdict; `None` while the method learns. `time` is that of the event, in
    /// milliseconds.
    fn judge(&self, block: &SeriesBlock, state: &[u64], value: f64, time: Option<i64>) -> Option<Judgement>;

    /// Judges a value by the block and its state, then updates the state. A method whose steps share their work implements
    /// it.
    fn judge_and_update(&self, block: &mut SeriesBlock, value: f64, time: Option<i64>) -> Option<Judgement> {
        let judged = self.judge(block, block.state(), value, time);
        self.update(block.state_mut(), value, time);
        judged
    }

    /// Returns the score from which an anomaly is critical, at this threshold.
    fn critical_from(&self, threshold: f64) -> f64 {
        2.0 * threshold
    }

    /// Updates a state by a finite value that has been judged.
    fn update(&self, _state: &mut [u64], _value: f64, _time: Option<i64>) {}
}

impl dyn Method + '_ {
    /// Returns the method's name and version.
    pub fn id(&self) -> MethodId {
        MethodId { name: self.name().into(), version: self.version() }
    }

    /// Computes the state of a series from the values of its window, in order. A method starts from this state if the
    /// series had another method before.
    pub fn state_from(&self, block: &SeriesBlock) -> Vec<u64> {
        let mut state = vec![0; self.state_len()];
        block.iter().for_each(|value| self.update(&mut state, value, None));
        state
    }
}

/// A method of this program. All uses of a method's name come from its definition.
struct MethodDefinition {
    /// Name of the method in settings and records.
    name: &'static str,
    /// Creates the method with the limits of a series.
    create: fn(&Limits) -> Box<dyn Method>,
    explanation: Explanation,
    /// Repeats the judgement of a recorded value.
    repeat: fn(&Recorded<'_>) -> Result<Judgement, Unrepeatable>,
}

/// All methods, in the order in which the settings list them. A method is registered here and nowhere else.
const METHODS: [MethodDefinition; 3] = [sigma::DEFINITION, ewma::DEFINITION, adaptive::DEFINITION];

/// Names of all methods: the values of `detector.method`.
pub const NAMES: [&str; METHODS.len()] = {
    let mut names = [""; METHODS.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = METHODS[at].name;
        at += 1;
    }
    names
};

/// Returns the definition of a method. `None` if this program does not have it; another program may have written the
/// record.
fn definition(name: &str) -> Option<&'static MethodDefinition> {
    static DEFINITIONS: [MethodDefinition; METHODS.len()] = METHODS;
    DEFINITIONS.iter().find(|method| method.name == name)
}

/// Explains to users what a method computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explanation {
    /// Explanation of mean and deviation. `None` if the method has none.
    pub moments: Option<MomentsExplanation>,
    /// Description of the data from which the arithmetic is repeated.
    pub repeated_from: &'static str,
    /// Each reason of the method, and what is abnormal if it is the reason; it follows the value. Empty for a method with
    /// one criterion.
    pub reasons: &'static [(&'static str, &'static str)],
}

/// Explains to users how a method computes its mean and its deviation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MomentsExplanation {
    /// Description of the mean.
    pub mean: &'static str,
    /// Formula of the mean; empty if it is the plain mean of the window.
    pub mean_formula: &'static str,
    /// Description of the deviation.
    pub std_dev: &'static str,
    /// Formula of the deviation; empty if it is the plain deviation of the window.
    pub std_dev_formula: &'static str,
    /// Whether mean and deviation follow from the window alone.
    pub is_of_window: bool,
}

/// Returns the explanation of the method with this name. `None` if this program does not have the method.
pub fn explanation(name: &str) -> Option<Explanation> {
    definition(name).map(|method| method.explanation)
}

/// Returns what is abnormal if this is the method's reason. `None` if this program does not have the method or the reason.
pub fn reason_text(method: &str, reason: &str) -> Option<&'static str> {
    let reasons = definition(method)?.explanation.reasons;
    reasons.iter().find(|(name, _)| *name == reason).map(|(_, text)| *text)
}

/// Returns the score from which an anomaly of the method with this name is critical, at this threshold. `None` if this
/// program does not have the method.
pub fn critical_from(name: &str, threshold: f64) -> Option<f64> {
    Some(without_limits(name)?.critical_from(threshold))
}

/// Repeats the judgement of a recorded value. The evidence of the result is empty.
///
/// # Errors
/// Fails if the record does not contain enough numbers.
pub fn repeat(recorded: &Recorded<'_>) -> Result<Judgement, Unrepeatable> {
    (definition(recorded.method).ok_or(Unrepeatable::UnknownMethod)?.repeat)(recorded)
}

/// Creates the method that these limits name. `None` if this program does not have it.
pub fn create(limits: &Limits) -> Option<Box<dyn Method>> {
    definition(&limits.method).map(|method| (method.create)(limits))
}

/// Creates the method with this name and the default limits.
fn without_limits(name: &str) -> Option<Box<dyn Method>> {
    create(&Limits { method: name.to_owned(), ..Limits::default() })
}

/// Returns the version of the method with this name.
pub fn version_of(name: &str) -> Option<u32> {
    Some(without_limits(name)?.version())
}

/// Creates a method that only updates states; `window` is the maximum number of values of a window. `None` if this
/// program does not have the method.
pub fn by_id(id: &MethodId, window: usize) -> Option<Box<dyn Method>> {
    let limits = Limits { method: id.name.clone(), window, ..Limits::default() };
    create(&limits).filter(|method| method.version() == id.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_method_is_found_by_the_name_that_it_writes_to_records() {
        for method in &METHODS {
            let made = without_limits(method.name).unwrap();
            assert_eq!(made.name(), method.name);
            assert!(by_id(&made.id(), 2).is_some());
            assert_eq!(critical_from(method.name, 1.5), Some(made.critical_from(1.5)));
            assert_eq!(explanation(method.name), Some(method.explanation));
        }
        let mut names = NAMES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METHODS.len(), "each name once");
        assert!(without_limits("other").is_none() && critical_from("other", 1.0).is_none());
    }
}
