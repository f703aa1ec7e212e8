//! The recommended method: four lanes, each of which turns the series into one distance `y >= 0`, and a [`DistanceTail`] that turns
//! `y` into the return period of such an excursion for this series. A value is abnormal if one lane is at least as rare as
//! asked.
//!
//! | lane | distance |
//! | --- | --- |
//! | `spike` | from the forecast; the greater of the last one and the mean of the last five |
//! | `season` | from the profile of the day alone, mean of the last five: what stays wrong after the forecast has followed |
//! | `stuck` | number of equal values in a row, times the usual share of changes |
//! | `regime` | on means of five minutes: activity against the season, and change of the histogram |
//!
//! An event costs the same time whatever the series has seen, and allocates nothing. Logarithms are those of `libm`, so
//! that each machine computes the same bits.

mod forecast;
mod regime;

use bytemuck::{Pod, Zeroable};

use super::finite::finite;
use super::recorded::{Recorded, Unrepeatable};
use super::tail::{DistanceTail, TailPrior};
use super::{Evidence, Explanation, Judgement, Method, MethodDefinition};
use crate::limits::Limits;
use crate::series_block::SeriesBlock;
use forecast::{DAY_SECONDS, Forecast, ForecastState};
use regime::RegimeState;

pub(super) const DEFINITION: MethodDefinition = MethodDefinition {
    name: "adaptive",
    create: |limits| Box::new(Adaptive(limits.clone())),
    explanation: Explanation {
        moments: None,
        repeated_from: "the return period of each lane",
        reasons: &[
            ("spike", "is unusually far from the forecast"),
            ("season", "is part of a stretch that differs from the usual course of the day"),
            ("stuck", "has not changed for unusually long"),
            ("regime", "ends five minutes after which the series behaves in another way than usual"),
        ],
    },
    repeat,
};

/// Values before a lane of points has a distance.
const WARM: u32 = 100;
/// Comparisons with the profile before the lane `season` has a distance.
const SEASON_WARM: f64 = 500.0;
/// Values that are averaged.
const AVERAGED: usize = 5;
/// Greatest distance of one value in an average.
const MAX_AVERAGED: f64 = 20.0;
/// Greatest distance of one value.
const MAX_POINT: f64 = 60.0;
/// Weight of one value's distance against the average.
const POINT_WEIGHT: f64 = 0.8;
/// Lowest rates of the mean interval and of the share of changes.
const INTERVAL_RATE: f64 = 0.001;
const CHANGES_RATE: f64 = 1.0 / 2_000.0;
/// Seconds after which the tails of points weigh the past by 1/e, and the least number of values for it.
const MEMORY_SECONDS: f64 = 7.0 * DAY_SECONDS;
const MEMORY_VALUES: f64 = 10_000.0;
/// Steps after which the tail of regimes weighs the past by 1/e.
const MEMORY_STEPS: f64 = 20_000.0;
/// Values without an abnormal one that end an episode.
const QUIET: u32 = 40;
/// Least distance between two times, in seconds, where it is a divisor.
const TINY_SECONDS: f64 = 1e-9;
/// Greatest power of ten of a score.
const MAX_EXPONENT: f64 = 300.0;

const POINT_TAIL: TailPrior = TailPrior { u: 3.0, n0: 3_000.0, m0: 10.0, g0: 0.5 };
const STUCK_TAIL: TailPrior = TailPrior { u: 20.0, n0: 3_000.0, m0: 10.0, g0: 0.5 };
const REGIME_TAIL: TailPrior = TailPrior { u: 5.0, n0: 10_000.0, m0: 10.0, g0: 0.3 };

/// Names in the evidence of the forecast, and of half the width of the expected band.
const FORECAST: &str = "forecast";
const HALF_BAND: &str = "half_band";

/// Number of lanes.
const LANES: usize = 4;

