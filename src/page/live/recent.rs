//! What was committed last, in the order in which it was seen, with each sink's place before the first and after the last.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use hyper::body::Bytes;

use crate::archive::{CommittedAnomaly, Cursor, StoredAnomaly};

/// Rows kept for readers who come back.
pub const KEPT: usize = 4_096;

/// A row as it is sent.
pub struct RecentAnomaly {
    /// Which sink committed it.
    pub sink: i32,
    /// Where in its order.
    pub offset: i64,
    /// What it is.
    pub record: StoredAnomaly,
    /// Its JSON.
    pub data: String,
    /// A message of its own.
    pub message: Bytes,
    /// How far its reader is then.
    id: String,
    /// For programs; made when the first of them wants it.
    plain: OnceLock<Bytes>,
}

impl RecentAnomaly {
    /// The message with the record as the API gives it.
    pub fn plain(&self) -> &Bytes {
        self.plain.get_or_init(|| {
            // A record of finite numbers and strings can always be written.
            let record = serde_json::to_string(&self.record).unwrap_or_default();
            Bytes::from(format!("id: {}\nevent: anomaly\ndata: {record}\n\n", self.id))
        })
    }
}

/// Rows and places.
#[derive(Default)]
pub struct RecentAnomalies {
    rows: VecDeque<Arc<RecentAnomaly>>,
    /// Everything below is gone.
    floor: Cursor,
    /// Everything below was seen.
    position: Cursor,
}

impl RecentAnomalies {
    /// Everything below was seen.
    pub fn position(&self) -> &Cursor {
        &self.position
    }

    /// Nothing is known but how far the sinks are.
    pub fn restart(&mut self, position: Cursor) {
        self.rows.clear();
        self.floor = position.clone();
        self.position = position;
    }

    /// A sink's row; `data` is its JSON. Returns it as it is sent.
    pub fn push(&mut self, committed: CommittedAnomaly, data: String) -> Arc<RecentAnomaly> {
        let CommittedAnomaly { sink, offset, record } = committed;
        self.position.0.insert(sink, offset + 1);
        let id = self.position.to_string();
        let message = Bytes::from(format!("id: {id}\nevent: anomaly\ndata: {data}\n\n"));
        let news = Arc::new(RecentAnomaly { sink, offset, record, data, message, id, plain: OnceLock::new() });
        self.rows.push_back(Arc::clone(&news));
        if self.rows.len() > KEPT
            && let Some(gone) = self.rows.pop_front()
        {
            self.floor.0.insert(gone.sink, gone.offset + 1);
        }
        news
    }

    /// The sinks are there, whether or not the last of it were rows.
    pub fn advance(&mut self, position: &Cursor) {
        self.position.0.extend(&position.0);
    }

    /// Someone was further than this.
    pub fn is_behind(&self, cursor: &Cursor) -> bool {
        cursor.0.iter().any(|(sink, offset)| self.position.0.get(sink).is_none_or(|position| position < offset))
    }

    /// What a reader who was there has missed; `None` when it is not known any more, or never was.
    pub fn since(&self, cursor: &Cursor) -> Option<Vec<Arc<RecentAnomaly>>> {
        let of = |cursor: &Cursor, sink: &i32| cursor.0.get(sink).copied().unwrap_or(0);
        let is_known = self.position.0.iter().all(|(sink, position)| {
            let was = of(cursor, sink);
            was >= of(&self.floor, sink) && was <= *position
        });
        // A sink that is not known: the cursor is of another database.
        if !is_known || cursor.0.keys().any(|sink| !self.position.0.contains_key(sink)) {
            return None;
        }
        Some(self.rows.iter().filter(|news| news.offset >= of(cursor, &news.sink)).cloned().collect())
    }
}
