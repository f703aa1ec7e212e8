//! The thread that follows the database: it reads committed anomalies, renders each row once, and sends it to the
//! subscribers. Between rows it sends heartbeats and health messages.

use std::sync::Weak;
use std::time::{Duration, Instant as Clock};

use hyper::body::Bytes;

use super::hub::{Hub, MAX_SINGLE, reset};
use super::recent::MAX_RECENT_ROWS;
use crate::archive::{Cursor, Filter, Follower, NoAnswer};
use crate::event::Timestamp;
use crate::page::dashboard::Dashboard;
use crate::page::site::Site;
use crate::page::view::{notice, row};

/// Longest wait for a commit in the database.
const COMMIT_WAIT: Duration = Duration::from_secs(1);
/// Number of offsets of each sink that are read again at the start.
const REREAD: i64 = 200;
/// Pause between two attempts to reach the database.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Pause between two batches, so that at most four are sent in a second.
const BATCH_PAUSE: Duration = Duration::from_millis(250);
/// Interval between two health messages, and between two checks of the sessions.
const HEALTH: Duration = Duration::from_secs(5);
/// Interval between two heartbeats of the stream.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// State of the following thread.
struct Tail {
    follower: Option<Box<dyn Follower>>,
    /// Whether the recent rows are loaded; a new connection then continues where the last one ended.
    has_begun: bool,
    /// When the last reconnection without a pause was made.
    reconnected: Option<Clock>,
    /// Whether the archive was unreachable when this was last checked.
    is_away: bool,
    health: Option<Clock>,
    heartbeat: Clock,
    minute: i64,
}

/// Runs until the dashboard is dropped or a stop is requested.
pub(crate) fn run(dashboard: &Weak<Dashboard>) {
    let (follower, heartbeat) = (None, Clock::now());
    let mut tail =
        Tail { follower, has_begun: false, reconnected: None, is_away: false, health: None, heartbeat, minute: 0 };
    loop {
        // The reference lasts for one iteration only, so that a dropped dashboard ends the thread.
        let Some(dashboard) = dashboard.upgrade() else { return };
        let (site, hub) = (&dashboard.site, &dashboard.hub);
        if hub.stop.is_requested() {
            return hub.close();
        }
        let was_following = tail.follower.is_some();
        let stepped = tail.step(site, hub);
        if let Err(failure) = &stepped {
            tracing::debug!(%failure, "the follower reconnects");
            if was_following && tail.reconnected.is_none_or(|last| last.elapsed() >= RETRY_PAUSE) {
                // Perhaps only this connection broke, so a new one is tried at once.
                tail.reconnected = Some(Clock::now());
                continue;
            }
        }
        let is_away = site.is_away();
        if std::mem::replace(&mut tail.is_away, is_away) != is_away {
            // The change of state is sent at once, not at the next interval.
            tail.health = None;
        }
        tail.send_periodic(&dashboard);
        if stepped.is_err() {
            hub.stop.wait(RETRY_PAUSE);
        }
    }
}

impl Tail {
    fn step(&mut self, site: &Site, hub: &Hub) -> Result<(), NoAnswer> {
        let mut follower = self.follower.take().map_or_else(|| connect(site), Ok)?;
        let position = follower.position()?;
        if !self.has_begun {
            // Subscribers of an earlier process reconnect and continue from their last position.
            let earlier = position.0.iter().map(|(sink, offset)| (*sink, (offset - REREAD).max(0))).collect();
            hub.lock().recent.restart(Cursor(earlier));
            self.read(site, hub, follower.as_mut(), &position)?;
            self.has_begun = true;
            hub.begin();
        } else if self.read(site, hub, follower.as_mut(), &position)? > MAX_SINGLE {
            hub.stop.wait(BATCH_PAUSE);
        }
        follower.wait(COMMIT_WAIT)?;
        self.follower = Some(follower);
        Ok(())
    }