/// What the method calls a lane, and how rare it must be.
struct Lane {
    name: &'static str,
    /// Name in the evidence of log10 of the return period from which a value is abnormal.
    limit: &'static str,
    /// log10 of that return period, in values, or in steps of five minutes for `regime`.
    from: f64,
    /// Least return period, in seconds.
    from_seconds: f64,
}

const SPIKE: usize = 0;
const SEASON: usize = 1;
const STUCK: usize = 2;
const REGIME: usize = 3;

/// In the order in which the first of equally rare lanes is the reason.
const LANE: [Lane; LANES] = [
    Lane { name: "spike", limit: "spike_limit", from: 3.5, from_seconds: 2.0 * DAY_SECONDS },
    Lane { name: "season", limit: "season_limit", from: 3.5, from_seconds: 2.0 * DAY_SECONDS },
    Lane { name: "stuck", limit: "stuck_limit", from: 4.0, from_seconds: 6.0 * DAY_SECONDS },
    Lane { name: "regime", limit: "regime_limit", from: 3.3, from_seconds: 0.0 },
];

/// What the method remembers of a series. It is all zeros before the first value.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct AdaptiveState {
    /// Number of values.
    count: u32,
    /// Number of values with a time.
    timed: u32,
    /// Number of equal values before the last one.
    run: u32,
    /// Values since the last abnormal one.
    quiet: u32,
    /// Time of the last value that had one, in seconds since the epoch.
    last_time: f64,
    /// Mean seconds between values.
    interval: f64,
    last: f64,
    /// Usual share of values that differ from the one before.
    changes: f64,
    spike: DistanceTail,
    season: DistanceTail,
    stuck: DistanceTail,
    regime: DistanceTail,
    steps: RegimeState,
    forecast: ForecastState,
    /// The last distances from the forecast and from the season.
    distances: [f32; AVERAGED],
    season_distances: [f32; AVERAGED],
}

/// The state in words of the series block.
const STATE_WORDS: usize = size_of::<AdaptiveState>() / size_of::<u64>();

/// What the lanes say of one value.
#[derive(Debug, Clone, Copy)]
struct LaneScores {
    forecast: Forecast,
    /// log10 of the return period of each lane; 0 without a distance.
    score: [f64; LANES],
    /// log10 of the return period from which each lane is abnormal.
    limit: [f64; LANES],
    /// Distance from the forecast from which the lane `spike` alone would be abnormal, in deviations.
    band: f64,
    /// Whether an episode begins with this value.
    opens: bool,
}

impl LaneScores {
    /// Returns the lane that is rarest compared with its limit, and log10 of how many times rarer it is.
    fn rarest(score: &[f64; LANES], limit: &[f64; LANES]) -> (usize, f64) {
        let excess = |lane: usize| score[lane] - limit[lane];
        let rarest = (1..LANES).fold(SPIKE, |best, lane| if excess(lane) > excess(best) { lane } else { best });
        (rarest, excess(rarest))
    }
}

impl AdaptiveState {
    fn begin(&mut self, value: f64) {
        self.forecast.begin(value);
        self.steps.begin();
        (self.last, self.quiet) = (value, QUIET);
    }

