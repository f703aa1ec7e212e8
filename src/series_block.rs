//! What is stored of one series: its name, the state of its method, and its window, which is the last `capacity` values in
//! the order of arrival. A running estimate of the window's moments may only say "certainly normal".
//!
//! The exact moments are a pure function of the ordered values: two passes in double-double arithmetic, rounded once at
//! the end. No offset, restart or batch size can therefore change a bit of them. This file does not know devices,
//! methods or Kafka.

mod estimate;
mod exact;

use bytemuck::{Pod, Zeroable};

use estimate::Estimate;
pub use exact::{WindowMoments, moments};

/// Number of values that fit into the first block.
const FIRST_ROOM: usize = 5;
/// Size of the head in words of eight bytes.
const HEAD: usize = size_of::<Head>() / size_of::<u64>();

/// One block of memory with everything that is stored of a series for judging. The name, the estimate that screens a value,
/// and the values share a few cache lines. The block grows with the values up to its
/// capacity.
///
/// The block contains `Head`, the name, the state of the method, and the values. With a hundred values, no state and a
/// name of up to 48 bytes it takes 896 bytes, which is a size class of common allocators.
#[derive(Debug, Clone)]
pub struct SeriesBlock {
    words: Box<[u64]>,
}

#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
struct Head {
    estimate: Estimate,
    /// Index of the oldest value once the window is full and is used as a ring.
    oldest: u32,
    /// Length of the name in bytes.
    name: u16,
    /// Length of the method's state in words.
    state: u16,
}

/// The effect of [`SeriesBlock::push`] on the oldest value. [`SeriesBlock::undo`] takes it and restores the window exactly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Replaced {
    /// No value left, because the window was still growing.
    Nothing,
    /// The oldest value left the window.
    Oldest(f64),
}

/// Creates a block without a name and without values.
impl Default for SeriesBlock {
    fn default() -> Self {
        SeriesBlock::named("")
    }
}

impl SeriesBlock {
    /// Creates a block without values for a series.
    pub fn named(name: &str) -> Self {
        SeriesBlock::with(name, &[])
    }

    /// Creates a block whose window contains these finite values, oldest first.
    pub fn with(name: &str, values: &[f64]) -> Self {
        let mut block = SeriesBlock::allocate(name, 0, values.len().max(FIRST_ROOM));
        block.values_mut()[..values.len()].copy_from_slice(values);
        block.head_mut().estimate = Estimate::of(values);
        block
    }

    /// Allocates a block without values, whose state has `state` zeros.
    fn allocate(name: &str, state: usize, room: usize) -> Self {
        // Names of devices and metrics are at most 513 bytes together.
        let name = &name.as_bytes()[..name.len().min(u16::MAX.into())];
        let mut words = vec![0; HEAD + name.len().div_ceil(size_of::<u64>()) + state + room].into_boxed_slice();
        bytemuck::cast_slice_mut(&mut words[HEAD..])[..name.len()].copy_from_slice(name);
        let mut block = SeriesBlock { words };
        (block.head_mut().name, block.head_mut().state) = (name.len() as u16, state as u16);
        block
    }

    fn head(&self) -> &Head {
        bytemuck::from_bytes(bytemuck::cast_slice(&self.words[..HEAD]))
    }

    fn head_mut(&mut self) -> &mut Head {
        bytemuck::from_bytes_mut(bytemuck::cast_slice_mut(&mut self.words[..HEAD]))
    }

    /// Returns the index of the state's first word.
    fn state_start(&self) -> usize {
        HEAD + (self.head().name as usize).div_ceil(size_of::<u64>())
    }

    /// Returns the index of the first value's word.
    fn start(&self) -> usize {
        self.state_start() + self.head().state as usize
    }

    /// Returns what the method remembers of the series besides these values; empty for a method without state.
    pub fn state(&self) -> &[u64] {
        &self.words[self.state_start()..self.start()]
    }

    /// Returns the method's state as a slice that can be changed.
    pub fn state_mut(&mut self) -> &mut [u64] {
        let (from, to) = (self.state_start(), self.start());
        &mut self.words[from..to]
    }

