//! The forecast of `adaptive`: a blend of an exponentially weighted mean and a profile of the day, and the scale of its
//! errors by time of day.
//!
//! ```text
//! s  = profile of the day, interpolated between the centres of its bins
//! m  = exponentially weighted mean, rate 0.1
//! o  = exponentially weighted mean of x - s, rate 0.1
//! w  = (error of m / error of s + o)^4
//! r  = ((x - m) + w (x - s - o)) / (1 + w)
//! ```
//! Errors are means of absolute residuals. A residual enters them as at most five times the error itself: an incident must
//! not make the next one look normal.

use bytemuck::{Pod, Zeroable};

use crate::limits::Limits;
use crate::method::finite::finite;

/// Bins of the profile: 15 minutes each.
pub(super) const BINS: usize = 96;
pub(super) const DAY_SECONDS: f64 = 86_400.0;
/// Greatest residual that an error learns, in errors.
const CLIP: f64 = 5.0;
/// sqrt(pi / 2): deviation of a normal distribution by its mean absolute deviation.
pub(super) const ABS_TO_SIGMA: f64 = 1.2533;
/// Rate of the exponentially weighted means.
const RATE: f64 = 0.1;
/// Lowest rate of errors, level and variance.
const SLOW_RATE: f64 = 1.0 / 2_000.0;
/// Events after which a residual is clipped.
const SETTLED: u32 = 50;
/// Comparisons with the profile after which it takes part in the forecast.
const PROFILE_SETTLED: f64 = 50.0;
/// Comparisons with the profile after which it learns clipped residuals.
const PROFILE_CLIPS: f64 = 200.0;
/// Greatest weight of the profile in the blend.
const MAX_WEIGHT: f64 = 1e30;

/// What the forecast remembers of a series. It is all zeros before the first value.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ForecastState {
    /// Slow mean and variance, only for the floor of the scale.
    mean: f64,
    variance: f64,
    ewma: f64,
    offset: f64,
    error_ewma: f64,
    error_season: f64,
    error_offset: f64,
    error_blend: f64,
    /// Number of values that were compared with the profile.
    pub compared: f64,
    profile: [f32; BINS],
    scale: [f32; BINS],
    /// Number of values of each bin, at most 250.
    seen: [u8; BINS],
}

/// The forecast of one value, with its residuals.
#[derive(Debug, Clone, Copy)]
pub(super) struct Forecast {
    /// Bin of the profile; `None` if the time is unknown.
    bin: Option<usize>,
    /// Whether the profile has a value here.
    pub is_seasonal: bool,
    from_ewma: f64,
    /// Residual from the profile.
    pub from_season: f64,
    from_offset: f64,
    /// Residual from the blend.
    pub residual: f64,
    /// Mean absolute error at this time of day.
    here: f64,
    floor: f64,
    /// Lower limit of a deviation, from the settings.
    least: f64,
}

impl Forecast {
    /// Returns the deviation of the residual, raised to the floor.
    pub(super) fn deviation(&self) -> f64 {
        finite(ABS_TO_SIGMA * self.here + self.floor).max(self.least)
    }
}

fn as_f32(x: f64) -> f32 {
    (x as f32).clamp(f32::MIN, f32::MAX)
}

/// Moves a mean absolute error towards a residual, clipped once the error is settled.
fn learn_error(error: &mut f64, residual: f64, rate: f64, is_settled: bool) {
    let size = if is_settled { residual.abs().min(CLIP * *error) } else { residual.abs() };
    *error = finite(*error + rate * (size - *error));
}

impl ForecastState {
    /// Begins with the first value.
    pub(super) fn begin(&mut self, value: f64) {
        (self.mean, self.ewma) = (value, value);
    }