    /// Judges a value from all values before it, then learns it. `time` is in seconds since the epoch.
    fn push(&mut self, value: f64, time: Option<f64>, limits: &Limits) -> LaneScores {
        if self.count == 0 {
            self.begin(value);
        }
        let forecast = self.forecast.compare(value, time.map(|time| time.rem_euclid(DAY_SECONDS)), limits);
        let memory = (MEMORY_SECONDS / (self.interval + TINY_SECONDS)).max(MEMORY_VALUES);
        let mut score = [0.0; LANES];
        score[SPIKE] = self.spike_score(&forecast, memory);
        score[SEASON] = self.season_score(&forecast, memory);
        score[STUCK] = self.stuck_score(value, memory);
        let gap = time.filter(|_| self.timed > 0).map(|time| time - self.last_time);
        if let Some(gap) = gap {
            let rate = (1.0 / f64::from(self.timed)).max(INTERVAL_RATE);
            self.interval += rate * (gap.clamp(0.0, DAY_SECONDS) - self.interval);
        }
        self.forecast.learn(value, &forecast, self.count, self.interval);
        if let Some(time) = time {
            score[REGIME] = self.regime_score(value, &forecast, time, gap.unwrap_or(0.0));
            (self.last_time, self.timed) = (time, self.timed.saturating_add(1));
        }
        self.count = self.count.saturating_add(1);
        let limit = self.limits();
        let is_abnormal = LaneScores::rarest(&score, &limit).1 >= 0.0;
        let opens = is_abnormal && self.quiet >= QUIET;
        self.quiet = if is_abnormal { 0 } else { self.quiet.saturating_add(1) };
        let band = self.spike.distance(limit[SPIKE], &POINT_TAIL) / POINT_WEIGHT;
        LaneScores { forecast, score, limit, band, opens }
    }

    fn spike_score(&mut self, forecast: &Forecast, memory: f64) -> f64 {
        let is_warm = self.count >= WARM;
        let z = forecast.residual.abs() / forecast.deviation();
        self.distances[self.count as usize % AVERAGED] = if is_warm { z.min(MAX_AVERAGED) as f32 } else { 0.0 };
        if !is_warm {
            return 0.0;
        }
        let y = (POINT_WEIGHT * z.min(MAX_POINT)).max(mean(&self.distances));
        let score = self.spike.score(y, &POINT_TAIL);
        self.spike.learn(y, &POINT_TAIL, memory);
        score
    }

    fn season_score(&mut self, forecast: &Forecast, memory: f64) -> f64 {
        let is_compared = self.forecast.compared >= SEASON_WARM;
        let z = if forecast.is_seasonal && is_compared { self.forecast.season_distance(forecast) } else { 0.0 };
        self.season_distances[self.count as usize % AVERAGED] = z.min(MAX_AVERAGED) as f32;
        if self.count < WARM || !is_compared {
            return 0.0;
        }
        let y = mean(&self.season_distances);
        let score = self.season.score(y, &POINT_TAIL);
        self.season.learn(y, &POINT_TAIL, memory);
        score
    }

    fn stuck_score(&mut self, value: f64, memory: f64) -> f64 {
        let is_same = self.count > 0 && value == self.last;
        self.run = if is_same { self.run.saturating_add(1) } else { 0 };
        self.last = value;
        let mut score = 0.0;
        if self.count >= WARM {
            let y = f64::from(self.run) * self.changes;
            score = self.stuck.score(y, &STUCK_TAIL);
            self.stuck.learn(y, &STUCK_TAIL, memory);
        }
        if self.count > 0 {
            let rate = CHANGES_RATE.max(1.0 / f64::from(self.count));
            self.changes += rate * (if is_same { 0.0 } else { 1.0 } - self.changes);
        }
        score
    }

    fn regime_score(&mut self, value: f64, forecast: &Forecast, time: f64, gap: f64) -> f64 {
        let AdaptiveState { steps, regime, .. } = self;
        let from_season = if forecast.is_seasonal { forecast.from_season } else { 0.0 };
        let mut score = 0.0f64;
        steps.add(value, from_season, time, gap, |y| {
            score = score.max(regime.score(y, &REGIME_TAIL));
            regime.learn(y, &REGIME_TAIL, MEMORY_STEPS);
        });
        score
    }

    /// Returns log10 of the return period from which each lane is abnormal. Where values are frequent, points must be rare
    /// in time too.
    fn limits(&self) -> [f64; LANES] {
        let values_in = |seconds: f64| libm::log10(seconds / (self.interval + TINY_SECONDS));
        LANE.each_ref().map(|lane| match lane.from_seconds > 0.0 && self.timed > 1 {
            true => lane.from.max(values_in(lane.from_seconds)),
            false => lane.from,
        })
    }
}