    /// Replaces the state. A state of another length needs a new block.
    pub fn set_state(&mut self, state: &[u64]) {
        if self.state().len() != state.len() {
            let mut other = SeriesBlock::allocate(self.name(), state.len(), self.len().max(FIRST_ROOM));
            for (to, value) in other.values_mut().iter_mut().zip(self.iter()) {
                *to = value;
            }
            other.head_mut().estimate = self.head().estimate;
            *self = other;
        }
        self.state_mut().copy_from_slice(state);
    }

    /// Returns the stored values in the order of the ring.
    fn values(&self) -> &[f64] {
        let start = self.start();
        bytemuck::cast_slice(&self.words[start..start + self.len()])
    }

    /// Returns the block's space for values.
    fn values_mut(&mut self) -> &mut [f64] {
        let start = self.start();
        bytemuck::cast_slice_mut(&mut self.words[start..])
    }

    /// Returns the size of the block in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.words)
    }

    /// Returns the name as bytes of UTF-8.
    pub fn name_bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words[HEAD..])[..self.head().name as usize]
    }

    /// Returns the name of the series.
    pub fn name(&self) -> &str {
        // The bytes came from a `str`.
        std::str::from_utf8(self.name_bytes()).unwrap_or_default()
    }

    /// Returns the number of values in the window.
    pub fn len(&self) -> usize {
        self.head().estimate.count as usize
    }

    /// Returns whether the window contains no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the values from the oldest to the newest, as the ring's two runs.
    pub fn runs(&self) -> (&[f64], &[f64]) {
        let (newer, older) = self.values().split_at(self.head().oldest as usize);
        (older, newer)
    }

    /// Iterates over the values from the oldest to the newest.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = f64> + Clone + '_ {
        let (older, newer) = self.runs();
        older.iter().chain(newer).copied()
    }

    /// Returns the most recent `n` values, oldest first.
    pub fn newest(&self, n: usize) -> Vec<f64> {
        self.iter().skip(self.len().saturating_sub(n)).collect()
    }

    /// Returns the exact mean and population standard deviation; `None` if the window is empty.
    pub fn moments(&self) -> Option<WindowMoments> {
        moments(self.iter())
    }

    /// Appends a finite value. If the window already contains `capacity` values, the oldest one leaves.
    pub fn push(&mut self, value: f64, capacity: usize) -> Replaced {
        debug_assert!(value.is_finite() && capacity > 0);
        let Head { estimate: Estimate { count, .. }, oldest, .. } = *self.head();
        let (count, at) = (count as usize, oldest as usize);
        let replaced = if count < capacity {
            if at > 0 {
                // A ring that has turned cannot grow in place. Only a larger capacity after a restart leads to this
                // case.
                self.values_mut()[..count].rotate_left(at);
                self.head_mut().oldest = 0;
            }
            if self.start() + count == self.words.len() {
                self.grow(capacity);
            }
            self.values_mut()[count] = value;
            Replaced::Nothing
        } else {
            self.head_mut().oldest = if at + 1 == count { 0 } else { oldest + 1 };
            Replaced::Oldest(std::mem::replace(&mut self.values_mut()[at], value))
        };
        let estimate = &mut self.head_mut().estimate;
        estimate.slide(value, replaced);
        if estimate.is_due() {
            self.head_mut().estimate = Estimate::of(self.values());
        }
        replaced
    }

    /// Moves the values into a larger block with space for at most `capacity` values.
    fn grow(&mut self, capacity: usize) {
        let doubled = (self.len() * 2).max(FIRST_ROOM);
        // A last, small step would not be worth another block.
        let room = if doubled + doubled / 4 >= capacity { capacity } else { doubled };
        let mut larger = SeriesBlock::allocate(self.name(), self.head().state.into(), room);
        larger.words[..self.words.len()].copy_from_slice(&self.words);
        *self = larger;
    }

    /// Keeps the newest `capacity` values, and returns whether there were more.
    pub fn shrink(&mut self, capacity: usize) -> bool {
        let is_larger = self.len() > capacity;
        if is_larger {
            let mut smaller = SeriesBlock::with(self.name(), &self.newest(capacity));
            smaller.set_state(self.state());
            *self = smaller;
        }
        is_larger
    }

    /// Undoes the latest [`push`](SeriesBlock::push) that is not undone yet.
    pub fn undo(&mut self, replaced: Replaced) {
        let (count, oldest) = (self.len(), self.head().oldest as usize);
        let count = match replaced {
            Replaced::Nothing => count - 1,
            Replaced::Oldest(value) => {
                let at = (oldest + count - 1) % count;
                self.values_mut()[at] = value;
                self.head_mut().oldest = at as u32;
                count
            }
        };
        self.head_mut().estimate = Estimate::of(&self.values_mut()[..count]);
    }

    /// Returns true only if `|value - mean| <= threshold x std_dev` certainly holds for the exact moments. If it
    /// returns false, the exact moments decide.
    pub fn certainly_within(&self, value: f64, threshold: f64) -> bool {
        self.head().estimate.certainly_within(value, threshold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undo_restores_the_window_bit_for_bit() {
        let mut block = SeriesBlock::default();
        let mut trail = Vec::new();
        for i in 0..250 {
            let before = block.iter().map(f64::to_bits).collect::<Vec<_>>();
            let replaced = block.push((i as f64).sin() * 1e9, 100);
            trail.push((before, replaced));
        }
        while let Some((before, replaced)) = trail.pop() {
            block.undo(replaced);
            assert_eq!(before, block.iter().map(f64::to_bits).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_larger_capacity_keeps_the_values_in_order() {
        let mut block = SeriesBlock::default();
        (0..7).for_each(|i| {
            block.push(i as f64, 5);
        });
        block.push(7.0, 8);
        assert_eq!(block.iter().collect::<Vec<_>>(), [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    }

    #[test]
    fn a_name_stays_with_its_values_in_a_block_of_896_bytes() {
        for name in ["", "d", "dévice-0\u{0}temperature", &"n".repeat(48)] {
            let mut block = SeriesBlock::named(name);
            let mut values = Vec::new();
            for i in 0..150 {
                values.push(f64::from(i));
                block.push(f64::from(i), 100);
                assert_eq!(
                    (block.name(), block.newest(i as usize + 1)),
                    (name, values[values.len().saturating_sub(100)..].to_vec())
                );
            }
            assert!(size_of_val(&*block.words) <= 896);
            assert!(block.shrink(7) && block.name() == name && block.newest(99) == values[143..]);
        }
    }

    #[test]
    fn the_state_of_the_method_stays_when_values_arrive_and_the_window_shrinks() {
        let mut block = SeriesBlock::named("device-0\u{0}m");
        (0..7).for_each(|i| {
            block.push(f64::from(i), 5);
        });
        block.set_state(&[1, 2, 3]);
        for i in 7..100 {
            block.push(f64::from(i), 50);
            assert_eq!((block.name(), block.state()), ("device-0\u{0}m", &[1, 2, 3][..]));
        }
        block.shrink(3);
        assert_eq!((block.newest(9), block.state()), (vec![97.0, 98.0, 99.0], &[1, 2, 3][..]));
        block.set_state(&[]);
        assert_eq!((block.newest(9), block.state()), (vec![97.0, 98.0, 99.0], &[][..]));
        assert!(block.certainly_within(98.0, 3.0));
    }

    #[test]
    fn steady_noise_is_screened_even_far_from_zero() {
        for offset in [0.0, 1e9, -1e12] {
            let mut block = SeriesBlock::default();
            let mut skipped = 0;
            for i in 0..10_000u32 {
                let x = offset + f64::from(i.wrapping_mul(2_654_435_761) >> 16) / 65_536.0;
                skipped += u32::from(block.certainly_within(x, 3.0));
                block.push(x, 100);
            }
            assert!(skipped > 9_500, "{skipped} of 10000 skipped at {offset}");
        }
    }
}
