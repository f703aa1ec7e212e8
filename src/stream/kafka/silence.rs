//! Finds brokers that do not answer, from librdkafka's statistics. librdkafka itself notices a connection whose packets
//! are dropped only after a minute, when a request times out.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::statistics::{Broker, Statistics};

use crate::event::Timestamp;

/// Time after which a broker without an answer is reported. A broker answers a fetch within `fetch.wait.max.ms`, and
/// other requests within seconds. Requests that wait for other members go to the coordinator, which does not count.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// Maximum number of brokers that a message names.
pub(super) const MAX_NAMED_BROKERS: usize = 3;
/// Interval between two statistics from which on the client itself was stopped or slow. Its brokers may have answered.
const STATISTICS_LIMIT: Duration = Duration::from_secs(5);

/// Brokers for which a client waits, as its statistics show them.
#[derive(Debug, Default)]
pub(super) struct BrokerSilence {
    /// Longest time that a broker may hold back an answer, in addition to [`ANSWER_LIMIT`].
    fetch_wait: Duration,
    /// Time of the last statistics, in microseconds of librdkafka's clock.
    seen: i64,
    waiting: BTreeMap<String, BrokerWait>,
    /// Description of the silent brokers that the client needs.
    message: Option<String>,
}

/// The wait for one broker. All statistics since its beginning show that the client waits.
#[derive(Debug)]
struct BrokerWait {
    /// Time of the first statistics, in microseconds of librdkafka's clock.
    since: i64,
    /// Number of answers so far.
    answers: u64,
    /// Time of the last answer, or of the beginning of the wait, once the broker counts as silent.
    silent_since: Option<Timestamp>,
}

impl BrokerSilence {
    /// Creates a record for a client whose brokers may hold back the answer to a fetch for this time.
    pub(super) fn with_fetch_wait(fetch_wait: Duration) -> Self {
        BrokerSilence { fetch_wait, ..BrokerSilence::default() }
    }

    /// Describes the brokers that do not answer; `None` if there are none.
    pub(super) fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Updates the record from new statistics.
    pub(super) fn update(&mut self, statistics: &Statistics) {
        let now = statistics.ts;
        if micros(now - self.seen) > STATISTICS_LIMIT {
            self.waiting.clear();
        }
        self.seen = now;
        let limit = ANSWER_LIMIT + self.fetch_wait;
        self.waiting.retain(|name, wait| {
            statistics.brokers.get(name).is_some_and(|broker| waits_for(broker) && broker.rx == wait.answers)
        });
        for (name, broker) in statistics.brokers.iter().filter(|(_, broker)| waits_for(broker)) {
            let begun = BrokerWait { since: now, answers: broker.rx, silent_since: None };
            let wait = self.waiting.entry(name.clone()).or_insert(begun);
            // A part of a large answer is an answer.
            let silence = micros(now - wait.since).min(idle(broker).unwrap_or(Duration::MAX));
            if silence < limit {
                wait.silent_since = None;
            } else if wait.silent_since.is_none() {
                let began = statistics.time.saturating_sub_unsigned(silence.as_secs());
                wait.silent_since = Timestamp::from_millis(began * 1_000);
            }
        }
        // A broker without partitions of this client is needed only if it is the last one. Otherwise the client asks
        // another one.
        let is_answered = statistics
            .brokers
            .values()
            .any(|broker| broker.state == "UP" && idle(broker).is_some_and(|idle| idle < limit));
        let mut silent = BTreeMap::<&str, Timestamp>::new();
        for (name, broker) in &statistics.brokers {
            let since = self.waiting.get(name).and_then(|wait| wait.silent_since);
            if let Some(since) = since.filter(|_| !is_answered || !broker.toppars.is_empty()) {
                silent.entry(&broker.nodename).and_modify(|first| *first = since.min(*first)).or_insert(since);
            }
        }
        self.message = describe(&silent);
    }
}

/// Names the silent brokers, with the time of the first one's last answer.
fn describe(silent: &BTreeMap<&str, Timestamp>) -> Option<String> {
    let since = silent.values().min()?;
    let names = silent.keys().take(MAX_NAMED_BROKERS).copied().collect::<Vec<_>>().join(", ");
    Some(match silent.len() {
        1 => format!("broker {names} has not answered since {since}"),
        ..=MAX_NAMED_BROKERS => format!("brokers {names} have not answered since {since}"),
        n => format!("brokers {names} and {} more have not answered since {since}", n - MAX_NAMED_BROKERS),
    })
}

