//! Lengths of snappy data, which begins with its unpacked length.

use std::cell::Cell;

use super::budget::ReservedMemory;

/// Length of the header of snappy-java's framing.
pub(super) const JAVA_HEADER: usize = 16;

/// What the next call does with the packed data.
pub(super) enum SnappyPlan {
    /// It returns these data instead.
    Replace(Vec<u8>),
    /// It unpacks them, and keeps the memory.
    Unpack(Option<ReservedMemory>),
}

thread_local! {
    /// The packed data, and the plan for them.
    static PLAN: Cell<Option<(usize, SnappyPlan)>> = const { Cell::new(None) };
}

/// Sets the plan for these packed data.
pub(super) fn set(packed: *const u8, plan: SnappyPlan) {
    PLAN.set(Some((packed.addr(), plan)));
}

/// Returns the plan for these packed data, if there is one.
pub(super) fn take(packed: *const u8) -> Option<SnappyPlan> {
    PLAN.take().filter(|(of, _)| *of == packed.addr()).map(|(_, plan)| plan)
}

/// Returns the unpacked length of data in snappy-java's framing, up to the first damage: the sum of the lengths at the
/// beginnings of its blocks.
pub(super) fn java_length(blocks: &[u8]) -> usize {
    let (mut rest, mut sum) = (blocks, 0_usize);
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let Some((block, next)) = after.split_at_checked(u32::from_be_bytes(*length) as usize) else { break };
        let Some(length) = first_number(block) else { break };
        sum = sum.saturating_add(length);
        rest = next;
    }
    sum
}

/// Returns the number at the beginning of a block, with 7 bits in each of at most 5 bytes.
fn first_number(block: &[u8]) -> Option<usize> {
    let mut number = 0;
    for (at, byte) in block.iter().take(5).enumerate() {
        number |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}
