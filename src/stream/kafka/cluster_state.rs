//! Records whether a client can reach the cluster, and why not, from librdkafka's callbacks and statistics.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;

use super::silence::{BrokerSilence, MAX_NAMED_BROKERS};
use crate::unavailable::Unavailable;

/// Reason why a client cannot use the cluster.
#[derive(Debug, Clone)]
enum ClusterProblem {
    /// No broker can be reached.
    Unavailable(Unavailable),
    /// A broker refuses the certificate or the password, with its reason.
    Refused(String),
    /// A topic or a broker cannot be used, for the reason in this sentence. A new connection does not end this state.
    Other(String),
}

impl fmt::Display for ClusterProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClusterProblem::Unavailable(unavailable) => unavailable.fmt(f),
            ClusterProblem::Refused(reason) => write!(f, "Kafka refuses us: {reason}"),
            ClusterProblem::Other(sentence) => f.write_str(sentence),
        }
    }
}

/// State of the cluster, as the client's background threads see it.
#[derive(Debug, Default)]
pub(crate) struct ClusterState {
    why: Mutex<Option<ClusterProblem>>,
    /// Brokers that could not be reached, with the reason.
    unreached: Mutex<BTreeMap<String, String>>,
    is_stranded: AtomicBool,
    silence: Mutex<BrokerSilence>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClusterState {
    /// Creates the state for a client whose brokers may hold back the answer to a fetch for this time.
    pub(super) fn with_fetch_wait(fetch_wait: Duration) -> Self {
        ClusterState { silence: Mutex::new(BrokerSilence::with_fetch_wait(fetch_wait)), ..ClusterState::default() }
    }

    /// Returns why the cluster cannot be used, or `None` if it can.
    pub(crate) fn get(&self) -> Option<String> {
        let why = lock(&self.why).as_ref().map(ToString::to_string);
        why.or_else(|| lock(&self.silence).message().map(str::to_owned))
    }

    /// Records why a part of the cluster cannot be used.
    pub(crate) fn set(&self, why: impl Into<String>) {
        *lock(&self.why) = Some(ClusterProblem::Other(why.into()));
    }

    /// Records that the cluster can be used again.
    pub(crate) fn clear(&self) {
        *lock(&self.why) = None;
        lock(&self.unreached).clear();
    }

    /// Records an error from a callback.
    pub(crate) fn note_error(&self, error: &KafkaError, reason: &str) {
        use RDKafkaErrorCode::{AllBrokersDown, Authentication, BrokerTransportFailure, Resolve, SSL};
        match error.rdkafka_error_code() {
            Some(AllBrokersDown) => self.is_away(reason),
            Some(Authentication | SSL) => *lock(&self.why) = Some(ClusterProblem::Refused(reason.to_owned())),
            Some(BrokerTransportFailure | Resolve) => {
                if let Some((broker, why)) = unreached(reason) {
                    lock(&self.unreached).insert(broker, why);
                }
                tracing::debug!("librdkafka: {reason}");
            }
            _ => tracing::debug!("librdkafka: {error}: {reason}"),
        }
    }

    /// Returns why a call to a broker got no answer: the recorded reason, or the brokers that could not be reached.
    pub(crate) fn reason(&self) -> Option<String> {
        self.get().or_else(|| self.unreached().map(|unavailable| unavailable.to_string()))
    }

    /// Describes the brokers that could not be reached, each with its reason; `None` if there are none.
    fn unreached(&self) -> Option<Unavailable> {
        let tried = lock(&self.unreached);
        let some =
            tried.iter().take(MAX_NAMED_BROKERS).map(|(broker, why)| format!("{broker}: {why}")).collect::<Vec<_>>();
        match tried.len().saturating_sub(MAX_NAMED_BROKERS) {
            _ if some.is_empty() => None,
            0 => Some(Unavailable::kafka(some.join("; "))),
            more => Some(Unavailable::kafka(format!("{}; and {more} more", some.join("; ")))),
        }
    }

    fn is_away(&self, reason: &str) {
        let unavailable = self.unreached().unwrap_or_else(|| Unavailable::kafka(reason));
        let mut known = lock(&self.why);
        // A broker's refusal is more specific, so it is kept.
        if matches!(*known, None | Some(ClusterProblem::Unavailable(_))) {
            *known = Some(ClusterProblem::Unavailable(unavailable));
        }
    }

    /// Returns whether the client knew no broker in the last statistics, and resets this. See
    /// [`stranded`](super::stranded).
    pub(crate) fn take_stranded(&self) -> bool {
        self.is_stranded.swap(false, Ordering::Relaxed)
    }

    /// Updates the state from the client's statistics on brokers and connections.
    pub(crate) fn update(&self, statistics: &Statistics) {
        self.is_stranded.store(is_stranded(statistics), Ordering::Relaxed);
        lock(&self.silence).update(statistics);
        // Any connection counts, because a member without partitions connects only to the coordinator.
        let is_up = statistics.brokers.values().any(|broker| broker.state == "UP");
        let is_about_brokers =
            matches!(*lock(&self.why), Some(ClusterProblem::Unavailable(_) | ClusterProblem::Refused(_)));
        if is_up && is_about_brokers {
            self.clear();
        }
    }
}

/// Extracts address and reason from librdkafka's text about a broker. An example is `ssl://kafka-1:9093/bootstrap:
/// Connect to ipv4#10.0.0.1:9093 failed: Connection refused (after 1ms in state CONNECT)`.
fn unreached(text: &str) -> Option<(String, String)> {
    let (broker, why) = text.split_once(": ")?;
    let broker = broker.split_once("://").map_or(broker, |(_, rest)| rest);
    let broker = broker.rsplit_once('/').map_or(broker, |(address, _)| address);
    let why = why.rsplit_once(" (after ").map_or(why, |(why, _)| why);
    // The group's coordinator is also one of the brokers; librdkafka reports it by a name instead of an address.
    broker.contains(':').then(|| (broker.to_owned(), why.to_owned()))
}

/// Returns whether the client knows no broker that it could connect to.
pub(super) fn is_stranded(statistics: &Statistics) -> bool {
    !statistics.brokers.values().any(|broker| matches!(broker.source.as_str(), "learned" | "configured"))
}

#[cfg(test)]
mod tests {
    use rdkafka::statistics::Broker;