fn mean(distances: &[f32; AVERAGED]) -> f64 {
    distances.iter().map(|&z| f64::from(z)).sum::<f64>() / AVERAGED as f64
}

/// Returns 10 to this power, within the range of f64.
fn power_of_ten(exponent: f64) -> f64 {
    libm::exp10(exponent.clamp(-MAX_EXPONENT, MAX_EXPONENT))
}

#[derive(Debug)]
struct Adaptive(Limits);

/// Judges a value from the state before it, then learns it. `None` while the method learns.
fn step(limits: &Limits, state: &mut [u64], value: f64, time: Option<i64>) -> Option<Judgement> {
    let state = bytemuck::try_from_bytes_mut::<AdaptiveState>(bytemuck::cast_slice_mut(state)).ok()?;
    let is_learning = state.count < WARM;
    let scores = state.push(value, time.map(|millis| millis as f64 / 1_000.0), limits);
    (!is_learning).then(|| judgement(&scores, value, state.interval))
}

fn judgement(scores: &LaneScores, value: f64, interval: f64) -> Judgement {
    let LaneScores { forecast, score, limit, band, opens } = scores;
    let (lane, excess) = LaneScores::rarest(score, limit);
    let (expected, half_band) = (finite(value - forecast.residual), finite(band * forecast.deviation()));
    let of_lanes = LANE.iter().zip(score.iter().zip(limit));
    let of_lanes = of_lanes.flat_map(|(lane, (score, limit))| [(lane.name, *score), (lane.limit, *limit)]);
    let numbers = of_lanes.chain([(FORECAST, expected), (HALF_BAND, half_band)]);
    let mut evidence = Evidence::default();
    evidence.iter_mut().zip(numbers).for_each(|(free, number)| *free = Some(number));
    let seconds = if lane == REGIME { regime::STEP_SECONDS } else { interval };
    let period = power_of_ten(score[lane]);
    let is_known = score[lane] > 0.0;
    let is_timed = is_known && interval > 0.0;
    let events = if lane == REGIME { finite(period * seconds / interval) } else { period };
    Judgement {
        reason: Some(LANE[lane].name),
        return_period_events: (is_known && (lane != REGIME || is_timed)).then_some(events),
        return_period_seconds: is_timed.then_some(finite(period * seconds)),
        opens: Some(*opens),
        ..by_lanes(expected, half_band, excess, evidence)
    }
}

/// Builds the part of a judgement that a record repeats.
fn by_lanes(expected: f64, half_band: f64, excess: f64, evidence: Evidence) -> Judgement {
    Judgement {
        mean: None,
        std_dev: None,
        z_score: None,
        score: power_of_ten(excess),
        threshold: 1.0,
        expected,
        lower: finite(expected - half_band),
        upper: finite(expected + half_band),
        abnormal: excess >= 0.0,
        evidence,
        reason: None,
        return_period_events: None,
        return_period_seconds: None,
        opens: None,
    }
}

impl Method for Adaptive {
    fn name(&self) -> &'static str {
        DEFINITION.name
    }

    fn version(&self) -> u32 {
        1
    }

    fn state_len(&self) -> usize {
        STATE_WORDS
    }

    fn judge(&self, _block: &SeriesBlock, state: &[u64], value: f64, time: Option<i64>) -> Option<Judgement> {
        step(&self.0, &mut state.to_vec(), value, time)
    }

    fn judge_and_update(&self, block: &mut SeriesBlock, value: f64, time: Option<i64>) -> Option<Judgement> {
        step(&self.0, block.state_mut(), value, time)
    }

    fn update(&self, state: &mut [u64], value: f64, time: Option<i64>) {
        step(&self.0, state, value, time);
    }

    fn critical_from(&self, threshold: f64) -> f64 {
        10.0 * threshold
    }
}

