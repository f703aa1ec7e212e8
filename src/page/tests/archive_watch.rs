//! Tests of the watch over the archive: while pages get no answers, the role must never report that they do.

use super::super::{ArchiveTroubles, ArchiveWatch, watched_app};
use super::*;

fn watched(mood: u8) -> (Arc<Fake>, Arc<Handler>, ArchiveWatch) {
    let fake = Fake::new(1.0, 9);
    fake.mood.store(mood, Ordering::SeqCst);
    let (handler, watch) = watched_app(Arc::clone(&fake) as Arc<dyn Archive>, options(OPEN)).unwrap();
    (fake, handler, watch)
}

const OPEN: Access = Access::Open { is_anywhere: true };

/// Checks with a round of queries that is due, until a problem is reported or ends.
fn until(watch: &mut ArchiveWatch, is_trouble: bool) -> Option<String> {
    let start = Clock::now();
    loop {
        watch.is_due();
        let trouble = watch.check().pages;
        if trouble.is_some() == is_trouble {
            return trouble;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{trouble:?}");
        std::thread::yield_now();
    }
}

#[test]
fn an_outage_is_reported_with_its_cause_before_any_request_and_until_it_is_over() {
    let (fake, handler, mut watch) = watched(1);
    let trouble = until(&mut watch, true).unwrap();
    assert!(
        trouble.contains("PostgreSQL has been unreachable since") && trouble.contains("connection refused"),
        "{trouble}"
    );
    assert_eq!(get(&handler, "/").0.status, 503);
    fake.mood.store(0, Ordering::SeqCst);
    until(&mut watch, false);
    assert_eq!(get(&handler, "/").0.status, 200);
}

#[test]
fn a_refusal_is_reported_with_its_remedy_until_the_query_is_answered() {
    let (fake, _, mut watch) = watched(2);
    let trouble = watch.check().pages.unwrap();
    assert!(trouble.contains("refuses") && trouble.contains("run `anomaly migrate`"), "{trouble}");
    fake.mood.store(0, Ordering::SeqCst);
    assert!(watch.check().pages.is_some(), "not asked again yet");
    watch.is_due();
    assert_eq!(watch.check().pages, None);
}

#[test]
fn one_slow_query_is_no_problem_and_three_slow_rounds_are() {
    let (fake, _, mut watch) = watched(3);
    for round in 1..=3 {
        watch.is_due();
        assert_eq!(watch.check().pages.is_some(), round == 3, "round {round}");
    }
    fake.mood.store(0, Ordering::SeqCst);
    until(&mut watch, false);
}

#[test]
fn a_query_that_is_refused_for_one_request_is_no_problem() {
    let (_, handler, mut watch) = watched(4);
    assert_eq!(watch.check().pages, None);
    assert_eq!(get(&handler, "/devices/poison").0.status, 503);
    watch.is_due();
    assert_eq!(watch.check().pages, None);
}

#[test]
fn a_right_that_one_page_lacks_is_reported_before_any_request() {
    let (fake, _, mut watch) = watched(5);
    let trouble = watch.check().pages.unwrap();
    assert!(trouble.contains("42501: permission denied for table rejected_samples"), "{trouble}");
    fake.mood.store(0, Ordering::SeqCst);
    until(&mut watch, false);
}

#[test]
fn a_role_that_cannot_add_reviews_is_reported_before_anyone_reviews() {
    let (fake, _, mut watch) = watched(6);
    let troubles = watch.check();
    let trouble = troubles.reviews.clone().unwrap();
    assert_eq!(troubles.pages, None, "the pages get answers");
    assert!(trouble.contains("cannot add reviews: 42501: permission denied for table reviews. `anomaly"), "{trouble}");
    // A slow answer proves neither that the permission is there nor that it is missing.
    fake.mood.store(7, Ordering::SeqCst);
    watch.is_due();
    assert_eq!(watch.check(), troubles);
    fake.mood.store(0, Ordering::SeqCst);
    watch.is_due();
    assert_eq!(watch.check(), ArchiveTroubles::default());
    fake.mood.store(7, Ordering::SeqCst);
    watch.is_due();
    assert_eq!(watch.check(), ArchiveTroubles::default());
}
