//! Runs the same script against the simulated log and against a real broker, over two members and two partitions, and
//! a third partition that is added. Both must give the same answers, so that the simulation cannot be more lenient than
//! Kafka. The script calls every method of every trait, which the recorder checks. Needs the box: `tests/run`.

mod administration;
mod calls;
mod recorder;
mod worlds;

use std::time::{Duration, Instant};

use calls::{
    ANSWER_TIMEOUT, Answers, change, insist, join, poll, poll_records, progress, read, record, state, whole_assignment,
};
use recorder::{CalledMethods, RecordingClient};
use worlds::{ConformanceWorld, EVENTS, RealWorld, SimulatedWorld};

use crate::stop::Stop;
use crate::stream::client::{
    ClusterConnection, CommittedOffset, Fault, GroupAdministration, GroupMembership, HistoryReader, HistoryTopic,
    OffsetRanges, OutgoingRecord, OutputTopic, Positions, ReadLimits, RecordFetch, Remedy, TopicAdministration,
    TransactionalProducer, read_to_end,
};
use crate::stream::progress::ProgressByPartition;

const BOTH: [i32; 2] = [0, 1];

/// Tests one member alone: clock, records, ends, the topic, and the history of the input.
fn one_member(client: &mut RecordingClient, answers: &mut Answers) {
    let began = client.now();
    client.sleep(Duration::from_millis(2));
    answers.note("time passes", client.now() > began);
    join(client, &[(0, 0), (1, 0)].into());
    client.resume(&[0]).unwrap();
    answers.note("only the resumed partition delivers", poll_records(client, EVENTS as usize));
    client.resume(&[1]).unwrap();
    answers.note("the other one too", poll_records(client, EVENTS as usize));
    let all = Positions::from([(0, EVENTS), (1, EVENTS)]);
    answers.note("no trouble", client.trouble());
    answers.note("ends reached", poll(client, |_, client| client.reached() == all));
    let starts = Positions::from([(0, 0), (1, 0)]);
    let is_known =
        |client: &RecordingClient| client.ends() == all && client.highs() == all && client.starts() == starts;
    answers.note("ends without a request", poll(client, |_, client| is_known(client)));
    answers.note("the whole assignment", whole_assignment(client));
    answers.note("bounds", BOTH.map(|partition| insist(|| client.bounds(partition))));
    let identity = insist(|| client.identity()).unwrap();
    answers.note("partitions", (identity.partitions, insist(|| client.partitions())));
    answers.note("the topic's id", (client.topic_id() == identity.id, identity.id.is_some()));
    answers.note("bounds of the input", insist(|| client.bounds_of(HistoryTopic::Input, &BOTH)));
    let ranges = OffsetRanges::from([(0, 3..7), (1, 8..10)]);
    answers.note("history of the input", read(client, HistoryTopic::Input, &ranges));
    answers.note("one partition of it", read(client, HistoryTopic::Input, &[(1, 0..2)].into()));
}

/// Tests transactions: commits, aborts, and the visible records.
fn transactions(client: &mut RecordingClient, answers: &mut Answers) {
    answers.note("nothing is committed", insist(|| client.committed(&BOTH)));
    client.begin().unwrap();
    for output in [OutputTopic::Anomalies, OutputTopic::DeadLetters, OutputTopic::State(0), OutputTopic::State(1)] {
        client.send(record(output, "first")).unwrap();
    }
    answers.note("a commit", insist(|| client.commit(&progress(&[(0, 6), (1, 4)]))));
    answers.note("its progress", insist(|| client.committed(&BOTH)));
    answers.note("its state", state(client));
    let dead_letters = insist(|| client.bounds_of(HistoryTopic::DeadLetters, &BOTH)).unwrap();
    // The partitioners of both worlds differ.
    let dead_letters =
        read(client, HistoryTopic::DeadLetters, &dead_letters).into_values().flatten().map(|(_, key)| key);
    answers.note("its dead letter", dead_letters.collect::<Vec<_>>());
    client.begin().unwrap();
    client.send(record(OutputTopic::State(0), "aborted")).unwrap();
    answers.note("an abort", insist(|| client.abort()));
    answers.note("progress after it", insist(|| client.committed(&BOTH)));
    answers.note("state after it", state(client));
    answers.note("bounds of the state", insist(|| client.bounds_of(HistoryTopic::State, &BOTH)));
    client.seek(&[(0, 6), (1, 4)].into()).unwrap();
    answers.note("no end after a seek", client.reached());
    answers.note("no failure", client.failures());
    answers.note("nothing to skip", client.skip(0));
    answers.note("records again", poll_records(client, 10));
    client.seek(&[(0, 6)].into()).unwrap();
    let none = (0..5).map(|_| client.poll(Duration::from_millis(50), 0, &mut |_, _| panic!("nothing was asked for")));
    answers.note("polls for nothing", none.collect::<Result<Vec<_>, _>>());
    answers.note("records of one partition after them", poll_records(client, 4));
}