    use super::*;

    #[test]
    fn unreachable_brokers_are_named_with_their_addresses_and_reasons() {
        let trouble = ClusterState::default();
        let away =
            |reason: &str| trouble.note_error(&KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure), reason);
        away(
            "ssl://k1:9093/bootstrap: Connect to ipv4#10.0.0.1:9093 failed: Connection refused (after 1ms in state CONNECT)",
        );
        away("GroupCoordinator: Disconnected (after 9ms in state UP)");
        trouble.note_error(&KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        let first = "Kafka is unreachable: k1:9093: Connect to ipv4#10.0.0.1:9093 failed: Connection refused";
        assert_eq!(trouble.get().as_deref(), Some(first));
        away("k2:9093/2: Disconnected");
        trouble.note_error(&KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "2/2 brokers are down");
        assert_eq!(trouble.get().unwrap(), format!("{first}; k2:9093: Disconnected"));
    }

    #[test]
    fn a_connection_to_the_coordinator_alone_shows_that_kafka_is_available_again() {
        let trouble = ClusterState::default();
        trouble.note_error(&KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "2/2 brokers are down");
        let broker = |nodeid, state: &str| Broker { nodeid, state: state.to_owned(), ..Broker::default() };
        let mut statistics = Statistics::default();
        statistics.brokers.insert("localhost:9092/1".to_owned(), broker(1, "DOWN"));
        trouble.update(&statistics);
        assert!(trouble.get().is_some_and(|why| why.contains("2/2")));
        statistics.brokers.insert("GroupCoordinator".to_owned(), broker(-1, "UP"));
        trouble.update(&statistics);
        assert_eq!(trouble.get(), None);
    }

    #[test]
    fn the_silence_of_a_broker_is_a_reason_until_it_answers() {
        let trouble = ClusterState::default();
        let (source, state) = ("learned".to_owned(), "UP".to_owned());
        let broker = Broker { nodename: "k1:9092".into(), source, state, waitresp_cnt: 1, ..Broker::default() };
        let mut statistics = Statistics { time: 1_795_000_000, ..Statistics::default() };
        for second in (0..20).step_by(2) {
            statistics.ts = (100 + second) * 1_000_000;
            let broker = Broker { rxidle: second * 1_000_000, ..broker.clone() };
            statistics.brokers.insert("k1:9092/1".to_owned(), broker);
            trouble.update(&statistics);
        }
        trouble.clear();
        let why = trouble.get().expect("records that arrived earlier are no answer");
        assert!(why.starts_with("broker k1:9092 has not answered since 20"), "{why}");
        statistics.ts += 2_000_000;
        statistics.brokers.insert("k1:9092/1".to_owned(), Broker { rx: 1, ..broker });
        trouble.update(&statistics);
        assert_eq!(trouble.get(), None);
    }
}
