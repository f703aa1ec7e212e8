//! Who has our place in the group. A static member is also fenced by itself, when the coordinator dies after it gave the place
//! a new id, before we heard of that: such a place is ours again by joining anew, and the group forgets it after a session. A
//! twin, another process by our name, takes it again and again, and stays. (The client id tells nothing: the broker keeps that
//! of the first who had the place.)
//!
//! Of two twins with several workers each may hold some of the places. Those of the first workers decide, so that neither both
//! stop nor none; the others wait for that, so that the group comes to rest.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;

use super::client;
use super::consumer::CALL;
use super::names::MemberNames;
use crate::config::resolved::KafkaSettings;
use crate::stop::Stop;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// A group that forgets a member takes a moment longer than the session, or than two when its coordinator moves.
const MARGIN: Duration = Duration::from_secs(2);
/// Who is fenced a second time within this was not fenced by itself; or a coordinator died twice.
const MEMORY: Duration = Duration::from_secs(60);
/// Length of a UUID, which Kafka puts behind the instance's name.
const UUID: usize = 36;

/// Whether a twin is there to stay, asked after the group has fenced us. Takes as long as it takes to tell it from a trace of
/// ourselves; false also when the group cannot be asked or does not come to rest: joining again shows it anew.
pub fn exists(kafka: &KafkaSettings, names: &MemberNames, session: Duration, stop: &Stop) -> bool {
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
            // Nobody is forgotten while the group is on the move, or without a coordinator.
            Ok((false, _)) | Err(_) => since = None,
        }
        stop.wait(PAUSE);
    }
    false
}

/// Remembers this time.
fn was_fenced_before(member: &str) -> bool {
    static FENCED: Mutex<BTreeMap<String, Instant>> = Mutex::new(BTreeMap::new());
    let before = FENCED.lock().unwrap_or_else(PoisonError::into_inner).insert(member.to_owned(), Instant::now());
    before.is_some_and(|at| at.elapsed() < MEMORY)
}

/// Whether the group is at rest, and the member id of who has this name.
fn holder(client: &BaseConsumer, group: &str, member: &str) -> Result<(bool, Option<String>), KafkaError> {
    let groups = client.fetch_group_list(Some(group), CALL)?;
    let Some(group) = groups.groups().iter().find(|g| g.name() == group) else { return Ok((true, None)) };
    let is_ours = |id: &str| {
        let rest = id.strip_prefix(member).and_then(|rest| rest.strip_prefix('-'));
        rest.is_some_and(|rest| rest.len() == UUID)
    };
    let holder = group.members().iter().find(|m| is_ours(m.id())).map(|m| m.id().to_owned());
    Ok((matches!(group.state(), "Stable" | "Empty" | "Dead"), holder))
}
