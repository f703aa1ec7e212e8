//! Following what is committed: how far the sinks are, and what they commit from there on.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::{NoAnswer, StoredAnomaly};

/// How far each sink has come: what is committed below these offsets has been seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor(pub BTreeMap<i32, i64>);

impl Cursor {
    /// The reverse of its text.
    pub fn parse(text: &str) -> Option<Cursor> {
        let text = text.strip_prefix('c')?;
        let pair = |part: &str| {
            let (sink, offset) = part.split_once('-')?;
            Some((sink.parse().ok()?, offset.parse().ok()?))
        };
        text.split('.').filter(|part| !part.is_empty()).map(pair).collect::<Option<_>>().map(Cursor)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("c")?;
        for (i, (sink, offset)) in self.0.iter().enumerate() {
            write!(f, "{}{sink}-{offset}", if i > 0 { "." } else { "" })?;
        }
        Ok(())
    }
}

/// A record that a sink has committed, with its place in the sink's order.
#[derive(Debug, Clone, PartialEq)]
pub struct CommittedAnomaly {
    /// The sink.
    pub sink: i32,
    /// In its order.
    pub offset: i64,
    /// What it committed.
    pub record: StoredAnomaly,
}

/// Follows what is committed, over a connection of its own. Every call may block.
pub trait Follower: Send {
    /// How far the sinks are.
    ///
    /// # Errors
    /// As [`NoAnswer`] says; a follower that failed is of no more use.
    fn position(&mut self) -> Result<Cursor, NoAnswer>;

    /// What one sink committed in `from <= offset < to`, in its order, at most `limit`.
    ///
    /// # Errors
    /// See [`Follower::position`].
    fn committed(&mut self, sink: i32, from: i64, to: i64, limit: u32) -> Result<Vec<CommittedAnomaly>, NoAnswer>;

    /// Returns when something was committed, or after `patience`.
    ///
    /// # Errors
    /// See [`Follower::position`].
    fn wait(&mut self, patience: Duration) -> Result<(), NoAnswer>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_from_its_text() {
        for text in ["c", "c1-0", "c1-184467.2-90211"] {
            assert_eq!(Cursor::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "1-2", "c1", "c1-x", "c1-2.x-3", "c1-2,3-4"] {
            assert_eq!(Cursor::parse(text), None, "{text:?}");
        }
    }
}
