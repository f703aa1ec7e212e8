//! Who has our place in the group. A static member is also fenced by itself: when the coordinator dies after it gave the place
//! a new id, before we heard of that. Such a place has our own client id, or is empty, and the group forgets it after a
//! session; a twin stays.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;

use super::client;
use super::real::CALL;
use crate::config::resolved::Kafka;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// A group that forgets a member takes a moment longer than the session.
const MARGIN: Duration = Duration::from_secs(2);
/// Length of a UUID, which Kafka puts behind the instance's name.
const UUID: usize = 36;

/// Whether a member of another process by this name stays for longer than a session in a group at rest. Takes that long if so;
/// false also when the group cannot be asked or does not come to rest: joining again shows it anew.
pub fn exists(kafka: &Kafka, group: &str, member: &str, session: Duration) -> bool {
    let Ok(client) = client::reader(kafka).create::<BaseConsumer>() else { return false };
    let limit = Instant::now() + session * 3 + MARGIN;
    let own = client::own_id(kafka);
    let mut since: Option<(String, Instant)> = None;
    while Instant::now() < limit {
        match holder(&client, group, member) {
            Ok((true, None)) => return false,
            Ok((_, Some((_, client_id)))) if Some(client_id.as_str()) == own => return false,
            Ok((true, Some((id, _)))) => {
                let began = since.filter(|(same, _)| *same == id).map_or_else(Instant::now, |(_, began)| began);
                if began.elapsed() > session + MARGIN {
                    return true;
                }
                since = Some((id, began));
            }
            // Nobody is forgotten while the group is on the move.
            Ok((false, _)) => since = None,
            Err(e) => {
                since = None;
                tracing::debug!("asking group {group} for {member}: {e}");
            }
        }
        std::thread::sleep(PAUSE);
    }
    false
}

/// Whether the group is at rest, and the member id and the client id of who has this name.
fn holder(client: &BaseConsumer, group: &str, member: &str) -> Result<(bool, Option<(String, String)>), KafkaError> {
    let groups = client.fetch_group_list(Some(group), CALL)?;
    let Some(group) = groups.groups().iter().find(|g| g.name() == group) else { return Ok((true, None)) };
    let is_ours = |id: &str| {
        let rest = id.strip_prefix(member).and_then(|rest| rest.strip_prefix('-'));
        rest.is_some_and(|rest| rest.len() == UUID)
    };
    let holder = group.members().iter().find(|m| is_ours(m.id()));
    let ids = holder.map(|m| (m.id().to_owned(), m.client_id().to_owned()));
    Ok((matches!(group.state(), "Stable" | "Empty" | "Dead"), ids))
}