/// Returns whether the client waits for this broker: for an answer, or for a connection. The connections to coordinators
/// do not count, because a request to join a group is answered when all members have joined.
fn waits_for(broker: &Broker) -> bool {
    let has_address = matches!(broker.source.as_str(), "learned" | "configured");
    has_address
        && match broker.state.as_str() {
            "UP" => broker.waitresp_cnt > 0,
            // There is no connection, and the client needs none.
            "INIT" => false,
            _ => true,
        }
}

/// Returns the time since the last bytes from the broker on the present connection.
fn idle(broker: &Broker) -> Option<Duration> {
    u64::try_from(broker.rxidle).ok().map(Duration::from_micros)
}

fn micros(time: i64) -> Duration {
    Duration::from_micros(u64::try_from(time).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use rdkafka::statistics::TopicPartition;

    use super::*;

    /// A client of several brokers. Each step of two seconds ends with statistics.
    struct Client {
        silence: BrokerSilence,
        statistics: Statistics,
    }

    impl Client {
        fn of(brokers: &[&str]) -> Client {
            let broker = |name: &&str| {
                let toppars = [(String::new(), TopicPartition::default())].into();
                let (nodename, source, state) = ((*name).to_owned(), "learned".to_owned(), "UP".to_owned());
                ((*name).to_owned(), Broker { nodename, source, state, toppars, ..Broker::default() })
            };
            let brokers = brokers.iter().map(broker).collect();
            Client {
                silence: BrokerSilence::default(),
                statistics: Statistics { ts: 7_000_000_000, time: 1_795_000_000, brokers, ..Statistics::default() },
            }
        }

        fn broker(&mut self, name: &str) -> &mut Broker {
            self.statistics.brokers.get_mut(name).unwrap()
        }

        /// Lets a time pass in which all brokers of `answering` answer, then produces statistics. The others receive
        /// requests.
        fn pass(&mut self, seconds: i64, answering: &[&str]) -> Option<String> {
            self.statistics.ts += seconds * 1_000_000;
            self.statistics.time += seconds;
            for (name, broker) in &mut self.statistics.brokers {
                if answering.contains(&name.as_str()) {
                    broker.rx += 4;
                    broker.rxidle = 300_000;
                } else if broker.rxidle >= 0 {
                    broker.rxidle += seconds * 1_000_000;
                }
            }
            self.silence.update(&self.statistics);
            self.silence.message().map(str::to_owned)
        }

        /// Passes a time in steps of two seconds; returns the second at which a message appeared first.
        fn first(&mut self, seconds: i64, answering: &[&str]) -> Option<i64> {
            (1..=seconds / 2).filter_map(|step| self.pass(2, answering).map(|_| 2 * step)).next()
        }
    }

    #[test]
    fn a_broker_that_does_not_answer_is_named_with_the_time_of_its_last_answer() {
        let mut client = Client::of(&["k1:9092"]);
        client.broker("k1:9092").waitresp_cnt = 1;
        assert_eq!(client.first(600, &["k1:9092"]), None, "a fetch always waits");
        assert_eq!(client.first(60, &[]), Some(16));
        let message = client.pass(2, &[]).unwrap();
        let since = Timestamp::from_millis((client.statistics.time - 18) * 1_000).unwrap();
        assert_eq!(message, format!("broker k1:9092 has not answered since {since}"));
        assert_eq!(client.first(600, &[]), Some(2));
        assert_eq!(client.pass(2, &[]).as_ref(), Some(&message), "the message is stable");
        // The request times out; the client connects again, also without an answer.
        for state in ["DOWN", "TRY_CONNECT", "CONNECT"] {
            (client.broker("k1:9092").state, client.broker("k1:9092").rxidle) = (state.into(), -1);
            assert_eq!(client.pass(2, &[]).as_ref(), Some(&message), "{state}");
        }
        client.broker("k1:9092").state = "UP".into();
        assert_eq!(client.pass(2, &["k1:9092"]), None);
    }

    #[test]
    fn a_broker_without_requests_is_idle_and_its_next_request_is_no_old_one() {
        let mut client = Client::of(&["k1:9092", "k2:9092"]);
        client.broker("k1:9092").waitresp_cnt = 1;
        assert_eq!(client.first(600, &["k1:9092"]), None);
        // The request was sent just before the statistics; the last answer is ten minutes old.
        client.broker("k2:9092").waitresp_cnt = 1;
        assert_eq!(client.pass(2, &["k1:9092"]), None);
        assert_eq!(client.first(60, &["k1:9092"]), Some(16));
    }

    #[test]
    fn a_client_that_was_stopped_reports_nothing() {
        let mut client = Client::of(&["k1:9092"]);
        client.broker("k1:9092").waitresp_cnt = 1;
        for pause in [20, 60, 6] {
            assert_eq!(client.first(10, &[]), None);
            assert_eq!(client.pass(pause, &[]), None, "the client has not read the answer yet");
            assert_eq!(client.pass(2, &["k1:9092"]), None);
        }
        // Its machine is slow for ever.
        assert!((0..20).all(|_| client.pass(6, &[]).is_none()));
    }

    #[test]
    fn a_large_answer_that_arrives_in_parts_is_an_answer() {
        let mut client = Client::of(&["k1:9092"]);
        client.broker("k1:9092").waitresp_cnt = 1;
        let arrives = |client: &mut Client| {
            client.broker("k1:9092").rxidle = 0;
            client.pass(2, &[])
        };
        assert!((0..60).all(|_| arrives(&mut client).is_none()));
    }

    #[test]
    fn a_coordinator_that_waits_for_other_members_is_not_silent() {
        let mut client = Client::of(&["k1:9092", "GroupCoordinator"]);
        client.broker("GroupCoordinator").source = "logical".into();
        client.broker("GroupCoordinator").waitresp_cnt = 1;
        assert_eq!(client.first(600, &["k1:9092"]), None);
        client.broker("k1:9092").waitresp_cnt = 1;
        assert_eq!(
            client.first(60, &["GroupCoordinator"]),
            Some(18),
            "its answers do not hide the silence of a leader"
        );
    }

    #[test]
    fn a_broker_that_is_not_needed_is_not_reported_while_another_answers() {
        let mut client = Client::of(&["k1:9092", "k2:9092"]);
        client.broker("k2:9092").toppars.clear();
        client.broker("k2:9092").waitresp_cnt = 1;
        assert_eq!(client.first(60, &["k1:9092"]), None);
        client.broker("k1:9092").waitresp_cnt = 1;
        assert_eq!(client.first(60, &[]), Some(16));
        let message = client.pass(2, &[]).unwrap();
        assert!(message.starts_with("brokers k1:9092, k2:9092 have not answered since 20"), "{message}");
        // The client needs no connection to a broker in this state.
        client.broker("k2:9092").state = "INIT".into();
        let message = client.pass(2, &[]).unwrap();
        assert!(message.starts_with("broker k1:9092 has not"), "{message}");
        client.statistics.brokers.remove("k1:9092");
        assert_eq!(client.pass(2, &[]), None, "the broker has left the cluster");
    }

    #[test]
    fn a_broker_of_our_partitions_that_accepts_no_connection_is_reported() {
        let mut client = Client::of(&["k1:9092", "k2:9092"]);
        client.broker("k2:9092").rxidle = -1;
        assert_eq!(client.first(20, &["k1:9092"]), None);
        client.broker("k2:9092").state = "CONNECT".into();
        assert_eq!(client.first(60, &["k1:9092"]), Some(18));
    }

    #[test]
    fn the_users_limit_for_a_fetch_is_added() {
        let mut client = Client::of(&["k1:9092"]);
        client.silence = BrokerSilence::with_fetch_wait(Duration::from_secs(60));
        client.broker("k1:9092").waitresp_cnt = 1;
        client.pass(2, &["k1:9092"]);
        assert_eq!(client.first(200, &[]), Some(76));
    }

    #[test]
    fn many_silent_brokers_are_counted() {
        let names = ["k1:1", "k2:1", "k3:1", "k4:1", "k5:1"];
        let mut client = Client::of(&names);
        names.iter().for_each(|name| client.broker(name).waitresp_cnt = 1);
        client.pass(2, &names);
        assert_eq!(client.first(60, &[]), Some(16));
        let message = client.pass(2, &[]).unwrap();
        assert!(message.starts_with("brokers k1:1, k2:1, k3:1 and 2 more have not answered since 20"), "{message}");
    }
}