/// Computes the verdict again from the return periods of the lanes.
fn repeat(recorded: &Recorded<'_>) -> Result<Judgement, Unrepeatable> {
    let number = |name| recorded.evidence.get(name).copied().ok_or(Unrepeatable::NoEvidence);
    let (mut score, mut limit) = ([0.0; LANES], [0.0; LANES]);
    for (at, lane) in LANE.iter().enumerate() {
        (score[at], limit[at]) = (number(lane.name)?, number(lane.limit)?);
    }
    let (_, excess) = LaneScores::rarest(&score, &limit);
    Ok(by_lanes(number(FORECAST)?, number(HALF_BAND)?, excess, Evidence::default()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn adaptive() -> Adaptive {
        Adaptive(Limits::default())
    }

    /// Milliseconds of a minute.
    const MINUTE: i64 = 60_000;

    /// Returns noise between -1 and 1, the same for each number.
    fn noise(n: i64) -> f64 {
        (((n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) as f64 / (1u64 << 52) as f64) - 1.0
    }

    /// Returns a value of each minute: a daily course with noise.
    fn daily(minute: i64) -> f64 {
        20.0 + 3.0 * libm::sin(minute as f64 / 1_440.0 * std::f64::consts::TAU) + noise(minute)
    }

    /// A series that is judged value by value.
    struct Judged {
        block: SeriesBlock,
        minute: i64,
    }

    impl Judged {
        fn new() -> Self {
            let mut block = SeriesBlock::named("d");
            block.set_state(&[0; STATE_WORDS]);
            Judged { block, minute: 0 }
        }

        fn push(&mut self, value: f64) -> Option<Judgement> {
            self.minute += 1;
            adaptive().judge_and_update(&mut self.block, value, Some(self.minute * MINUTE))
        }

        /// Judges values of the daily course up to a minute, and returns the number of episodes.
        fn pass(&mut self, until: i64) -> usize {
            let mut episodes = 0;
            while self.minute < until {
                let judged = self.push(daily(self.minute + 1));
                episodes += usize::from(judged.is_some_and(|judged| judged.opens == Some(true)));
            }
            episodes
        }

        /// Returns the reason of the first abnormal one of these values, and how many preceded it.
        fn first(&mut self, values: impl Iterator<Item = f64>) -> Option<(usize, &'static str)> {
            let mut judged = values.map(|value| self.push(value).unwrap());
            judged.by_ref().enumerate().find_map(|(at, judged)| judged.abnormal.then_some((at, judged.reason?)))
        }
    }

    #[test]
    fn a_state_takes_at_most_1400_bytes() {
        assert_eq!(size_of::<AdaptiveState>() % size_of::<u64>(), 0);
        assert!(size_of::<AdaptiveState>() <= 1_400, "{}", size_of::<AdaptiveState>());
    }

    #[test]
    fn each_lane_finds_its_own_abnormality_in_a_daily_course_that_alone_is_quiet() {
        const WEEK: i64 = 7 * 1_440;
        let mut series = Judged::new();
        assert!(series.pass(2 * WEEK) <= 2);
        let of = |values: &dyn Fn(i64) -> f64, count: i64| {
            let mut series = Judged { block: series.block.clone(), minute: series.minute };
            let start = series.minute;
            series.first((0..count).map(|at| values(start + at + 1)))
        };
        assert_eq!(of(&|minute| daily(minute) + 15.0, 1), Some((0, "spike")));
        let (_, stuck) = of(&|_| 20.5, 300).unwrap();
        assert!(["stuck", "season"].contains(&stuck), "{stuck}");
        let (_, missing) = of(&|minute| 20.0 + noise(minute), 1_440).unwrap();
        assert!(["season", "regime"].contains(&missing), "{missing}");
        let (_, noisier) = of(&|minute| daily(minute) + 3.0 * noise(minute + 7), 600).unwrap();
        assert!(["spike", "regime"].contains(&noisier), "{noisier}");
    }

    #[test]
    fn values_without_times_are_judged_by_the_lanes_that_need_none() {
        let mut block = SeriesBlock::named("d");
        block.set_state(&[0; STATE_WORDS]);
        let mut push = |value| adaptive().judge_and_update(&mut block, value, None);
        assert!((0..3_000).filter_map(|n| push(20.0 + noise(n))).all(|judged| !judged.abnormal));
        let spike = push(60.0).unwrap();
        assert_eq!((spike.abnormal, spike.reason, spike.return_period_seconds), (true, Some("spike"), None));
        assert!(spike.return_period_events.unwrap() > 3_000.0);
    }

    #[test]
    fn a_record_repeats_its_verdict_from_its_evidence() {
        let mut series = Judged::new();
        series.pass(3_000);
        let value = 60.0;
        let judged = series.push(value).unwrap();
        let evidence = judged.evidence.into_iter().flatten().map(|(name, number)| (name.to_owned(), number)).collect();
        let recorded = Recorded {
            method: "adaptive",
            window: &[],
            window_count: 100,
            evidence: &evidence,
            mean: None,
            threshold: 1.0,
            value,
        };
        let again = repeat(&recorded).unwrap();
        let figures = |judged: &Judgement| {
            [judged.score, judged.expected, judged.lower, judged.upper, judged.threshold].map(f64::to_bits)
        };
        assert!(judged.abnormal && again.abnormal);
        assert_eq!(figures(&again), figures(&judged));
    }

    #[test]
    fn the_band_ends_where_the_lane_of_spikes_becomes_abnormal() {
        let mut series = Judged::new();
        series.pass(3_000);
        let state = |block: &SeriesBlock| block.state().to_vec();
        let judge =
            |value| adaptive().judge(&series.block, &state(&series.block), value, Some((series.minute + 1) * MINUTE));
        let band = judge(daily(series.minute + 1)).unwrap();
        let width = band.upper - band.lower;
        assert!(!judge(band.upper - width * 1e-3).unwrap().abnormal);
        assert!(judge(band.upper + width * 1e-3).unwrap().abnormal);
    }

    #[test]
    fn a_distance_below_the_smallest_deviation_of_the_settings_is_normal() {
        let mut series = Judged::new();
        series.pass(3_000);
        let time = Some((series.minute + 1) * MINUTE);
        let judge = |limits| Adaptive(limits).judge(&series.block, series.block.state(), 40.0, time).unwrap();
        assert!(judge(Limits::default()).abnormal);
        assert!(!judge(Limits { min_std_dev: 20.0, ..Limits::default() }).abnormal);
        assert!(!judge(Limits { min_relative_std_dev: 1.0, ..Limits::default() }).abnormal);
    }

    proptest! {
        #[test]
        fn no_values_and_no_times_make_a_figure_that_is_not_finite(
            values in prop::collection::vec(
                (prop_oneof![any::<f64>().prop_filter("finite", |x| x.is_finite()), Just(f64::MAX), Just(f64::MIN), Just(0.0), -9.0..9.0],
                 prop::option::of(any::<i64>().prop_map(|time| time / 1_000_000))), 1..400),
        ) {
            let mut block = SeriesBlock::named("d");
            block.set_state(&[0; STATE_WORDS]);
            for (value, time) in values {
                if let Some(judged) = adaptive().judge_and_update(&mut block, value, time) {
                    let numbers = [judged.score, judged.expected, judged.lower, judged.upper].into_iter();
                    let periods = [judged.return_period_events, judged.return_period_seconds].into_iter().flatten();
                    let evidence = judged.evidence.into_iter().flatten().map(|(_, number)| number);
                    prop_assert!(numbers.chain(periods).chain(evidence).all(f64::is_finite), "{:?}", judged);
                }
            }
        }
    }
}