/// Tests that a second member joins, commits, and leaves.
fn rebalance(world: &dyn ConformanceWorld, one: &mut RecordingClient, called: &CalledMethods, answers: &mut Answers) {
    let mut two = world.recorded("b", "two", called);
    insist(|| two.init_transactions()).unwrap();
    two.subscribe().unwrap();
    answers.note("the first member gives back", change(&mut [&mut two, &mut *one]));
    answers.note("which is not lost", one.is_assignment_lost());
    one.unassign().unwrap();
    let second = change(&mut [&mut *one, &mut two]);
    let first = change(&mut [&mut two, &mut *one]);
    answers.note("each has a partition", (&first, &second));
    one.assign(&[(0, 6)].into()).unwrap();
    two.assign(&[(1, 4)].into()).unwrap();
    one.resume(&[0]).unwrap();
    two.resume(&[1]).unwrap();
    answers.note("records of the first", poll_records(one, 4));
    answers.note("records of the second", poll_records(&mut two, 6));
    two.begin().unwrap();
    two.send(record(OutputTopic::State(1), "second")).unwrap();
    answers.note("a commit of the second", insist(|| two.commit(&progress(&[(1, 7)]))));
    answers.note("progress of both", insist(|| one.committed(&BOTH)));
    answers.note("state of both", state(one));
    rejoin(one, &mut two, answers);
    two.leave(Duration::from_secs(10));
    answers.note("the first gives back again", change(&mut [&mut *one]));
    one.unassign().unwrap();
    answers.note("and has both", change(&mut [&mut *one]));
    one.assign(&[(0, 6), (1, 7)].into()).unwrap();
    one.resume(&BOTH).unwrap();
    answers.note("records after the second left", poll_records(one, 7));
}

/// Tests that the second member joins again: the group assigns all partitions again.
fn rejoin(one: &mut RecordingClient, two: &mut RecordingClient, answers: &mut Answers) {
    two.rejoin().unwrap();
    answers.note("the member that joins again gives back", change(&mut [two]));
    two.unassign().unwrap();
    answers.note("and so does the other one", change(&mut [&mut *two, &mut *one]));
    one.unassign().unwrap();
    let second = change(&mut [&mut *one, &mut *two]);
    let first = change(&mut [&mut *two, &mut *one]);
    answers.note("each has a partition again", (&first, &second));
    one.assign(&[(0, 10)].into()).unwrap();
    two.assign(&[(1, 7)].into()).unwrap();
    two.begin().unwrap();
    answers.note("a commit of the member that joined again", insist(|| two.commit(&progress(&[(1, 7)]))));
}

/// Tests another producer of the same transactional id, and another member of the same name.
fn fencing(world: &dyn ConformanceWorld, mut one: RecordingClient, called: &CalledMethods, answers: &mut Answers) {
    let (remedy, stop) = (|fault: Fault| fault.remedy, Stop::default());
    one.begin().unwrap();
    one.send(record(OutputTopic::State(0), "fenced")).unwrap();
    // A record that is still queued would be refused, with another remedy than the offsets.
    insist(|| one.flush()).unwrap();
    let mut three = world.recorded("c", "one", called);
    answers.note("a second producer by the same name", insist(|| three.init_transactions()));
    let late = insist(|| one.commit(&progress(&[(0, 9), (1, 9)]))).map_err(remedy);
    answers.note("the commit of the first", late);
    answers.note("no other member has its place", one.is_replaced(false, &stop));
    drop((one, three));
    let mut four = world.recorded("a", "four", called);
    join(&mut four, &[(0, 6), (1, 7)].into());
    answers.note("progress after the fenced commit", insist(|| four.committed(&BOTH)));
    answers.note("state after the fenced commit", state(&mut four));
    let mut five = world.recorded("a", "five", called);
    join(&mut five, &[(0, 6), (1, 7)].into());
    answers.note("a member whose name another took", poll(&mut four, |_, _| false).map_err(remedy));
    // The first time the member may have been fenced by itself.
    answers.note("whether it was replaced", four.is_replaced(true, &stop));
    drop(four);
    five.leave(Duration::from_secs(10));
}

