//! Mean and population standard deviation of a sequence, in two passes of double-double arithmetic (about 106 bits),
//! each rounded once. The result equals exact arithmetic in every bit, unless the values' sizes lie some thirty orders
//! of magnitude apart: then the last bit may differ. Error-free sum: Knuth, TAOCP 2, 4.2.2. Product: Dekker, Numer.
//! Math. 18 (1971). Compensated sums: Ogita, Rump, Oishi, SIAM J. Sci. Comput. 26 (2005).

/// Mean and population standard deviation, both finite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WindowMoments {
    /// Arithmetic mean of the values.
    pub mean: f64,
    /// Population standard deviation (divided by n); exactly 0 when all values are equal.
    pub std_dev: f64,
}

/// Computes the moments of finite values; returns `None` if there are no values. It first scales values near the ends
/// of the range by a power of two, so that neither sums nor squares overflow or vanish.
pub fn moments(values: impl Iterator<Item = f64> + Clone) -> Option<WindowMoments> {
    let largest = values.clone().map(f64::abs).reduce(f64::max)?;
    let scale = match largest {
        0.0 => return Some(WindowMoments { mean: 0.0, std_dev: 0.0 }),
        1e-100..=1e100 => 1.0,
        // Two steps, since the scale of a subnormal is itself out of range.
        _ if largest < 1e-100 => 2f64.powi(600),
        _ => 2f64.powi(-600),
    };
    let scaled = values.map(|x| x * scale);
    let count = scaled.clone().count() as f64;
    let mean = scaled.clone().fold(Double::ZERO, Double::plus).over(count);
    let square = scaled.fold(Double::ZERO, |sum, x| sum.add(mean.distance(x).squared()));
    Some(WindowMoments { mean: mean.unscaled(scale), std_dev: square.over(count).sqrt().unscaled(scale) })
}

/// An unevaluated sum of two f64, the second at most half a unit in the last place of the first.
#[derive(Clone, Copy)]
struct Double {
    high: f64,
    low: f64,
}

/// Computes `a + b = sum + error` exactly.
fn two_sum(a: f64, b: f64) -> Double {
    let sum = a + b;
    let part = sum - a;
    Double { high: sum, low: (a - (sum - part)) + (b - part) }
}

/// Computes `a * b = product + error` exactly (within the range that `moments` scales to).
fn two_product(a: f64, b: f64) -> Double {
    let split = |x: f64| {
        let c = 134_217_729.0 * x; // 2^27 + 1
        let high = c - (c - x);
        (high, x - high)
    };
    let product = a * b;
    let ((a_high, a_low), (b_high, b_low)) = (split(a), split(b));
    let error = a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low);
    Double { high: product, low: error }
}

impl Double {
    const ZERO: Double = Double { high: 0.0, low: 0.0 };

    fn plus(self, x: f64) -> Double {
        let sum = two_sum(self.high, x);
        two_sum(sum.high, sum.low + self.low)
    }

    fn add(self, other: Double) -> Double {
        let (high, low) = (two_sum(self.high, other.high), two_sum(self.low, other.low));
        let sum = two_sum(high.high, high.low + low.high);
        two_sum(sum.high, sum.low + low.low)
    }

    /// Computes `x - self` with both parts.
    fn distance(self, x: f64) -> Double {
        let difference = two_sum(x, -self.high);
        two_sum(difference.high, difference.low - self.low)
    }

    fn squared(self) -> Double {
        let square = two_product(self.high, self.high);
        two_sum(square.high, square.low + 2.0 * self.high * self.low)
    }

    fn over(self, n: f64) -> Double {
        let quotient = self.high / n;
        let back = two_product(quotient, n);
        two_sum(quotient, ((self.high - back.high) - back.low + self.low) / n)
    }

    /// Computes the square root with one Newton step from f64's own square root.
    fn sqrt(self) -> Double {
        if self.high <= 0.0 {
            return Double::ZERO;
        }
        let root = self.high.sqrt();
        let back = two_product(root, root);
        two_sum(root, ((self.high - back.high) - back.low + self.low) / (2.0 * root))
    }

    /// Computes `self / scale`, where `scale` is a power of two, and rounds once. A subnormal has fewer bits than
    /// `high`, so `high / scale` is rounded a second time. That result is wrong where `high` lies half-way between two
    /// subnormals and `low` decides.
    fn unscaled(self, scale: f64) -> f64 {
        let rounded = self.high / scale;
        if rounded.abs() > f64::MIN_POSITIVE {
            return rounded;
        }
        let half_way = f64::from_bits(1) * scale / 2.0;
        match self.high - rounded * scale {
            rest if rest == half_way && self.low > 0.0 => rounded.next_up(),
            rest if rest == -half_way && self.low < 0.0 => rounded.next_down(),
            _ => rounded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> WindowMoments {
        moments(values.iter().copied()).unwrap()
    }

    #[test]
    fn equal_values_have_their_own_mean_and_no_deviation() {
        for x in [0.1, -1.0 / 3.0, 5e-324, f64::MAX, 1e12 + 0.1, f64::MIN_POSITIVE] {
            for n in 1..=100 {
                assert_eq!(of(&vec![x; n]), WindowMoments { mean: x, std_dev: 0.0 }, "{n} times {x:e}");
            }
        }
    }

    #[test]
    fn the_ends_of_the_range_neither_overflow_nor_vanish() {
        let m = f64::MAX;
        assert_eq!(of(&[m, -m]), WindowMoments { mean: 0.0, std_dev: m });
        assert_eq!(of(&[5e-324, 1.5e-323]), WindowMoments { mean: 1e-323, std_dev: 5e-324 });
        assert_eq!(of(&[1e300, 3e300]), WindowMoments { mean: 2e300, std_dev: 1e300 });
    }

    #[test]
    fn a_subnormal_is_rounded_once() {
        let m = of(&[-8.75897527605989e-309, 0.0, 0.0]);
        assert_eq!(m.std_dev, 4.129020542631505e-309);
    }

    #[test]
    fn a_small_spread_survives_a_large_offset() {
        assert_eq!(of(&[1e12 + 1.0, 1e12 - 1.0]), WindowMoments { mean: 1e12, std_dev: 1.0 });
    }
}
