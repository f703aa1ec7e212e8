//! Notices that a topic was deleted and created again while a client reads it. The offsets of the client then belong to
//! the earlier topic, and the new one can have other records there.

use std::time::Duration;

use super::client::TopicAdministration;

/// Time between two requests for the topic's id.
const INTERVAL: Duration = Duration::from_secs(10);

/// Compares the id of a topic with the one at the takeover of its partitions: every 10 s, and before the first commit
/// after a fault.
#[derive(Debug, Default)]
pub(crate) struct IdentityWatch {
    /// Id at the takeover. Without one nothing can be compared.
    id: Option<String>,
    /// Time of the next request, by the client's clock.
    due: Duration,
    /// Whether no commit may precede the next request.
    is_in_doubt: bool,
}

/// Result of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TopicSameness {
    /// The topic is the same, or no comparison was due.
    Same,
    /// The cluster does not return the id.
    Unknown,
    /// The topic has this id now.
    Recreated(String),
}

impl IdentityWatch {
    /// Notes the id of the topic to which the current offsets belong; `None` if it is unknown.
    pub(crate) fn note(&mut self, id: Option<String>, now: Duration) {
        *self = IdentityWatch { id, due: now + INTERVAL, is_in_doubt: false };
    }

    /// Returns whether the current offsets belong to a topic with another id.
    pub(crate) fn differs_from(&self, id: Option<&str>) -> bool {
        self.id.as_deref().zip(id).is_some_and(|(known, id)| known != id)
    }

    /// Requires a comparison before the next commit, because the cluster failed or could not be reached.
    pub(crate) fn doubt(&mut self) {
        self.is_in_doubt = true;
    }

    /// Compares the ids if that is due. Call it from time to time.
    pub(crate) fn watch(&mut self, client: &mut impl TopicAdministration) -> TopicSameness {
        if client.now() < self.due {
            return TopicSameness::Same;
        }
        match self.compare(client) {
            TopicSameness::Unknown => {
                self.due = client.now() + INTERVAL;
                TopicSameness::Same
            }
            known => known,
        }
    }

    /// Compares the ids if a fault has made it necessary. Call it before a commit, which must wait while the answer is
    /// unknown.
    pub(crate) fn confirm(&mut self, client: &mut impl TopicAdministration) -> TopicSameness {
        if self.is_in_doubt { self.compare(client) } else { TopicSameness::Same }
    }

    fn compare(&mut self, client: &mut impl TopicAdministration) -> TopicSameness {
        let Some(id) = &self.id else { return TopicSameness::Same };
        match client.topic_id() {
            Some(current) if current != *id => TopicSameness::Recreated(current),
            Some(_) => {
                (self.is_in_doubt, self.due) = (false, client.now() + INTERVAL);
                TopicSameness::Same
            }
            None => TopicSameness::Unknown,
        }
    }
}
