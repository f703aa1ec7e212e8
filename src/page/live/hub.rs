//! The subscribers of the event stream, and the recent rows that a reconnecting subscriber may have missed.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use hyper::body::Bytes;
use tokio::sync::mpsc;

use super::recent::{RecentAnomalies, RecentAnomaly};
use crate::archive::{CommittedAnomaly, Cursor, Filter, Review};
use crate::page::answer_cache::ANSWER_TIMEOUT;
use crate::page::auth::SessionKey;
use crate::page::query::PageQuery;
use crate::stop::Stop;

/// Number of messages queued for a slow subscriber; one that needs more is disconnected.
pub(super) const QUEUED: usize = 64;
/// Maximum number of subscribers; further ones get an error and retry later.
pub(super) const MAX_SUBSCRIBERS: usize = 5_000;
/// Up to this number of rows, each row is a message of its own; more rows are sent as one message.
pub(super) const MAX_SINGLE: usize = 3;
/// Maximum number of rows in one message.
pub(super) const MAX_ROWS: usize = 50;
/// Number of records for programs that are joined into one buffer; each is a message of its own.
const JOINED: usize = 100;

/// The subscribers and the recent rows.
pub(crate) struct Hub {
    pub(super) stop: Arc<Stop>,
    state: Mutex<HubState>,
    /// Signalled when the follower has begun and whenever its position changes.
    changed: Condvar,
}

#[derive(Default)]
pub(super) struct HubState {
    /// Whether the recent rows are loaded. Before that, it is not known what a subscriber has missed.
    has_begun: bool,
    pub(super) recent: RecentAnomalies,
    pub(super) subscribers: Vec<Subscriber>,
    /// The newest health message, for new subscribers.
    pub(super) health: Option<Bytes>,
}

pub(super) struct Subscriber {
    selection: Selection,
    /// The session for which the stream was opened; `None` where users need none.
    session: Option<SessionKey>,
    sender: mpsc::Sender<Bytes>,
}

/// Selects the rows that a subscriber wants.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Selection {
    filter: Filter,
    search: Option<String>,
    /// Whether the subscriber gets records instead of rows of a page.
    is_json: bool,
}

impl Selection {
    /// Derives the selection from a query.
    pub(crate) fn of(query: &PageQuery) -> Selection {
        // Spans end at the current time, so every new row is within them.
        let search = query.search.as_ref().map(|text| text.to_lowercase());
        Selection { filter: query.filter.clone(), search, is_json: query.is_json }
    }

    fn is_all(&self) -> bool {
        !self.is_json && self.search.is_none() && self.filter == Filter::default()
    }

    fn matches(&self, row: &RecentAnomaly) -> bool {
        let (filter, anomaly) = (&self.filter, &row.record.anomaly);
        let is_in = |wanted: &[String], value: Option<&String>| {
            wanted.is_empty() || value.is_some_and(|value| wanted.contains(value))
        };
        let time = anomaly.timestamp;
        is_in(&filter.devices, Some(&anomaly.device_id))
            && is_in(&filter.metrics, anomaly.metric_name.as_ref())
            && is_in(&filter.methods, Some(&anomaly.method))
            && is_in(&filter.labels, anomaly.label.as_ref())
            && (filter.severities.is_empty() || filter.severities.contains(&anomaly.severity))
            // A new row has no review yet.
            && (filter.reviews.is_empty() || filter.reviews.contains(&Review::None))
            && filter.from.is_none_or(|from| time.is_some_and(|time| time >= from))
            && filter.to.is_none_or(|to| time.is_some_and(|time| time < to))
            && self.search.as_ref().is_none_or(|text| anomaly.device_id.to_lowercase().contains(text))
    }
}

impl Selection {
    /// Formats rows as messages. A program gets every record as a message of its own.
    fn messages(&self, rows: &[Arc<RecentAnomaly>], position: &Cursor) -> Vec<Bytes> {
        if !self.is_json {
            return messages(rows, position);
        }
        let together =
            |rows: &[Arc<RecentAnomaly>]| rows.iter().map(|row| &row.plain()[..]).collect::<Vec<_>>().concat();
        rows.chunks(JOINED).map(|rows| Bytes::from(together(rows))).collect()
    }
}