    /// Reads and sends the rows up to `position`; returns their number.
    fn read(
        &mut self,
        site: &Site,
        hub: &Hub,
        follower: &mut dyn Follower,
        position: &Cursor,
    ) -> Result<usize, NoAnswer> {
        let before = hub.lock().recent.position().clone();
        let mut committed = Vec::new();
        for (sink, to) in &position.0 {
            let from = before.0.get(sink).copied().unwrap_or(0);
            if *to > from {
                committed.extend(follower.committed(*sink, from, *to, MAX_RECENT_ROWS as u32 + 1)?);
            }
        }
        let is_back = before.0.iter().any(|(sink, was)| position.0.get(sink).is_none_or(|now| now < was));
        if is_back || committed.len() > MAX_RECENT_ROWS {
            // There are more rows than are kept, or this is another database: the subscribers reload their pages.
            let mut state = hub.lock();
            state.recent.restart(position.clone());
            let message = reset(position, "too many rows have been committed");
            drop(state);
            hub.send_to_all(&message);
            return Ok(committed.len());
        }
        let now = site.now();
        let rendered = committed.into_iter().map(|one| {
            let data = data(site, &one.record, now);
            (one, data)
        });
        let rendered = rendered.collect::<Vec<_>>();
        let count = rendered.len();
        hub.publish(rendered, position);
        Ok(count)
    }

    fn send_periodic(&mut self, dashboard: &Dashboard) {
        let hub = &dashboard.hub;
        if self.heartbeat.elapsed() >= HEARTBEAT {
            self.heartbeat = Clock::now();
            hub.send_to_all(&Bytes::from_static(b": hb\n\n"));
        }
        if self.health.is_none_or(|last| last.elapsed() >= HEALTH) && !hub.lock().subscribers.is_empty() {
            self.health = Some(Clock::now());
            hub.end_without_session(|session| dashboard.site.auth.is_open(session));
            let message = health(dashboard);
            hub.lock().health = Some(message.clone());
            hub.send_to_all(&message);
            if !self.is_away {
                self.minute(dashboard);
            }
        }
    }

    /// Sends the counts of the minute that has just ended, once its coverage is known.
    fn minute(&mut self, dashboard: &Dashboard) {
        let (site, hub) = (&dashboard.site, &dashboard.hub);
        const MINUTE: i64 = 60_000;
        let ended = (site.now().millis() - HEALTH.as_millis() as i64 * 2).div_euclid(MINUTE) - 1;
        if std::mem::replace(&mut self.minute, ended) == ended {
            return;
        }
        let (from, to) = (Timestamp::from_millis(ended * MINUTE), Timestamp::from_millis((ended + 1) * MINUTE));
        let (Some(from), Some(to)) = (from, to) else { return };
        let bins = crate::archive::Bins { from, width: MINUTE, count: 1 };
        let (Ok(counts), Ok(coverage)) =
            (site.archive.by_time(&Filter::default(), &bins), site.archive.coverage(from, to, MINUTE))
        else {
            return;
        };
        let count = counts.first().map(|bin| bin.count).unwrap_or_default();
        let judged = coverage.first().map_or(0, |row| row.judged);
        let (critical, warning) = (count.critical, count.warning);
        let data = serde_json::json!({ "t": from, "critical": critical, "warning": warning, "judged": judged });
        hub.send_to_all(&Bytes::from(format!("event: minute\ndata: {data}\n\n")));
    }
}

/// Opens a connection. A failure reveals an outage before a request does.
fn connect(site: &Site) -> Result<Box<dyn Follower>, NoAnswer> {
    site.archive.follow().inspect_err(|failure| {
        if matches!(failure, NoAnswer::Unavailable(_)) {
            site.failed(failure);
        }
    })
}

/// Makes the JSON of a row: the values to filter by, and the HTML of the table row.
fn data(site: &Site, record: &crate::archive::StoredAnomaly, now: Timestamp) -> String {
    let anomaly = &record.anomaly;
    let row = row::AnomalyRow::of(record, now);
    let mut context = tera::Context::new();
    context.insert("row", &row);
    context.insert("show_device", &true);
    let html = site.templates.render("row.html", &context).unwrap_or_else(|error| {
        tracing::error!(%error, "cannot render a row");
        String::new()
    });
    serde_json::json!({
        "key": row.key,
        "device": anomaly.device_id,
        "metric": anomaly.metric_name,
        "severity": anomaly.severity,
        "method": anomaly.method,
        "label": anomaly.label,
        "time": anomaly.timestamp,
        "html": html,
    })
    .to_string()
}

/// Makes the health message: the verdict of the overview of the last hour.
fn health(dashboard: &Dashboard) -> Bytes {
    let (state, sentence) = match dashboard.pages.verdict(&dashboard.site) {
        Ok(banner) => (banner.tone.as_str(), banner.sentence()),
        Err(why) => ("away", notice::sentence(&why)),
    };
    let position = dashboard.hub.lock().recent.position().to_string();
    let data = serde_json::json!({ "state": state, "text": sentence });
    Bytes::from(format!("id: {position}\nevent: health\ndata: {data}\n\n"))
}
