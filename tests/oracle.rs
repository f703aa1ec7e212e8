//! The methods by themselves. `sigma` in exact integer arithmetic: every f64 is a whole multiple of 2^-1074, so sums and squares
//! are exact and can run along with the window, and roundings to f64 are correct to the last bit. `ewma` as its formula is
//! documented, one rounded operation after the other.

use std::collections::{HashMap, VecDeque};

use num_bigint::{BigInt, BigUint, Sign};

/// What the rule says of one value; figures are those of the window before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judged {
    pub mean: f64,
    pub std_dev: f64,
    pub is_abnormal: bool,
    /// Closer to the threshold than 1e-9 of it.
    pub is_edge: bool,
}

pub struct Oracle {
    window: usize,
    min_samples: usize,
    threshold: u32,
    is_ewma: bool,
    series: HashMap<String, Series>,
}

#[derive(Default)]
struct Series {
    values: VecDeque<BigInt>,
    /// The same.
    floats: VecDeque<f64>,
    sum: BigInt,
    squares: BigInt,
    /// Whether what follows is kept.
    is_weighted: bool,
    /// Of the ewma: values so far, mean and variance.
    count: u64,
    mean: f64,
    variance: f64,
}

impl Oracle {
    /// Of the method `sigma`.
    pub fn new(window: usize, min_samples: usize, threshold: u32) -> Self {
        Oracle { window, min_samples, threshold, is_ewma: false, series: HashMap::new() }
    }

    /// Of that method.
    pub fn of(method: &str, window: usize, min_samples: usize, threshold: u32) -> Self {
        assert!(["sigma", "ewma"].contains(&method), "{method}");
        Oracle { is_ewma: method == "ewma", ..Oracle::new(window, min_samples, threshold) }
    }

    /// From now on this is the method, and windows hold so many values: the newest of those that they have.
    pub fn set(&mut self, method: &str, window: usize) {
        (self.is_ewma, self.window) = (method == "ewma", window);
    }

    /// From now on these hold.
    pub fn set_limits(&mut self, min_samples: usize, threshold: u32) {
        (self.min_samples, self.threshold) = (min_samples, threshold);
    }

    /// Judges a value, then adds it; `None` while learning.
    pub fn judge(&mut self, series: &str, value: f64) -> Option<Judged> {
        let series = self.series.entry(series.to_owned()).or_default();
        series.shrink(self.window);
        if self.is_ewma != std::mem::replace(&mut series.is_weighted, self.is_ewma) {
            // Another method begins with the window.
            (series.count, series.mean, series.variance) = (0, 0.0, 0.0);
            series.floats.clone().into_iter().for_each(|value| series.weigh(value, self.window));
        }
        let x = exact(value);
        let judged = (series.values.len() >= self.min_samples).then(|| match self.is_ewma {
            true => series.judge_weighted(value, self.threshold),
            false => series.judge(&x, self.threshold),
        });
        if self.is_ewma {
            series.weigh(value, self.window);
        }
        series.sum += &x;
        series.squares += &x * &x;
        series.values.push_back(x);
        series.floats.push_back(value);
        series.shrink(self.window);
        judged
    }
}

impl Series {
    fn shrink(&mut self, window: usize) {
        while self.values.len() > window {
            let old = self.values.pop_front().unwrap();
            self.floats.pop_front();
            self.sum -= &old;
            self.squares -= &old * &old;
        }
    }

    fn judge(&self, x: &BigInt, threshold: u32) -> Judged {
        let n = BigInt::from(self.values.len());
        // n^2 times the variance, in squared units.
        let variance = &n * &self.squares - &self.sum * &self.sum;
        let distance = &n * x - &self.sum;
        let (left, right) = (&distance * &distance, &variance * (threshold * threshold));
        let gap = if left > right { &left - &right } else { &right - &left };
        Judged {
            mean: quotient(&self.sum, self.values.len() as u64, false),
            std_dev: quotient(&variance, self.values.len() as u64, true),
            is_abnormal: left > right,
            is_edge: right.sign() != Sign::NoSign && gap * 500_000_000u64 <= right,
        }
    }
}

impl Series {
    fn judge_weighted(&self, value: f64, threshold: u32) -> Judged {
        let std_dev = self.variance.sqrt();
        // Distances beyond the range of f64 are no part of the tests.
        let is_abnormal = (value - self.mean).abs() > f64::from(threshold) * std_dev;
        Judged { mean: self.mean, std_dev, is_abnormal, is_edge: false }
    }

