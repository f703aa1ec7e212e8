//! The rule in exact integer arithmetic: every f64 is a whole multiple of 2^-1074, so sums and squares are exact and can
//! run along with the window. Roundings to f64 are correct to the last bit.

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
    series: HashMap<String, Series>,
}

#[derive(Default)]
struct Series {
    values: VecDeque<BigInt>,
    sum: BigInt,
    squares: BigInt,
}

impl Oracle {
    pub fn new(window: usize, min_samples: usize, threshold: u32) -> Self {
        Oracle { window, min_samples, threshold, series: HashMap::new() }
    }

    /// From now on windows hold so many values: the newest of those that they have.
    pub fn resize(&mut self, window: usize) {
        self.window = window;
    }

    /// Judges a value, then adds it; `None` while learning.
    pub fn judge(&mut self, series: &str, value: f64) -> Option<Judged> {
        let series = self.series.entry(series.to_owned()).or_default();
        series.shrink(self.window);
        let x = exact(value);
        let judged = (series.values.len() >= self.min_samples).then(|| series.judge(&x, self.threshold));
        series.sum += &x;
        series.squares += &x * &x;
        series.values.push_back(x);
        series.shrink(self.window);
        judged
    }
}

impl Series {
    fn shrink(&mut self, window: usize) {
        while self.values.len() > window {
            let old = self.values.pop_front().unwrap();
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
    assert_eq!(quotient(&exact(0.1), 1, false), 0.1);
    assert_eq!(quotient(&(exact(0.1) * 3), 3, false), 0.1);
    assert_eq!(quotient(&exact(5e-324), 1, false), 5e-324);
    assert_eq!(quotient(&exact(-1.0), 3, false), -1.0 / 3.0);
    assert_eq!(quotient(&exact(f64::MAX), 1, false), f64::MAX);
}
