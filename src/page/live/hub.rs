//! The readers of the event stream, and what they may have missed.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use hyper::body::Bytes;
use tokio::sync::mpsc;

use super::recent::{RecentAnomalies, RecentAnomaly};
use crate::archive::{CommittedAnomaly, Cursor, Filter, Review};
use crate::page::answer_cache::PATIENCE;
use crate::page::query::PageQuery;
use crate::stop::Stop;

/// Messages that wait for a slow reader; one that has more is let go.
pub(super) const WAITING: usize = 64;
/// Readers at once; more are told to come back.
pub(super) const READERS: usize = 5_000;
/// Rows for each of which a message is sent; more than these at once come in one.
pub(super) const SINGLE: usize = 3;
/// Most rows of one message.
pub(super) const MOST: usize = 50;
/// Records for programs that are sent at once, each a message of its own.
const TOGETHER: usize = 100;

/// Who listens, and what they may have missed.
pub struct Hub {
    pub(super) stop: Arc<Stop>,
    state: Mutex<State>,
    /// The follower has begun, or has come further.
    bell: Condvar,
}

#[derive(Default)]
pub(super) struct State {
    /// Before, nothing is known of what anybody may have missed.
    has_begun: bool,
    pub(super) ring: RecentAnomalies,
    pub(super) readers: Vec<Reader>,
    /// The newest, for who has just come.
    pub(super) health: Option<Bytes>,
}

pub(super) struct Reader {
    wish: Wish,
    sender: mpsc::Sender<Bytes>,
}

/// Which rows someone wants.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    filter: Filter,
    search: Option<String>,
    /// Records instead of rows of a page.
    is_json: bool,
}

impl Wish {
    /// Of a query.
    pub fn of(asked: &PageQuery) -> Wish {
        // Spans end with now: what comes is in all of them.
        let search = asked.search.as_ref().map(|text| text.to_lowercase());
        Wish { filter: asked.filter.clone(), search, is_json: asked.is_json }
    }

    fn is_all(&self) -> bool {
        !self.is_json && self.search.is_none() && self.filter == Filter::default()
    }

    fn wants(&self, news: &RecentAnomaly) -> bool {
        let (filter, anomaly) = (&self.filter, &news.record.anomaly);
        let is_in = |wanted: &[String], value: Option<&String>| {
            wanted.is_empty() || value.is_some_and(|value| wanted.contains(value))
        };
        let time = anomaly.timestamp;
        is_in(&filter.devices, Some(&anomaly.device_id))
            && is_in(&filter.metrics, anomaly.metric_name.as_ref())
            && is_in(&filter.methods, Some(&anomaly.method))
            && is_in(&filter.labels, anomaly.label.as_ref())
            && (filter.severities.is_empty() || filter.severities.contains(&anomaly.severity))
            // Nobody has reviewed it yet.
            && (filter.reviews.is_empty() || filter.reviews.contains(&Review::None))
            && filter.from.is_none_or(|from| time.is_some_and(|time| time >= from))
            && filter.to.is_none_or(|to| time.is_some_and(|time| time < to))
            && self.search.as_ref().is_none_or(|text| anomaly.device_id.to_lowercase().contains(text))
    }
}

impl Wish {
    /// A program gets each record in a message of its own, however many there are.
    fn messages(&self, rows: &[Arc<RecentAnomaly>], position: &Cursor) -> Vec<Bytes> {
        if !self.is_json {
            return messages(rows, position);
        }
        let together =
            |rows: &[Arc<RecentAnomaly>]| rows.iter().map(|news| &news.plain()[..]).collect::<Vec<_>>().concat();
        rows.chunks(TOGETHER).map(|rows| Bytes::from(together(rows))).collect()
    }
}

