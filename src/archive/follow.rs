//! Follows committed anomalies: the positions of the sinks, and what they commit from there on.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::{NoAnswer, StoredAnomaly};

/// Position of each sink: all commits below these offsets have been seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor(pub BTreeMap<i32, i64>);

impl Cursor {
    /// Parses the text that `Display` writes.
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

/// A record that a sink has committed, with its position in the sink's order.
#[derive(Debug, Clone, PartialEq)]
pub struct CommittedAnomaly {
    /// Number of the sink.
    pub sink: i32,
    /// Position in the sink's order.
    pub offset: i64,
    /// Record that the sink committed.
    pub record: StoredAnomaly,
}

/// Follows commits over a connection of its own. Every call may block.
pub trait Follower: Send {
    /// Returns the positions of the sinks.
    ///
    /// # Errors
    /// Fails with [`NoAnswer`]. A follower that failed cannot be used again.
    fn position(&mut self) -> Result<Cursor, NoAnswer>;

    /// Returns at most `limit` records that one sink committed in `from <= offset < to`, in its order.
    ///
    /// # Errors
    /// Fails as [`Follower::position`] does.
    fn committed(&mut self, sink: i32, from: i64, to: i64, limit: u32) -> Result<Vec<CommittedAnomaly>, NoAnswer>;

    /// Waits until something is committed, or until `patience` has passed.
    ///
    /// # Errors
    /// Fails as [`Follower::position`] does.
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