    /// Half of all weight is with the newest `window / 3` values or so, once there are as many.
    fn weigh(&mut self, value: f64, window: usize) {
        self.count += 1;
        let of_all = 1.0 / self.count as f64;
        let of_span = 2.0 / (window as f64 + 1.0);
        let share = if of_all > of_span { of_all } else { of_span };
        if self.count > 1 {
            let distance = value - self.mean;
            let variance = (1.0 - share) * (self.variance + distance * (share * distance));
            // Where squares are beyond the range of f64.
            self.variance = if variance.is_finite() { variance } else { f64::MAX };
            self.mean += share * distance;
        } else {
            self.mean = value;
        }
    }
}

/// In units of 2^-1074.
fn exact(value: f64) -> BigInt {
    let bits = value.to_bits();
    let (exponent, fraction) = ((bits >> 52) & 0x7ff, bits & ((1 << 52) - 1));
    let magnitude = match exponent {
        0 => BigUint::from(fraction),
        _ => BigUint::from(fraction | 1 << 52) << (exponent - 1),
    };
    BigInt::from_biguint(if value < 0.0 { Sign::Minus } else { Sign::Plus }, magnitude)
}

/// `top / n`, or `sqrt(top) / n`, in units, rounded to the nearest f64, ties to even.
fn quotient(top: &BigInt, n: u64, root: bool) -> f64 {
    let magnitude = top.magnitude();
    if magnitude.bits() == 0 {
        return 0.0;
    }
    // So many more bits that the quotient has at least 64, and a sticky last one.
    let extra = 2 * (80 + u64::from(n.ilog2()));
    let widened = magnitude << (2 * extra);
    let (mut whole, is_exact, shift) = if root {
        let floor = widened.sqrt();
        let is_exact = &floor * &floor == widened;
        (floor, is_exact, extra)
    } else {
        (widened, true, 2 * extra)
    };
    let rest = &whole % n;
    whole /= n;
    if !is_exact || rest.bits() > 0 {
        whole |= BigUint::from(1u8);
    }
    // whole x 2^-shift units of 2^-1074
    let sign = if top.sign() == Sign::Minus { -1.0 } else { 1.0 };
    sign * round(&whole, -(shift as i64) - 1074)
}

/// `whole x 2^exponent`, correctly rounded; `whole`'s last bit may be sticky.
fn round(whole: &BigUint, exponent: i64) -> f64 {
    let bits = whole.bits() as i64;
    // 53 bits of mantissa, fewer for subnormals.
    let keep = 53.min(bits + exponent + 1074);
    if keep < 0 {
        return 0.0;
    }
    let drop = (bits - keep) as u64;
    let mut mantissa = u64::try_from(whole >> drop).unwrap();
    if drop > 0 {
        let rest = whole - (BigUint::from(mantissa) << drop);
        let half = BigUint::from(1u8) << (drop - 1);
        if rest > half || (rest == half && mantissa & 1 == 1) {
            mantissa += 1;
        }
    }
    let exponent = exponent + drop as i64;
    // Exact in two steps: the mantissa has at most 53 bits and is not below the least subnormal.
    let part = (exponent / 2) as i32;
    mantissa as f64 * 2f64.powi(part) * 2f64.powi(exponent as i32 - part)
}

#[test]
fn the_oracle_knows_textbook_cases() {
    let mut oracle = Oracle::new(4, 2, 3);
    for value in [9.0, 11.0, 9.0, 11.0] {
        oracle.judge("s", value);
    }
    let judged = oracle.judge("s", 13.0).unwrap();
    assert_eq!((judged.mean, judged.std_dev, judged.is_abnormal, judged.is_edge), (10.0, 1.0, false, true));
    let judged = oracle.judge("s", 100.0).unwrap();
    assert_eq!(judged.mean, 11.0);
    assert_eq!(judged.std_dev, 2f64.sqrt());
    assert!(judged.is_abnormal && !judged.is_edge);
    let mut weighted = Oracle::of("ewma", 3, 1, 3);
    let judged = [1.0, 3.0, 2.0, 9.0].map(|value| weighted.judge("s", value));
    // One half of the weight from the second value on.
    let figures = judged.map(|judged| judged.map(|j| (j.mean, j.std_dev, j.is_abnormal)));
    let (one, two) = ((1.0, 0.0, true), (2.0, 1.0, false));
    assert_eq!(figures, [None, Some(one), Some(two), Some((2.0, 0.5f64.sqrt(), true))]);
    assert_eq!(quotient(&exact(0.1), 1, false), 0.1);
    assert_eq!(quotient(&(exact(0.1) * 3), 3, false), 0.1);
    assert_eq!(quotient(&exact(5e-324), 1, false), 5e-324);
    assert_eq!(quotient(&exact(-1.0), 3, false), -1.0 / 3.0);
    assert_eq!(quotient(&exact(f64::MAX), 1, false), f64::MAX);
}
