//! A cache of answers from the archive. Requests for the same question at the same time share one query. No request
//! waits longer than [`PATIENCE`]; after that it gets the last answer with the reason. The cache knows neither HTTP nor
//! the meaning of the answers.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant as Clock};

use super::outage::Outage;
use crate::archive::NoAnswer;
use crate::event::Timestamp;

/// Longest time that a request waits for an answer.
pub const PATIENCE: Duration = Duration::from_millis(1500);
/// Age up to which an answer is reused: fifty open pages cause one query.
const FRESH: Duration = Duration::from_millis(800);
/// Number of answers kept; the oldest is removed first.
const KEPT: usize = 24;
/// Maximum number of queries that run at the same time. Requests that would start another one are answered as slow.
const FLIGHTS: usize = 16;

/// Why there is no new answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoNewAnswer {
    /// The database is not reachable.
    Away {
        /// When the outage was noticed.
        since: Timestamp,
    },
    /// The database did not answer in time.
    Slow,
    /// The database refused the query; contains the remedy.
    Refused(String),
}

/// What the cache returns for a question.
#[derive(Debug)]
pub struct CachedAnswer<V> {
    /// The newest answer and the time when it was read; `None` when there has been no answer yet.
    pub answer: Option<(Arc<V>, Timestamp)>,
    /// Why the answer is not new; `None` when it is new.
    pub why: Option<NoNewAnswer>,
}

/// Answers of one type, by question.
pub struct AnswerCache<K, V> {
    state: Arc<Mutex<State<K, V>>>,
    health: Arc<Outage>,
}

struct State<K, V> {
    kept: VecDeque<Kept<K, V>>,
    flights: Vec<(K, Arc<Flight<V>>)>,
}

struct Kept<K, V> {
    question: K,
    answer: Arc<V>,
    taken: Timestamp,
    clock: Clock,
}

/// An answer and the time when it was read, or the reason for a failure.
type Landed<V> = Result<(Arc<V>, Timestamp), NoAnswer>;

/// A running query and its result, shared by all requests that wait for it.
struct Flight<V> {
    landed: Mutex<Option<Landed<V>>>,
    bell: Condvar,
}

/// Locks a mutex. A poisoned lock is used as it is: every change is one assignment, so no change is half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Clone + PartialEq + Send + 'static, V: Send + Sync + 'static> AnswerCache<K, V> {
    /// Makes an empty cache.
    pub fn new(health: Arc<Outage>) -> Self {
        AnswerCache { state: Arc::new(Mutex::new(State { kept: VecDeque::new(), flights: Vec::new() })), health }
    }

    /// Returns a new answer if it comes in time, else the last one with the reason. `load` gets the time at which the
    /// query starts.
    pub fn get(
        &self,
        question: &K,
        look: impl FnOnce(Timestamp) -> Result<V, NoAnswer> + Send + 'static,
    ) -> CachedAnswer<V> {
        let flight = {
            let mut state = lock(&self.state);
            if let Some(since) = self.health.outage() {
                return state.last(question, NoNewAnswer::Away { since });
            }
            if let Some(fresh) = state.find(question).filter(|kept| kept.clock.elapsed() < FRESH) {
                return CachedAnswer { answer: Some((Arc::clone(&fresh.answer), fresh.taken)), why: None };
            }
            match state.flights.iter().find(|(asked, _)| asked == question) {
                Some((_, flight)) => Arc::clone(flight),
                None if state.flights.len() >= FLIGHTS => return state.last(question, NoNewAnswer::Slow),
                None => self.launch(&mut state, question, look),
            }
        };
        match flight.wait() {
            Some(Ok((answer, taken))) => CachedAnswer { answer: Some((answer, taken)), why: None },
            Some(Err(failure)) => lock(&self.state).last(question, self.why(failure)),
            None => lock(&self.state).last(question, NoNewAnswer::Slow),
        }
    }

    /// Returns the cached answer if it is not older than `age`. It starts no query.
    pub fn peek(&self, question: &K, age: Duration) -> Option<(Arc<V>, Timestamp)> {
        let state = lock(&self.state);
        let kept = state.find(question).filter(|kept| kept.clock.elapsed() <= age)?;
        Some((Arc::clone(&kept.answer), kept.taken))
    }

    /// Removes an answer, so that the next request reads a change that was just made.
    pub fn forget(&self, question: &K) {
        lock(&self.state).kept.retain(|kept| kept.question != *question);
    }

    fn why(&self, failure: NoAnswer) -> NoNewAnswer {
        match failure {
            NoAnswer::Away(_) => NoNewAnswer::Away { since: self.health.outage().unwrap_or_else(|| self.health.now()) },
            NoAnswer::Slow => NoNewAnswer::Slow,
            NoAnswer::Refused(remedy) => NoNewAnswer::Refused(remedy),
        }
    }

    /// Starts a query on a thread of its own, so that a database that accepts the connection and then hangs delays no
    /// other request.
    fn launch(
        &self,
        state: &mut State<K, V>,
        question: &K,
        look: impl FnOnce(Timestamp) -> Result<V, NoAnswer> + Send + 'static,
    ) -> Arc<Flight<V>> {
        let flight = Arc::new(Flight { landed: Mutex::new(None), bell: Condvar::new() });
        state.flights.push((question.clone(), Arc::clone(&flight)));
        let (shelf, health) = (Arc::clone(&self.state), Arc::clone(&self.health));
        let (asked, landing) = (question.clone(), Arc::clone(&flight));
        std::thread::spawn(move || {
            health.agree();
            let now = health.now();
            let result = catch_unwind(AssertUnwindSafe(|| look(now)))
                .unwrap_or_else(|_| Err(NoAnswer::Refused("The answer could not be read; the log says why".into())));
            if let Err(failure) = &result {
                health.failed(failure);
            }
            let result = result.map(|answer| (Arc::new(answer), now));
            let mut state = lock(&shelf);
            state.flights.retain(|(_, other)| !Arc::ptr_eq(other, &landing));
            if let Ok((answer, taken)) = &result {
                state.keep(asked, Arc::clone(answer), *taken);
            }
            drop(state);
            *lock(&landing.landed) = Some(result);
            landing.bell.notify_all();
        });
        flight
    }
}

