//! The methods: each is one file behind [`Method`], a pure function of the ordered window and the value.
//! A new method is a new file here, its name in [`by_name`] and in the settings' table.

mod sigma;

use crate::window::Window;

/// What a method says of one value. All numbers are finite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judgement {
    /// Exact mean of the window.
    pub mean: f64,
    /// Exact population standard deviation of the window, before any floor.
    pub std_dev: f64,
    /// Signed distance from the mean in deviations (after the floors); `None` when the deviation is 0 and the value differs.
    pub z_score: Option<f64>,
    /// Higher is more abnormal; `f64::MAX` when `z_score` is `None`.
    pub score: f64,
    /// Least expected value.
    pub lower: f64,
    /// Greatest expected value.
    pub upper: f64,
    /// The verdict.
    pub abnormal: bool,
}

/// One method of detection.
pub trait Method: Send {
    /// Its name in settings and records.
    fn name(&self) -> &'static str;

    /// True only for values that [`Method::figures`] would certainly call normal; cheap.
    fn certainly_normal(&self, window: &Window, value: f64) -> bool;

    /// The exact figures and the verdict; `None` of an empty window.
    fn figures(&self, window: &Window, value: f64) -> Option<Judgement>;
}

/// What the methods can be told. The threshold is in deviations, floors in the value's unit and relative to |mean|.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Abnormal beyond this many deviations.
    pub threshold: f64,
    /// Least deviation that judges.
    pub min_std_dev: f64,
    /// Least deviation that judges, as a share of |mean|.
    pub min_relative_std_dev: f64,
}

/// The method of that name.
pub fn by_name(name: &str, limits: Limits) -> Option<Box<dyn Method>> {
    match name {
        "sigma" => Some(Box::new(sigma::Sigma(limits))),
        _ => None,
    }
}