    /// Compares a value with its forecast. `second_of_day` is `None` if the time is unknown.
    pub(super) fn compare(&self, value: f64, second_of_day: Option<f64>, limits: &Limits) -> Forecast {
        let place = second_of_day.map(|second| second / DAY_SECONDS * BINS as f64);
        let bin = place.map(|place| (place as usize).min(BINS - 1));
        let season = place.zip(bin).and_then(|(place, bin)| self.season(place, bin));
        let from_ewma = finite(value - self.ewma);
        let from_season = finite(value - season.unwrap_or(self.ewma));
        let from_offset = finite(from_season - self.offset);
        let residual = match season {
            Some(_) if self.compared >= PROFILE_SETTLED => {
                let tiny = 1e-6 * self.mean.abs() + 1e-9;
                let ratio = (self.error_ewma + tiny) / (self.error_offset + tiny);
                let weight = (ratio * ratio * ratio * ratio).min(MAX_WEIGHT);
                finite(finite(from_ewma + weight * from_offset) / (1.0 + weight))
            }
            _ => from_ewma,
        };
        // The scale of this time of day is shrunk to that of all times.
        let here = bin.map_or(self.error_blend, |bin| {
            let known = f64::from(self.seen[bin]).min(100.0);
            finite((known * f64::from(self.scale[bin]) + 50.0 * self.error_blend) / (known + 50.0))
        });
        let floor = self.floor();
        let least = limits.min_std_dev.max(finite(limits.min_relative_std_dev * self.mean.abs()));
        Forecast {
            bin,
            is_seasonal: season.is_some(),
            from_ewma,
            from_season,
            from_offset,
            residual,
            here,
            floor,
            least,
        }
    }

    /// Returns the distance of a value from the profile, in deviations of such distances.
    pub(super) fn season_distance(&self, forecast: &Forecast) -> f64 {
        let deviation = finite(ABS_TO_SIGMA * self.error_season + forecast.floor);
        forecast.from_season.abs() / deviation.max(forecast.least)
    }

    fn floor(&self) -> f64 {
        1e-3 * self.mean.abs() + 0.01 * self.variance.sqrt() + 1e-12
    }

    /// Returns the profile at a place, interpolated between the centres of its bins. `None` if the bin has no value.
    fn season(&self, place: f64, bin: usize) -> Option<f64> {
        if self.seen[bin] == 0 {
            return None;
        }
        let beyond = place - bin as f64 - 0.5;
        let neighbour = if beyond >= 0.0 { (bin + 1) % BINS } else { (bin + BINS - 1) % BINS };
        let here = f64::from(self.profile[bin]);
        let there = if self.seen[neighbour] > 0 { f64::from(self.profile[neighbour]) } else { here };
        Some(here * (1.0 - beyond.abs()) + beyond.abs() * there)
    }

    /// Learns a value. `count` is the number of values before it, and `interval` the mean seconds between values.
    pub(super) fn learn(&mut self, value: f64, forecast: &Forecast, count: u32, interval: f64) {
        let rate = SLOW_RATE.max(1.0 / (f64::from(count) + 1.0));
        let is_settled = count > SETTLED;
        learn_error(&mut self.error_ewma, forecast.from_ewma, rate, is_settled);
        learn_error(&mut self.error_blend, forecast.residual, rate, is_settled);
        if let Some(bin) = forecast.bin {
            let residual = forecast.residual.abs();
            let clipped = if is_settled { residual.min(CLIP * forecast.here) } else { residual };
            let known = (f64::from(self.seen[bin]) + 1.0).min(100.0);
            let scale = &mut self.scale[bin];
            *scale = as_f32(f64::from(*scale + as_f32((clipped - f64::from(*scale)) / known)));
            self.learn_profile(bin, value, forecast, interval);
        }
        self.ewma = finite(self.ewma + RATE * forecast.from_ewma);
        let distance = finite(value - self.mean);
        self.mean = finite(self.mean + rate * distance);
        self.variance = finite((1.0 - rate) * finite(self.variance + rate * distance * distance));
    }

    fn learn_profile(&mut self, bin: usize, value: f64, forecast: &Forecast, interval: f64) {
        if forecast.is_seasonal {
            self.compared += 1.0;
            let rate = SLOW_RATE.max(1.0 / self.compared);
            let is_settled = self.compared > PROFILE_SETTLED;
            learn_error(&mut self.error_offset, forecast.from_offset, rate, is_settled);
            learn_error(&mut self.error_season, forecast.from_season, rate, is_settled);
            let limit = finite(CLIP * self.error_season);
            let clips = self.compared > PROFILE_CLIPS;
            let moved = if clips { forecast.from_season.clamp(-limit, limit) } else { forecast.from_season };
            // The profile moves 0.3 of the way in a day.
            let of_day = (0.3 * interval * BINS as f64 / DAY_SECONDS).min(0.3);
            let rate = of_day.max(1.0 / (f64::from(self.seen[bin]) + 1.0));
            self.profile[bin] = as_f32(f64::from(self.profile[bin] + as_f32(rate * moved)));
            self.offset = finite(self.offset + RATE * forecast.from_offset);
        } else {
            self.profile[bin] = as_f32(value);
        }
        self.seen[bin] = self.seen[bin].saturating_add(1).min(250);
    }
}
