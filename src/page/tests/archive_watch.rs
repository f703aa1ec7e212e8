//! What the role says of the archive: readers without answers are never called served.

use super::super::{ArchiveWatch, watched_app};
use super::*;

fn watched(mood: u8) -> (Arc<Fake>, Arc<Handler>, ArchiveWatch) {
    let fake = Fake::new(1.0, 9);
    fake.mood.store(mood, Ordering::SeqCst);
    let (handler, watch) = watched_app(Arc::clone(&fake) as Arc<dyn Archive>, options(OPEN)).unwrap();
    (fake, handler, watch)
}

const OPEN: Access = Access::Open { is_anywhere: true };

/// Looks, with a round of questions that is due, until there is trouble or none.
fn until(watch: &mut ArchiveWatch, is_trouble: bool) -> Option<String> {
    let start = Clock::now();
    loop {
        watch.is_due();
        let trouble = watch.look();
        if trouble.is_some() == is_trouble {
            return trouble;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{trouble:?}");
        std::thread::yield_now();
    }
}

#[test]
fn an_outage_is_said_with_its_cause_before_any_reader_asks_and_until_it_is_over() {
    let (fake, handler, mut watch) = watched(1);
    let trouble = until(&mut watch, true).unwrap();
    assert!(trouble.contains("PostgreSQL is away since") && trouble.contains("connection refused"), "{trouble}");
    assert_eq!(get(&handler, "/").0.status, 503);
    fake.mood.store(0, Ordering::SeqCst);
    until(&mut watch, false);
    assert_eq!(get(&handler, "/").0.status, 200);
}

#[test]
fn a_refusal_is_said_with_its_remedy_until_the_question_is_answered() {
    let (fake, _, mut watch) = watched(2);
    let trouble = watch.look().unwrap();
    assert!(trouble.contains("refuses") && trouble.contains("run `anomaly migrate`"), "{trouble}");
    fake.mood.store(0, Ordering::SeqCst);
    assert!(watch.look().is_some(), "not asked again yet");
    watch.is_due();
    assert_eq!(watch.look(), None);
}

#[test]
fn one_slow_question_is_no_trouble_and_three_rounds_of_them_are() {
    let (fake, _, mut watch) = watched(3);
    for round in 1..=3 {
        watch.is_due();
        assert_eq!(watch.look().is_some(), round == 3, "round {round}");
    }
    fake.mood.store(0, Ordering::SeqCst);
    until(&mut watch, false);
}

#[test]
fn a_question_that_is_refused_to_one_reader_alone_is_no_trouble() {
    let (_, handler, mut watch) = watched(4);
    assert_eq!(watch.look(), None);
    assert_eq!(get(&handler, "/devices/poison").0.status, 503);
    watch.is_due();
    assert_eq!(watch.look(), None);
}

#[test]
fn a_right_that_one_page_lacks_is_said_before_a_reader_asks() {
    let (fake, _, mut watch) = watched(5);
    let trouble = watch.look().unwrap();
    assert!(trouble.contains("42501: permission denied for table rejected_samples"), "{trouble}");
    fake.mood.store(0, Ordering::SeqCst);
    until(&mut watch, false);
}
