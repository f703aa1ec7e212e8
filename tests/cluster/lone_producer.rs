//! A producer of a topic that no detector reads. The topic is created again with other leaders, whose epochs begin again.

use std::time::Duration;

use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::common::{Case, Process, wait_for};
use crate::state::admin;

/// Longest time until the producer has replaced its client, and the new topic has events.
const RECOVERY: Duration = Duration::from_secs(60);

/// The producer and its topic, of one partition.
pub(super) struct LoneProducer {
    topic: String,
    process: Process,
}

impl LoneProducer {
    /// Starts the producer. The leader of its topic is the first broker.
    pub(super) fn start(case: &Case) -> LoneProducer {
        let topic = format!("{}.lone", case.name);
        create(case, &topic, &[0, 1]);
        let settings = [("TOPICS__RAW_EVENTS", &*topic), ("PRODUCER__RATE", "20"), ("PRODUCER__DEVICES", "5")];
        let process = case.role("producer", &settings);
        let lone = LoneProducer { topic, process };
        lone.wait_for_events(case);
        lone
    }

    /// Creates the topic again, with the second broker as its leader, and waits until it has events.
    pub(super) fn recreate(self, case: &Case) {
        let (runtime, admin) = admin(case);
        runtime.block_on(admin.delete_topics(&[&*self.topic], &AdminOptions::new())).unwrap();
        create(case, &self.topic, &[1, 0]);
        wait_for("the producer to report events that wait without an error", RECOVERY, || {
            let answer = self.process.get("/readyz");
            answer.is_some_and(|(status, text)| status == 503 && text.contains("no event was delivered for"))
        });
        self.wait_for_events(case);
        assert!(self.process.log().contains("was recreated"), "{}", self.process.log());
        assert!(self.process.terminate(Duration::from_secs(15)).success());
    }

    fn wait_for_events(&self, case: &Case) {
        let reader: BaseConsumer = case.client().create().unwrap();
        wait_for("events in the topic", RECOVERY, || {
            reader.fetch_watermarks(&self.topic, 0, Duration::from_secs(5)).is_ok_and(|(_, end)| end > 0)
        });
    }
}

/// Creates a topic of one partition with these replicas, the leader first.
fn create(case: &Case, topic: &str, replicas: &[i32]) {
    let (runtime, admin) = admin(case);
    let assignment = [replicas];
    let fresh = NewTopic::new(topic, 1, TopicReplication::Variable(&assignment));
    wait_for("the topic to be created", RECOVERY, || {
        let results = runtime.block_on(admin.create_topics([&fresh], &AdminOptions::new())).unwrap();
        results.iter().all(Result::is_ok)
    });
}