impl Hub {
    /// Makes a hub without subscribers.
    pub(crate) fn new(stop: Arc<Stop>) -> Hub {
        Hub { stop, state: Mutex::default(), changed: Condvar::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, HubState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits subscribers, once the recent rows are loaded.
    pub(super) fn begin(&self) {
        self.lock().has_begun = true;
        self.changed.notify_all();
    }

    /// Adds a subscriber; returns `None` when there are too many, or when the follower has not begun. A subscriber
    /// ahead of the follower waits for it, because the rows in between would be sent twice.
    pub(super) fn subscribe(
        &self,
        selection: Selection,
        since: Option<&Cursor>,
        session: Option<SessionKey>,
    ) -> Option<mpsc::Receiver<Bytes>> {
        let is_early =
            |state: &mut HubState| !state.has_begun || since.is_some_and(|since| state.recent.is_behind(since));
        let waited = self.changed.wait_timeout_while(self.lock(), ANSWER_TIMEOUT, is_early);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if !state.has_begun || state.subscribers.len() >= MAX_SUBSCRIBERS || self.stop.is_requested() {
            return None;
        }
        let (sender, receiver) = mpsc::channel(QUEUED);
        let mut first = vec![Bytes::from_static(b"retry: 2000\n\n")];
        match since.map(|since| state.recent.since(since)) {
            Some(Some(missed)) => {
                let wanted = missed.into_iter().filter(|row| selection.matches(row)).collect::<Vec<_>>();
                first.extend(selection.messages(&wanted, state.recent.position()));
            }
            Some(None) => first.push(reset(state.recent.position(), "the cursor is too old")),
            // Without a cursor the stream starts at the current position.
            None => first.push(Bytes::from(format!("id: {}\n\n", state.recent.position()))),
        }
        first.extend(state.health.clone());
        // The queue has room for these messages: all recent rows form about forty messages at most.
        first.into_iter().for_each(|message| drop(sender.try_send(message)));
        state.subscribers.push(Subscriber { selection, session, sender });
        Some(receiver)
    }

    /// Stores rows with their JSON and sends them to the subscribers; `position` is the position of the sinks after
    /// them. A subscriber whose queue is full is disconnected. One lock covers both steps, so a new subscriber gets
    /// each row once.
    pub(super) fn publish(&self, rows: Vec<(CommittedAnomaly, String)>, position: &Cursor) {
        let mut state = self.lock();
        let HubState { recent, subscribers, .. } = &mut *state;
        let rows = rows.into_iter().map(|(committed, data)| recent.push(committed, data)).collect::<Vec<_>>();
        recent.advance(position);
        self.changed.notify_all();
        if rows.is_empty() {
            return;
        }
        // Most subscribers want every row, so their messages are formatted once.
        let all = messages(&rows, position);
        subscribers.retain(|subscriber| {
            let own;
            let messages = if subscriber.selection.is_all() {
                &all
            } else {
                let wanted = rows.iter().filter(|row| subscriber.selection.matches(row)).cloned().collect::<Vec<_>>();
                own = subscriber.selection.messages(&wanted, position);
                &own
            };
            messages.iter().all(|message| subscriber.sender.try_send(message.clone()).is_ok())
        });
    }

    /// Sends a message to all subscribers.
    pub(super) fn send_to_all(&self, message: &Bytes) {
        self.lock().subscribers.retain(|subscriber| subscriber.sender.try_send(message.clone()).is_ok());
    }

    /// Ends the streams whose session has ended, for example by a logout or a new password.
    pub(super) fn end_without_session(&self, is_open: impl Fn(&SessionKey) -> bool) {
        self.lock().subscribers.retain(|subscriber| subscriber.session.as_ref().is_none_or(&is_open));
    }

    /// Ends the streams of all subscribers.
    pub(super) fn close(&self) {
        self.lock().subscribers.clear();
    }
}

/// Formats a few rows as a message each, and many rows as one message. Each message contains the position after it.
pub(super) fn messages(rows: &[Arc<RecentAnomaly>], position: &Cursor) -> Vec<Bytes> {
    if rows.len() <= MAX_SINGLE {
        return rows.iter().map(|row| row.message.clone()).collect();
    }
    let newest = rows.iter().rev().take(MAX_ROWS).map(|row| row.data.as_str()).collect::<Vec<_>>();
    let more = rows.len() - newest.len();
    let rows = newest.join(",");
    vec![Bytes::from(format!("id: {position}\nevent: batch\ndata: {{\"rows\":[{rows}],\"more\":{more}}}\n\n"))]
}

pub(super) fn reset(position: &Cursor, reason: &str) -> Bytes {
    Bytes::from(format!("id: {position}\nevent: reset\ndata: {{\"reason\":\"{reason}\"}}\n\n"))
}