/// Tests an offset that another program commits.
fn foreign_commit(world: &dyn ConformanceWorld, called: &CalledMethods, answers: &mut Answers) {
    world.commit_as_another(0, 6, 2);
    let mut tool = world.recorded("t", "tool", called);
    insist(|| tool.init_transactions()).unwrap();
    answers.note("an offset that a client outside of the group reads", insist(|| tool.committed(&BOTH)));
    let mut six = world.recorded("d", "six", called);
    answers.note("an offset of another program", insist(|| six.committed(&BOTH)));
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    while six.foreign().commits.is_empty() {
        assert!(Instant::now() < deadline, "the foreign commit was not observed");
        std::thread::sleep(Duration::from_millis(20));
    }
    answers.note("observed", six.foreign());
    join(&mut six, &[(0, 8), (1, 7)].into());
    six.resume(&BOTH).unwrap();
    answers.note("records after it", poll_records(&mut six, 5));
    six.begin().unwrap();
    answers.note("a commit of ours", insist(|| six.commit(&progress(&[(0, 10), (1, 10)]))));
    let committed = insist(|| six.committed(&BOTH)).unwrap();
    answers.note("is ours again", committed.values().all(|offset| matches!(offset, CommittedOffset::At(_))));
    tool.begin().unwrap();
    let refused = insist(|| tool.commit(&progress(&[(0, 9)]))).map_err(|fault| fault.remedy);
    answers.note("a commit from outside of a group with members", refused);
    tool.abort().unwrap();
    six.leave(Duration::from_secs(10));
    drop(six);
    tool.begin().unwrap();
    answers.note("a commit from outside of an empty group", insist(|| tool.commit(&progress(&[(0, 10)]))));
    answers.note("its progress", insist(|| tool.committed(&BOTH)));
}

/// Tests a topic that gets a partition while a member is in the group.
fn growth(world: &dyn ConformanceWorld, called: &CalledMethods, answers: &mut Answers) {
    let mut seven = world.recorded("e", "seven", called);
    join(&mut seven, &[(0, 10), (1, 10)].into());
    seven.resume(&BOTH).unwrap();
    insist(|| seven.committed(&BOTH)).unwrap();
    world.grow(HistoryTopic::Input);
    answers.note("the member gives back for the added partition", change(&mut [&mut seven]));
    answers.note("which is not lost either", seven.is_assignment_lost());
    seven.unassign().unwrap();
    answers.note("it has the added partition too", change(&mut [&mut seven]));
    answers.note("no offset of the added partition", insist(|| seven.committed(&[2])));
    answers.note("the policy of the state topic", insist(|| seven.cleanup_policy(HistoryTopic::State)));
    answers.note("the policy of the input", insist(|| seven.cleanup_policy(HistoryTopic::Input)));
    answers.note("more partitions", insist(|| seven.identity()).unwrap().partitions);
    answers.note("bounds of the added partition", insist(|| seven.bounds_of(HistoryTopic::Input, &[2])));
    let state = insist(|| seven.bounds_of(HistoryTopic::State, &[2])).map_err(|fault| fault.remedy);
    answers.note("no state of the added partition", state);
    world.grow(HistoryTopic::State);
    // A client may answer from its cached metadata at first, and the loop would ask again.
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    let state = loop {
        match insist(|| seven.bounds_of(HistoryTopic::State, &[2])) {
            Err(fault) if fault.remedy == Remedy::Rebuild && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(50));
            }
            other => break other,
        }
    };
    answers.note("state of the added partition", state);
    seven.assign(&[(0, 10), (1, 10), (2, 0)].into()).unwrap();
    seven.resume(&[0, 1, 2]).unwrap();
    world.publish(2, 3);
    answers.note("records of the added partition", poll_records(&mut seven, 3));
    seven.begin().unwrap();
    seven.send(record(OutputTopic::State(2), "added")).unwrap();
    answers.note("a commit for it", insist(|| seven.commit(&progress(&[(0, 10), (1, 10), (2, 3)]))));
    answers.note("its progress is known", insist(|| seven.committed(&[2])));
    let ranges = insist(|| seven.bounds_of(HistoryTopic::State, &[2])).unwrap();
    answers.note("its state can be read", read(&mut seven, HistoryTopic::State, &ranges));
    seven.leave(Duration::from_secs(10));
}

