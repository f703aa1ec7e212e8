//! Finds out whether a member has left its group. librdkafka sends the request to leave some time after the partitions are
//! given back, and drops it if the client is closed before. A static member would then keep its place for a session.

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};

/// Returns whether the client has sent the request to leave, or has no place in the group. It discards its member id
/// when it sends the request.
pub(super) fn has_sent_request<C: ClientContext>(client: &Client<C>) -> bool {
    // SAFETY: the client is alive. The returned string is null or ends with a zero byte, and is freed once, after its
    // last use.
    unsafe {
        let id = sys::rd_kafka_memberid(client.native_ptr());
        if id.is_null() {
            return true;
        }
        let is_empty = *id == 0;
        sys::rd_kafka_mem_free(client.native_ptr(), id.cast());
        is_empty
    }
}

/// Waits until the group's coordinator has answered one more request, or `limit` has passed. A broker answers the
/// requests of a connection in order, so that it has then answered the request to leave.
pub(super) fn wait_for_coordinator<C: ConsumerContext>(consumer: &BaseConsumer<C>, topic: &str, limit: Duration) {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, 0);
    if let Err(error) = consumer.committed_offsets(list, limit) {
        tracing::debug!("the group's coordinator did not confirm that this member has left: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use super::super::{KafkaGroupConsumer, client};
    use super::*;
    use crate::config::resolved::{KafkaSettings, TopicSettings};
    use crate::stream::client::{AssignmentChange, GroupMembership, Positions, RecordFetch};

    #[test]
    #[ignore = "needs a broker: tests/run"]
    fn a_member_that_has_left_has_no_place_in_the_group_when_its_client_is_dropped() {
        let servers = std::env::var("ANOMALY__KAFKA__BOOTSTRAP_SERVERS").expect("a box: run tests/run");
        let kafka = KafkaSettings { bootstrap_servers: servers, properties: BTreeMap::new() };
        let name = format!("leaving_{}", std::process::id());
        let topics = TopicSettings {
            raw_events: format!("{name}.raw"),
            anomalies: format!("{name}.anomalies"),
            dead_letter: format!("{name}.dlq"),
            state: format!("{name}.state"),
            partitions: 8,
            replication: 1,
        };
        crate::stream::topics::create(&kafka, &topics).unwrap();
        let onlooker: BaseConsumer = client::reader(&kafka).create().unwrap();
        for _ in 0..5 {
            let session = Duration::from_secs(60);
            let mut member = KafkaGroupConsumer::new(&kafka, &topics.raw_events, &name, "a", session).unwrap();
            member.subscribe().unwrap();
            let deadline = Instant::now() + Duration::from_secs(60);
            let partitions = loop {
                member.poll(Duration::from_millis(20), 0, &mut |_, _| ()).unwrap();
                match member.next_change() {
                    Some(AssignmentChange::Assigned(partitions)) => break partitions,
                    Some(AssignmentChange::Revoked(_)) => member.unassign().unwrap(),
                    None => assert!(Instant::now() < deadline, "no assignment came"),
                }
            };
            member.assign(&partitions.iter().map(|partition| (*partition, 0)).collect::<Positions>()).unwrap();
            member.resume(&partitions).unwrap();
            member.leave(Duration::from_secs(20));
            drop(member);
            let groups = onlooker.fetch_group_list(Some(&name), Duration::from_secs(20)).unwrap();
            let members = groups.groups().iter().map(|group| group.members().len()).sum::<usize>();
            assert_eq!(members, 0, "its place is kept");
        }
    }
}
