//! A cache of answers from the archive. Requests for the same answer at the same time share one query. No request
//! waits longer than [`ANSWER_TIMEOUT`]; after that it gets the last answer with the reason. The cache knows neither HTTP nor
//! the meaning of the answers.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant as Clock};

use super::outage::Outage;
use crate::archive::NoAnswer;
use crate::event::Timestamp;

/// Longest time that a request waits for an answer.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_millis(1500);
/// Age up to which an answer is reused: fifty open pages cause one query.
const MAX_AGE: Duration = Duration::from_millis(800);
/// Number of answers kept; the oldest is removed first.
const MAX_ANSWERS: usize = 24;
/// Maximum number of queries that run at the same time. Requests that would start another one are answered as slow.
const MAX_RUNNING: usize = 16;

/// Why there is no new answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoNewAnswer {
    /// The database is not reachable.
    Unavailable {
        /// When the outage was noticed.
        since: Timestamp,
    },
    /// The database did not answer in time.
    Slow,
    /// The database refused the query; contains the remedy.
    Refused(String),
}

/// What the cache returns for a key.
#[derive(Debug)]
pub(crate) struct CachedAnswer<V> {
    /// The newest answer and the time when it was read; `None` when there has been no answer yet.
    pub answer: Option<(Arc<V>, Timestamp)>,
    /// Why the answer is not new; `None` when it is new.
    pub why: Option<NoNewAnswer>,
}

/// Answers of one type, by key.
pub(crate) struct AnswerCache<K, V> {
    state: Arc<Mutex<CacheState<K, V>>>,
    health: Arc<Outage>,
}

struct CacheState<K, V> {
    kept: VecDeque<Kept<K, V>>,
    running: Vec<(K, Arc<RunningQuery<V>>)>,
}

struct Kept<K, V> {
    key: K,
    answer: Arc<V>,
    taken: Timestamp,
    clock: Clock,
}

/// An answer and the time when it was read, or the reason for a failure.
type QueryResult<V> = Result<(Arc<V>, Timestamp), NoAnswer>;

/// A running query and its result, shared by all requests that wait for it.
struct RunningQuery<V> {
    result: Mutex<Option<QueryResult<V>>>,
    done: Condvar,
}

/// Locks a mutex. A poisoned lock is used as it is: every change is one assignment, so no change is half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Clone + PartialEq + Send + 'static, V: Send + Sync + 'static> AnswerCache<K, V> {
    /// Makes a cache without answers.
    pub(crate) fn new(health: Arc<Outage>) -> Self {
        AnswerCache { state: Arc::new(Mutex::new(CacheState { kept: VecDeque::new(), running: Vec::new() })), health }
    }

    /// Returns a new answer if it comes in time, else the last one with the reason. `load` gets the time at which the
    /// query starts.
    pub(crate) fn get(
        &self,
        key: &K,
        load: impl FnOnce(Timestamp) -> Result<V, NoAnswer> + Send + 'static,
    ) -> CachedAnswer<V> {
        let query = {
            let mut state = lock(&self.state);
            if let Some(since) = self.health.outage() {
                return state.last(key, NoNewAnswer::Unavailable { since });
            }
            if let Some(fresh) = state.find(key).filter(|kept| kept.clock.elapsed() < MAX_AGE) {
                return CachedAnswer { answer: Some((Arc::clone(&fresh.answer), fresh.taken)), why: None };
            }
            match state.running.iter().find(|(other, _)| other == key) {
                Some((_, query)) => Arc::clone(query),
                None if state.running.len() >= MAX_RUNNING => return state.last(key, NoNewAnswer::Slow),
                None => self.start(&mut state, key, load),
            }
        };
        match query.wait() {
            Some(Ok((answer, taken))) => CachedAnswer { answer: Some((answer, taken)), why: None },
            Some(Err(failure)) => lock(&self.state).last(key, self.why(failure)),
            None => lock(&self.state).last(key, NoNewAnswer::Slow),
        }
    }

    /// Returns the cached answer if it is not older than `age`. It starts no query.
    pub(crate) fn peek(&self, key: &K, age: Duration) -> Option<(Arc<V>, Timestamp)> {
        let state = lock(&self.state);
        let kept = state.find(key).filter(|kept| kept.clock.elapsed() <= age)?;
        Some((Arc::clone(&kept.answer), kept.taken))
    }

    /// Removes the answers of some keys, so that the next request reads a change that was just made.
    pub(crate) fn forget(&self, is_changed: impl Fn(&K) -> bool) {
        lock(&self.state).kept.retain(|kept| !is_changed(&kept.key));
    }

    fn why(&self, failure: NoAnswer) -> NoNewAnswer {
        match failure {
            NoAnswer::Unavailable(_) => {
                NoNewAnswer::Unavailable { since: self.health.outage().unwrap_or_else(|| self.health.now()) }
            }
            NoAnswer::Slow => NoNewAnswer::Slow,
            NoAnswer::Refused(remedy) => NoNewAnswer::Refused(remedy),
        }
    }

    /// Starts a query on a thread of its own, so that a database that accepts the connection and then hangs delays no
    /// other request.
    fn start(
        &self,
        state: &mut CacheState<K, V>,
        key: &K,
        load: impl FnOnce(Timestamp) -> Result<V, NoAnswer> + Send + 'static,
    ) -> Arc<RunningQuery<V>> {
        let query = Arc::new(RunningQuery { result: Mutex::new(None), done: Condvar::new() });
        state.running.push((key.clone(), Arc::clone(&query)));
        let (cache, health) = (Arc::clone(&self.state), Arc::clone(&self.health));
        let (key, running) = (key.clone(), Arc::clone(&query));
        let ask = move || {
            health.agree();
            let now = health.now();
            let result = catch_unwind(AssertUnwindSafe(|| load(now)))
                .unwrap_or_else(|_| Err(NoAnswer::Refused("The answer could not be read; see the log".into())));
            if let Err(failure) = &result {
                health.failed(failure);
            }
            let result = result.map(|answer| (Arc::new(answer), now));
            let mut state = lock(&cache);
            state.running.retain(|(_, other)| !Arc::ptr_eq(other, &running));
            if let Ok((answer, taken)) = &result {
                state.keep(key, Arc::clone(answer), *taken);
            }
            drop(state);
            *lock(&running.result) = Some(result);
            running.done.notify_all();
        };
        if let Err(error) = std::thread::Builder::new().name("query".into()).spawn(ask) {
            tracing::warn!(%error, "a query is answered as slow, because the system provides no thread");
            state.running.retain(|(_, other)| !Arc::ptr_eq(other, &query));
            *lock(&query.result) = Some(Err(NoAnswer::Slow));
        }
        query
    }
}