impl Hub {
    /// Nobody listens yet.
    pub fn new(stop: Arc<Stop>) -> Hub {
        Hub { stop, state: Mutex::default(), bell: Condvar::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ring is filled: readers may come.
    pub(super) fn begin(&self) {
        self.lock().has_begun = true;
        self.bell.notify_all();
    }

    /// A new reader; `None` when there are too many, or nothing is known yet. One who has read further than the follower
    /// waits for it: what is between would come again.
    pub(super) fn join(&self, wish: Wish, since: Option<&Cursor>) -> Option<mpsc::Receiver<Bytes>> {
        let is_early = |state: &mut State| !state.has_begun || since.is_some_and(|since| state.ring.is_behind(since));
        let waited = self.bell.wait_timeout_while(self.lock(), PATIENCE, is_early);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if !state.has_begun || state.readers.len() >= READERS || self.stop.is_requested() {
            return None;
        }
        let (sender, receiver) = mpsc::channel(WAITING);
        let mut first = vec![Bytes::from_static(b"retry: 2000\n\n")];
        match since.map(|since| state.ring.since(since)) {
            Some(Some(missed)) => {
                let wanted = missed.into_iter().filter(|news| wish.wants(news)).collect::<Vec<_>>();
                first.extend(wish.messages(&wanted, state.ring.position()));
            }
            Some(None) => first.push(reset(state.ring.position(), "the cursor is too old")),
            // From now on.
            None => first.push(Bytes::from(format!("id: {}\n\n", state.ring.position()))),
        }
        first.extend(state.health.clone());
        // They fit: a batch is one message, and all that the ring keeps are some forty.
        first.into_iter().for_each(|message| drop(sender.try_send(message)));
        state.readers.push(Reader { wish, sender });
        Some(receiver)
    }

    /// Keeps rows with their JSON, and tells all readers of them; who is too slow is let go. The sinks are at `position`
    /// then. All at once: who joins meanwhile has either missed them or is told.
    pub(super) fn publish(&self, rows: Vec<(CommittedAnomaly, String)>, position: &Cursor) {
        let mut state = self.lock();
        let State { ring, readers, .. } = &mut *state;
        let rows = rows.into_iter().map(|(committed, data)| ring.push(committed, data)).collect::<Vec<_>>();
        ring.advance(position);
        self.bell.notify_all();
        if rows.is_empty() {
            return;
        }
        // Most want everything: theirs is made once.
        let all = messages(&rows, position);
        readers.retain(|reader| {
            let own;
            let messages = if reader.wish.is_all() {
                &all
            } else {
                let wanted = rows.iter().filter(|news| reader.wish.wants(news)).cloned().collect::<Vec<_>>();
                own = reader.wish.messages(&wanted, position);
                &own
            };
            messages.iter().all(|message| reader.sender.try_send(message.clone()).is_ok())
        });
    }

    /// Tells all readers the same.
    pub(super) fn say(&self, message: &Bytes) {
        self.lock().readers.retain(|reader| reader.sender.try_send(message.clone()).is_ok());
    }

    /// Ends all streams.
    pub(super) fn close(&self) {
        self.lock().readers.clear();
    }
}

/// One message for each of few rows, one for all of many; each says how far its reader is then.
pub(super) fn messages(rows: &[Arc<RecentAnomaly>], position: &Cursor) -> Vec<Bytes> {
    if rows.len() <= SINGLE {
        return rows.iter().map(|news| news.message.clone()).collect();
    }
    let newest = rows.iter().rev().take(MOST).map(|news| news.data.as_str()).collect::<Vec<_>>();
    let more = rows.len() - newest.len();
    let rows = newest.join(",");
    vec![Bytes::from(format!("id: {position}\nevent: batch\ndata: {{\"rows\":[{rows}],\"more\":{more}}}\n\n"))]
}

pub(super) fn reset(position: &Cursor, reason: &str) -> Bytes {
    Bytes::from(format!("id: {position}\nevent: reset\ndata: {{\"reason\":\"{reason}\"}}\n\n"))
}
