//! The most recently committed anomalies in the order in which they were read. It records the position of each sink
//! before the first and after the last of them.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use hyper::body::Bytes;

use crate::archive::{CommittedAnomaly, Cursor, StoredAnomaly};

/// Number of rows kept for subscribers that reconnect.
pub(crate) const MAX_RECENT_ROWS: usize = 4_096;

/// A committed anomaly with its messages.
pub(crate) struct RecentAnomaly {
    /// The sink that committed it.
    pub sink: i32,
    /// Offset of the anomaly in the sink's order.
    pub offset: i64,
    /// The anomaly with its metadata.
    pub record: StoredAnomaly,
    /// The row in the form of JSON.
    pub data: String,
    /// The message that contains only this row.
    pub message: Bytes,
    /// Position of the stream after this row.
    id: String,
    /// The message for programs; made at its first use.
    plain: OnceLock<Bytes>,
}

impl RecentAnomaly {
    /// Returns the message that contains the record in the form of the API.
    pub(crate) fn plain(&self) -> &Bytes {
        self.plain.get_or_init(|| {
            // A record consists of finite numbers and strings, so it can always be written as JSON.
            let record = serde_json::to_string(&self.record).unwrap_or_default();
            Bytes::from(format!("id: {}\nevent: anomaly\ndata: {record}\n\n", self.id))
        })
    }
}

/// A bounded queue of rows with its first and last position.
#[derive(Default)]
pub(crate) struct RecentAnomalies {
    rows: VecDeque<Arc<RecentAnomaly>>,
    /// Position before the first row; earlier rows have been removed.
    start: Cursor,
    /// Position of the stream after the last row.
    position: Cursor,
}

impl RecentAnomalies {
    /// Returns the position up to which all rows have been read.
    pub(crate) fn position(&self) -> &Cursor {
        &self.position
    }

    /// Removes all rows and continues at `position`.
    pub(crate) fn restart(&mut self, position: Cursor) {
        self.rows.clear();
        self.start = position.clone();
        self.position = position;
    }

    /// Adds a row of a sink; `data` is its JSON. Returns the row with its messages.
    pub(crate) fn push(&mut self, committed: CommittedAnomaly, data: String) -> Arc<RecentAnomaly> {
        let CommittedAnomaly { sink, offset, record } = committed;
        self.position.0.insert(sink, offset + 1);
        let id = self.position.to_string();
        let message = Bytes::from(format!("id: {id}\nevent: anomaly\ndata: {data}\n\n"));
        let row = Arc::new(RecentAnomaly { sink, offset, record, data, message, id, plain: OnceLock::new() });
        self.rows.push_back(Arc::clone(&row));
        if self.rows.len() > MAX_RECENT_ROWS
            && let Some(gone) = self.rows.pop_front()
        {
            self.start.0.insert(gone.sink, gone.offset + 1);
        }
        row
    }

    /// Moves the position of the sinks forward, also past offsets that were no rows.
    pub(crate) fn advance(&mut self, position: &Cursor) {
        self.position.0.extend(&position.0);
    }

    /// Returns whether the cursor is ahead of the position.
    pub(crate) fn is_behind(&self, cursor: &Cursor) -> bool {
        cursor.0.iter().any(|(sink, offset)| self.position.0.get(sink).is_none_or(|position| position < offset))
    }

    /// Returns the rows after a cursor; `None` when they have been removed, or when the cursor is not one of this
    /// database.
    pub(crate) fn since(&self, cursor: &Cursor) -> Option<Vec<Arc<RecentAnomaly>>> {
        let of = |cursor: &Cursor, sink: &i32| cursor.0.get(sink).copied().unwrap_or(0);
        let is_known = self.position.0.iter().all(|(sink, position)| {
            let was = of(cursor, sink);
            was >= of(&self.start, sink) && was <= *position
        });
        // A cursor with an unknown sink belongs to another database.
        if !is_known || cursor.0.keys().any(|sink| !self.position.0.contains_key(sink)) {
            return None;
        }
        Some(self.rows.iter().filter(|row| row.offset >= of(cursor, &row.sink)).cloned().collect())
    }
}
