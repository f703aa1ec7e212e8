//! Finds out which process has this member's place in the group. A static member can also be fenced by itself: the
//! coordinator gave the place a new id and died before the member received it. Joining again recovers such a place, and
//! the group removes it after a session. Another process of the same name takes the place repeatedly, and keeps it.
//! (The client id proves nothing: the broker keeps that of the first owner.)
//!
//! Two such processes with several workers may each have some of the places. The places of the first workers decide, so
//! that exactly one process stops. The others wait for this, so that the group becomes stable.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;

use super::client;
use super::consumer::CALL_TIMEOUT;
use super::names::MemberNames;
use crate::config::resolved::KafkaSettings;
use crate::stop::Stop;

/// Interval between two checks of the group.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Additional time until a group removes a member after its session, or after two if its coordinator moves.
const MARGIN: Duration = Duration::from_secs(2);
/// Time within which a second fencing was not caused by the member itself, unless a coordinator died twice.
const MEMORY: Duration = Duration::from_secs(60);
/// Length of a UUID, which Kafka appends to the instance name.
const UUID: usize = 36;

/// Returns whether another process keeps the place; called after the group has fenced this member. It blocks until it
/// can distinguish the process from an earlier connection of this one. It also returns false if the group does not
/// answer or is not stable: joining again repeats the check.
pub(crate) fn exists(kafka: &KafkaSettings, names: &MemberNames, session: Duration, stop: &Stop) -> bool {
    if !was_fenced_before(&names.member) {
        return false;
    }
    let Ok(client) = client::reader(kafka).create::<BaseConsumer>() else { return false };
    let limit = Instant::now() + session * 3 + MARGIN;
    let mut since: Option<(String, Instant)> = None;
    while Instant::now() < limit && !stop.is_requested() {
        let holder = holder(&client, &names.group, &names.member);
        tracing::debug!("the place {} in group {}: {holder:?}", names.member, names.group);
        match holder {
            Ok((true, None)) => return false,
            Ok((true, Some(id))) => {
                let began = since.filter(|(same, _)| *same == id).map_or_else(Instant::now, |(_, began)| began);
                if names.worker == 0 && began.elapsed() > session * 2 + MARGIN {
                    return true;
                }
                since = Some((id, began));
            }
            // The group removes no member while it rebalances or has no coordinator.
            Ok((false, _)) | Err(_) => since = None,
        }
        stop.wait(CHECK_INTERVAL);
    }
    false
}

/// Stores the time of this fencing; returns whether the member was fenced shortly before.
fn was_fenced_before(member: &str) -> bool {
    static FENCED: Mutex<BTreeMap<String, Instant>> = Mutex::new(BTreeMap::new());
    let before = FENCED.lock().unwrap_or_else(PoisonError::into_inner).insert(member.to_owned(), Instant::now());
    before.is_some_and(|at| at.elapsed() < MEMORY)
}

/// Returns whether the group is stable, and the member id that has this name.
fn holder(client: &BaseConsumer, group: &str, member: &str) -> Result<(bool, Option<String>), KafkaError> {
    let groups = client.fetch_group_list(Some(group), CALL_TIMEOUT)?;
    let Some(group) = groups.groups().iter().find(|g| g.name() == group) else { return Ok((true, None)) };
    let is_ours = |id: &str| {
        let rest = id.strip_prefix(member).and_then(|rest| rest.strip_prefix('-'));
        rest.is_some_and(|rest| rest.len() == UUID)
    };
    let holder = group.members().iter().find(|m| is_ours(m.id())).map(|m| m.id().to_owned());
    Ok((matches!(group.state(), "Stable" | "Empty" | "Dead"), holder))
}