impl<K: PartialEq, V> State<K, V> {
    fn find(&self, question: &K) -> Option<&Kept<K, V>> {
        self.kept.iter().find(|kept| kept.question == *question)
    }

    fn last(&self, question: &K, why: NoNewAnswer) -> CachedAnswer<V> {
        let answer = self.find(question).map(|kept| (Arc::clone(&kept.answer), kept.taken));
        CachedAnswer { answer, why: Some(why) }
    }

    fn keep(&mut self, question: K, answer: Arc<V>, taken: Timestamp) {
        self.kept.retain(|kept| kept.question != question);
        self.kept.push_front(Kept { question, answer, taken, clock: Clock::now() });
        self.kept.truncate(KEPT);
    }
}

impl<V> Flight<V> {
    /// Waits for the result; returns `None` when it does not come in time. The query continues, and later requests get
    /// its result.
    fn wait(&self) -> Option<Landed<V>> {
        let landed = lock(&self.landed);
        let waited = self.bell.wait_timeout_while(landed, PATIENCE, |landed| landed.is_none());
        let (landed, _) = waited.unwrap_or_else(PoisonError::into_inner);
        landed.as_ref().map(|result| result.as_ref().map(|(v, at)| (Arc::clone(v), *at)).map_err(Clone::clone))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn shelf() -> AnswerCache<u8, u32> {
        AnswerCache::new(Arc::new(Outage::new(Timestamp::now, Duration::from_millis(5))))
    }

    #[test]
    fn an_outage_gives_the_last_answer_with_its_date() {
        let shelf = shelf();
        let (_, taken) = shelf.get(&1, |_| Ok(7)).answer.unwrap();
        std::thread::sleep(FRESH);
        let got = shelf.get(&1, |_| Err(NoAnswer::Away("refused".into())));
        assert_eq!(got.answer.map(|(v, at)| (*v, at)), Some((7, taken)));
        assert!(matches!(got.why, Some(NoNewAnswer::Away { .. })));
        assert!(shelf.get(&2, |_| Ok(1)).answer.is_none(), "nobody asks again while the outage is known");
    }

    #[test]
    fn a_question_that_hangs_is_given_up_in_time_and_its_late_answer_is_kept() {
        let shelf = shelf();
        let start = Clock::now();
        let got = shelf.get(&1, |_| {
            std::thread::sleep(PATIENCE + Duration::from_millis(200));
            Ok(9)
        });
        assert!(got.answer.is_none() && got.why == Some(NoNewAnswer::Slow));
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        let late = shelf.get(&1, |_| Ok(10));
        assert_eq!(late.answer.map(|(v, _)| *v), Some(9));
    }

    #[test]
    fn those_who_ask_the_same_at_once_share_one_look() {
        let (shelf, looks) = (Arc::new(shelf()), Arc::new(AtomicUsize::new(0)));
        let ask = || {
            let (shelf, looks) = (Arc::clone(&shelf), Arc::clone(&looks));
            std::thread::spawn(move || {
                let got = shelf.get(&1, move |_| {
                    looks.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(50));
                    Ok(1)
                });
                *got.answer.unwrap().0
            })
        };
        let threads = (0..20).map(|_| ask()).collect::<Vec<_>>();
        assert!(threads.into_iter().all(|t| t.join().unwrap() == 1));
        assert_eq!(looks.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_panic_in_a_look_is_a_refusal() {
        let got = shelf().get(&1, |_| panic!("on purpose"));
        assert!(matches!(got.why, Some(NoNewAnswer::Refused(_))));
    }
}
