//! Reads which member of a group has which partition, and compares it with the partitions of the topic.

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::groups::{GroupList, GroupMemberInfo};

use crate::stream::client::GroupAssignment;

/// State of a group whose members have received their assignment.
const STABLE: &str = "Stable";
/// Length of a UUID with the hyphen before it. The broker appends it to the instance name of a static member.
const UUID: usize = 37;

/// The state of one group, and its members.
#[derive(Debug, Clone, Default)]
pub(super) struct ObservedGroup {
    /// State of the group, as the coordinator names it; empty if there is no such group.
    state: String,
    members: Vec<ObservedMember>,
}

/// A member of a group.
#[derive(Debug, Clone)]
struct ObservedMember {
    id: String,
    client_id: String,
    host: String,
    /// Partitions of the topic that it has; `None` if its assignment cannot be read.
    partitions: Option<Vec<i32>>,
}

impl ObservedGroup {
    /// Extracts the group that the list contains, with its partitions of this topic.
    pub(super) fn new(groups: &GroupList, topic: &str) -> Self {
        let member = |member: &GroupMemberInfo| ObservedMember {
            id: member.id().to_owned(),
            client_id: member.client_id().to_owned(),
            host: member.client_host().to_owned(),
            partitions: partitions(member.assignment().unwrap_or_default(), topic),
        };
        let group = groups.groups().first();
        group.map_or_else(ObservedGroup::default, |group| ObservedGroup {
            state: group.state().to_owned(),
            members: group.members().iter().map(member).collect(),
        })
    }

    /// Returns the members that are not of this program, each as client id and host. A member of this program is static,
    /// so that its id begins with its instance name. The id of other members begins with their client id.
    pub(super) fn foreign(&self, ours: &str) -> Vec<String> {
        let is_dynamic =
            |member: &&ObservedMember| member.id.strip_prefix(&member.client_id).is_some_and(|id| id.starts_with('-'));
        let members = self.members.iter().filter(|member| member.client_id != ours).filter(is_dynamic);
        members.map(|member| format!("{} at {}", member.client_id, member.host)).collect()
    }

    /// Returns the member that has each partition, as instance name and host.
    pub(super) fn owners(&self) -> BTreeMap<i32, String> {
        let owned = |member: &ObservedMember| {
            let id = instance(&member.id).unwrap_or(&member.id);
            let name = format!("{} at {}", crate::foreign::name(id), member.host);
            member.partitions.iter().flatten().map(move |partition| (*partition, name.clone())).collect::<Vec<_>>()
        };
        self.members.iter().flat_map(owned).collect()
    }

    /// Compares the assignment of all members with the partitions of the topic. `member` is the instance name of this
    /// member.
    ///
    /// # Errors
    /// Returns why the whole assignment is not known: the group is not stable, or the assignment of a member cannot be
    /// read.
    pub(super) fn compare(&self, topic: BTreeSet<i32>, member: &str) -> Result<GroupAssignment, String> {
        if self.members.is_empty() {
            return Err("the group has no members".to_owned());
        }
        if self.state != STABLE {
            return Err(format!("the group is in the state {}", crate::foreign::name(&self.state)));
        }
        let mut unassigned = topic;
        for member in &self.members {
            let Some(partitions) = &member.partitions else {
                let name = crate::foreign::name(&member.id);
                return Err(format!("the assignment of member {name} cannot be read"));
            };
            partitions.iter().for_each(|partition| {
                unassigned.remove(partition);
            });
        }
        let mut ids = self.members.iter().map(|member| member.id.as_str()).collect::<Vec<_>>();
        ids.sort_unstable();
        let place = ids.iter().position(|id| instance(id) == Some(member));
        Ok(GroupAssignment { unassigned, place })
    }
}

/// Returns the instance name in the id of a static member.
fn instance(id: &str) -> Option<&str> {
    let (name, rest) = id.split_at_checked(id.len().checked_sub(UUID)?)?;
    (rest.starts_with('-') && !name.is_empty()).then_some(name)
}