/// Tests a transaction without progress that writes to a topic by its name, with a time of its own.
fn named_topic(world: &dyn ConformanceWorld, called: &CalledMethods, answers: &mut Answers) {
    let mut eight = world.recorded("f", "eight", called);
    insist(|| eight.init_transactions()).unwrap();
    let before = insist(|| eight.bounds_of(HistoryTopic::Input, &[1])).unwrap()[&1].end;
    eight.begin().unwrap();
    let output = OutputTopic::Named { topic: world.input(), partition: Some(1) };
    let sent = OutgoingRecord { timestamp: Some(1_234), ..record(output, "named") };
    eight.send(sent).unwrap();
    answers.note("an accepted record", insist(|| eight.flush()));
    answers.note("a commit without progress", insist(|| eight.commit(&ProgressByPartition::new())));
    // The records of a committed transaction become readable a little later.
    let (mut after, deadline) = (before, Instant::now() + ANSWER_TIMEOUT);
    while after == before {
        assert!(Instant::now() < deadline, "the record did not become readable");
        std::thread::sleep(Duration::from_millis(5));
        after = insist(|| eight.bounds_of(HistoryTopic::Input, &[1])).unwrap()[&1].end;
    }
    let (ranges, mut found) = (OffsetRanges::from([(1, before..after)]), Vec::new());
    let limits = ReadLimits { total: ANSWER_TIMEOUT, silence: ANSWER_TIMEOUT };
    let read = read_to_end(&mut eight, HistoryTopic::Input, &ranges, limits, |_, consumed| {
        found.extend(consumed.records().iter().map(|record| (record.key.map(<[u8]>::to_vec), record.timestamp)));
        Ok::<_, Fault>(())
    });
    answers.note("the record of a named topic", (read, found));
}

/// Runs the script and checks that every method was called; returns the answers.
fn script(world: &dyn ConformanceWorld) -> Vec<String> {
    let (called, mut answers) = (CalledMethods::default(), Answers(Vec::new()));
    let mut one = world.recorded("a", "one", &called);
    one_member(&mut one, &mut answers);
    transactions(&mut one, &mut answers);
    rebalance(world, &mut one, &called, &mut answers);
    fencing(world, one, &called, &mut answers);
    foreign_commit(world, &called, &mut answers);
    growth(world, &called, &mut answers);
    named_topic(world, &called, &mut answers);
    assert_eq!(called.missing(), [""; 0], "methods that the script does not call");
    answers.0
}

#[test]
fn the_script_calls_every_method_of_every_trait() {
    let answers = script(&SimulatedWorld::new());
    assert!(answers.len() > 40, "{answers:#?}");
}

#[test]
fn reading_to_the_end_stops_at_an_error_of_the_visitor_and_at_its_limits() {
    let world = SimulatedWorld::new();
    let mut client = world.recorded("a", "one", &CalledMethods::default());
    let limit = Duration::from_secs(20);
    let limits = ReadLimits { total: limit, silence: limit };
    let mut read = |end: i64, limits: ReadLimits, refused: i64| {
        let mut offsets = Vec::new();
        let ranges = OffsetRanges::from([(0, 2..end), (1, 5..5)]);
        let ended = read_to_end(&mut client, HistoryTopic::Input, &ranges, limits, |partition, consumed| {
            assert_eq!(partition, 0, "the other range is empty");
            consumed.records().iter().try_for_each(|record| {
                offsets.push(record.offset);
                if record.offset == refused { Err(Fault::new(Remedy::Stop, "refused")) } else { Ok(()) }
            })
        });
        (offsets, ended.map_err(|fault| fault.remedy))
    };
    assert_eq!(read(EVENTS, limits, -1), ((2..EVENTS).collect(), Ok(())));
    assert_eq!(read(EVENTS, limits, 4), (vec![2, 3, 4], Err(Remedy::Stop)));
    // The end of the partition is before that of the range.
    for limits in [ReadLimits { total: Duration::MAX, ..limits }, ReadLimits { silence: Duration::MAX, ..limits }] {
        assert_eq!(read(EVENTS + 1, limits, -1), ((2..EVENTS).collect(), Err(Remedy::Retry)));
    }
}

#[test]
#[ignore = "needs a broker: tests/run"]
fn the_simulated_log_answers_as_a_real_broker_does() {
    let (simulated, real) = (script(&SimulatedWorld::new()), script(&RealWorld::new()));
    for (simulated, real) in simulated.iter().zip(&real) {
        assert_eq!(simulated, real);
    }
    assert_eq!(simulated.len(), real.len());
}