impl<K: PartialEq, V> CacheState<K, V> {
    fn find(&self, key: &K) -> Option<&Kept<K, V>> {
        self.kept.iter().find(|kept| kept.key == *key)
    }

    fn last(&self, key: &K, why: NoNewAnswer) -> CachedAnswer<V> {
        let answer = self.find(key).map(|kept| (Arc::clone(&kept.answer), kept.taken));
        CachedAnswer { answer, why: Some(why) }
    }

    fn keep(&mut self, key: K, answer: Arc<V>, taken: Timestamp) {
        self.kept.retain(|kept| kept.key != key);
        self.kept.push_front(Kept { key, answer, taken, clock: Clock::now() });
        self.kept.truncate(MAX_ANSWERS);
    }
}

impl<V> RunningQuery<V> {
    /// Waits for the result; returns `None` when it does not come in time. The query continues, and later requests get
    /// its result.
    fn wait(&self) -> Option<QueryResult<V>> {
        let result = lock(&self.result);
        let waited = self.done.wait_timeout_while(result, ANSWER_TIMEOUT, |result| result.is_none());
        let (result, _) = waited.unwrap_or_else(PoisonError::into_inner);
        result.as_ref().map(|result| result.as_ref().map(|(v, at)| (Arc::clone(v), *at)).map_err(Clone::clone))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn cache() -> AnswerCache<u8, u32> {
        AnswerCache::new(Arc::new(Outage::new(Timestamp::now, Duration::from_millis(5))))
    }

    #[test]
    fn an_outage_gives_the_last_answer_with_its_date() {
        let cache = cache();
        let (_, taken) = cache.get(&1, |_| Ok(7)).answer.unwrap();
        std::thread::sleep(MAX_AGE);
        let got = cache.get(&1, |_| Err(NoAnswer::Unavailable(crate::unavailable::Unavailable::postgresql("refused"))));
        assert_eq!(got.answer.map(|(v, at)| (*v, at)), Some((7, taken)));
        assert!(matches!(got.why, Some(NoNewAnswer::Unavailable { .. })));
        assert!(cache.get(&2, |_| Ok(1)).answer.is_none(), "no query is made while the outage is known");
    }

    #[test]
    fn a_query_that_hangs_times_out_and_its_late_answer_is_kept() {
        let cache = cache();
        let start = Clock::now();
        let got = cache.get(&1, |_| {
            std::thread::sleep(ANSWER_TIMEOUT + Duration::from_millis(200));
            Ok(9)
        });
        assert!(got.answer.is_none() && got.why == Some(NoNewAnswer::Slow));
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        let late = cache.get(&1, |_| Ok(10));
        assert_eq!(late.answer.map(|(v, _)| *v), Some(9));
    }

    #[test]
    fn requests_for_the_same_question_share_one_query() {
        let (cache, loads) = (Arc::new(cache()), Arc::new(AtomicUsize::new(0)));
        let ask = || {
            let (cache, loads) = (Arc::clone(&cache), Arc::clone(&loads));
            std::thread::spawn(move || {
                let got = cache.get(&1, move |_| {
                    loads.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(50));
                    Ok(1)
                });
                *got.answer.unwrap().0
            })
        };
        let threads = (0..20).map(|_| ask()).collect::<Vec<_>>();
        assert!(threads.into_iter().all(|t| t.join().unwrap() == 1));
        assert_eq!(loads.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_panic_in_a_query_is_a_refusal() {
        let cache = cache();
        // On a busy machine the thread of the query may start too late.
        let mut whys = (0..20).map(|_| cache.get(&1, |_| panic!("on purpose")).why);
        let why = whys.find(|why| *why != Some(NoNewAnswer::Slow)).flatten();
        assert!(matches!(why, Some(NoNewAnswer::Refused(_))), "{why:?}");
    }
}