/// Returns the partitions of a topic in an assignment of Kafka's consumer protocol: a version, then each topic with its
/// partitions. A member without partitions may have no bytes. `None` if the bytes are something else.
fn partitions(bytes: &[u8], topic: &str) -> Option<Vec<i32>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let (_version, bytes) = bytes.split_first_chunk::<2>()?;
    let (count, mut bytes) = bytes.split_first_chunk::<4>()?;
    let mut found = Vec::new();
    for _ in 0..u32::try_from(i32::from_be_bytes(*count)).ok()? {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let (name, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let (count, rest) = rest.split_first_chunk::<4>()?;
        let size = usize::try_from(i32::from_be_bytes(*count)).ok()?.checked_mul(4)?;
        let (numbers, rest) = rest.split_at_checked(size)?;
        if name == topic.as_bytes() {
            found.extend(numbers.chunks_exact(4).filter_map(|four| Some(i32::from_be_bytes(four.try_into().ok()?))));
        }
        bytes = rest;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_names_the_partitions_of_each_topic_and_other_bytes_name_none() {
        let mut bytes = vec![0, 1, 0, 0, 0, 2];
        for (topic, partitions) in [("other", vec![7]), ("t", vec![0_i32, 3])] {
            bytes.extend((topic.len() as u16).to_be_bytes());
            bytes.extend(topic.as_bytes());
            bytes.extend((partitions.len() as u32).to_be_bytes());
            partitions.iter().for_each(|partition: &i32| bytes.extend(partition.to_be_bytes()));
        }
        let whole = [bytes.clone(), vec![255; 4]].concat();
        assert_eq!(partitions(&whole, "t"), Some(vec![0, 3]));
        assert_eq!(partitions(&whole, "other"), Some(vec![7]));
        assert_eq!(partitions(&whole, "none"), Some(Vec::new()));
        assert!((1..bytes.len()).all(|length| partitions(&bytes[..length], "t").is_none()), "of a truncated one");
        assert_eq!(partitions(&[255; 64], "t"), None, "a negative count");
        assert_eq!(partitions(&[], "t"), Some(Vec::new()), "a member without an assignment");
    }

    const HOST: &str = "/10.0.0.1";

    fn member(name: &str, partitions: Option<&[i32]>) -> ObservedMember {
        let id = format!("{name}-{}", "0".repeat(UUID - 1));
        let partitions = partitions.map(<[i32]>::to_vec);
        ObservedMember { id, client_id: "anomaly".into(), host: HOST.into(), partitions }
    }

    fn group(state: &str, members: Vec<ObservedMember>) -> ObservedGroup {
        ObservedGroup { state: state.into(), members }
    }

    #[test]
    fn partitions_that_no_member_has_are_found_also_if_other_members_have_other_topics_or_assignors() {
        let topic = || BTreeSet::from([0, 1, 2, 3]);
        let (one, two) = (member("a-0", Some(&[0, 1])), member("b-0", Some(&[3])));
        let found = group(STABLE, vec![two.clone(), one.clone()]).compare(topic(), "b-0").unwrap();
        assert_eq!(found, GroupAssignment { unassigned: [2].into(), place: Some(1) });
        // A member of another program, whose id has no UUID of the broker.
        let other = ObservedMember { id: "x".into(), ..member("other", Some(&[2])) };
        let found = group(STABLE, vec![one, two, other]).compare(topic(), "c-0").unwrap();
        assert_eq!(found, GroupAssignment { unassigned: [].into(), place: None });
    }

    #[test]
    fn partitions_that_the_topic_no_longer_has_are_not_unassigned() {
        let members = vec![member("a-0", Some(&[0, 1, 2, 3]))];
        let found = group(STABLE, members).compare([0, 1].into(), "a-0").unwrap();
        assert_eq!(found, GroupAssignment { unassigned: [].into(), place: Some(0) });
    }

    #[test]
    fn a_group_that_is_not_stable_or_not_readable_is_not_known() {
        let (topic, one) = (|| BTreeSet::from([0]), || member("a-0", Some(&[])));
        let known = |group: ObservedGroup| group.compare(topic(), "a-0");
        assert_eq!(known(group(STABLE, vec![one()])).unwrap().unassigned, topic());
        assert!(known(group("PreparingRebalance", vec![one()])).unwrap_err().contains("PreparingRebalance"));
        assert!(known(group(STABLE, Vec::new())).is_err());
        assert!(known(ObservedGroup::default()).is_err());
        let unread = known(group(STABLE, vec![one(), member("b-0", None)])).unwrap_err();
        assert!(unread.contains("b-0"), "{unread}");
    }

    #[test]
    fn a_member_is_named_by_its_instance_and_a_dynamic_one_of_another_client_is_foreign() {
        let foreign = ObservedMember {
            id: "console-1-abc".into(),
            client_id: "console-1".into(),
            ..member("console", Some(&[2]))
        };
        let group = group(STABLE, vec![member("a-0", Some(&[1])), foreign]);
        assert_eq!(group.owners()[&1], format!("a-0 at {HOST}"));
        assert_eq!(group.foreign("anomaly"), [format!("console-1 at {HOST}")]);
        assert_eq!(group.foreign("console-1"), [""; 0]);
    }
}
