//! A PostgreSQL, or a pooler, that accepts connections and stops answering: every user of it fails within its limit,
//! and works again when the server answers.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use anomaly::archive::Archive;
use anomaly::config::Settings;
use anomaly::event::Timestamp;
use anomaly::health::{Health, Tally};
use anomaly::ledger::{Ledger, LedgerError, LedgerPosition, SinkRecord};
use anomaly::store::heartbeat::Heartbeat;
use anomaly::store::ledger::PostgresLedger;
use anomaly::store::{self, PostgresArchive};

use crate::common::Case;
use crate::dashboard::{ago, anomaly};

/// Longest time that a busy machine may need for a call whose limits are about two seconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(120);

/// A relay that passes a number of bytes of the server's answers on each connection, then nothing.
struct Relay {
    port: u16,
    budget: Arc<AtomicUsize>,
    /// Number of bytes of the answers so far after each piece, on any connection.
    steps: Arc<Mutex<Vec<usize>>>,
}

impl Relay {
    fn new(case: &Case) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let far = format!("{}:{}", case.parts.get("POSTGRES__HOST"), case.parts.get("POSTGRES__PORT"));
        let (budget, steps) = (Arc::new(AtomicUsize::new(usize::MAX)), Arc::<Mutex<Vec<usize>>>::default());
        let (left, seen) = (Arc::clone(&budget), Arc::clone(&steps));
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let far = TcpStream::connect(&far).unwrap();
                let (mut from, mut to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
                let (left, seen) = (Arc::clone(&left), Arc::clone(&seen));
                std::thread::spawn(move || answers(far, near, &left, &seen));
            }
        });
        Relay { port, budget, steps }
    }
}

fn answers(mut far: TcpStream, mut near: TcpStream, budget: &AtomicUsize, steps: &Mutex<Vec<usize>>) {
    let (mut passed, mut is_frozen, mut bytes) = (0, false, [0; 4096]);
    while let Ok(count @ 1..) = far.read(&mut bytes) {
        // The pieces after the budget are lost, but the connection stays open.
        let left = if is_frozen { 0 } else { budget.load(Ordering::SeqCst).saturating_sub(passed) };
        is_frozen = left < count;
        let count = count.min(left);
        passed += count;
        if count > 0 && near.write_all(&bytes[..count]).is_err() {
            break;
        }
        steps.lock().unwrap().push(passed);
    }
    let _ = near.shutdown(std::net::Shutdown::Both);
}

/// Returns the settings of a case, through the relay. Each timeout is `limit`.
fn through(relay: &Relay, case: &Case, limit: Duration) -> Settings {
    let mut settings = crate::heartbeat::settings(case);
    (settings.postgres.host, settings.postgres.port) = ("127.0.0.1".into(), relay.port);
    (settings.postgres.connect_timeout, settings.postgres.statement_timeout) = (limit, limit);
    settings
}

/// Part of the program that uses the database, which keeps its connection. It returns the error as text.
type User = Box<dyn FnMut() -> Result<(), String> + Send>;
/// Creates a user without a connection.
type NewUser = fn(&Settings) -> User;

fn sink(settings: &Settings) -> User {
    let mut ledger = PostgresLedger::new(&settings.postgres, "frozen", "anomalies");
    Box::new(move || {
        let mut work = || -> Result<(), LedgerError> {
            ledger.begin(0, &LedgerPosition { next: 0, topic_id: None })?;
            let next = ledger.positions(&[0])?[&0].next;
            let record = SinkRecord {
                partition: 0,
                offset: next,
                key: None,
                value: Vec::new(),
                detected_at: Timestamp::now(),
                anomaly: Ok(anomaly("frozen", next, ago(60), 99.0)),
            };
            ledger.write(&[record], &[(0, (next, next + 1))].into()).map(drop)
        };
        work().map_err(|e| e.to_string())
    })
}

fn heartbeat(settings: &Settings) -> User {
    let mut heartbeat = Heartbeat::new(&settings.postgres, "g", "t", "frozen", ("hash", serde_json::json!({})));
    let part = Health::default().component("worker-0");
    Box::new(move || {
        part.cover([((1, 0), Tally { judged: 1, ..Tally::default() })]);
        heartbeat.write(std::slice::from_ref(&part)).map_err(|e| e.to_string())
    })
}

fn pages(settings: &Settings) -> User {
    let pool = || store::pool(&settings.postgres, "postgres", 2).unwrap();
    let archive = PostgresArchive::new(&settings.postgres, pool(), pool(), false);
    Box::new(move || archive.ping().map_err(|e| e.to_string()))
}

fn follower(settings: &Settings) -> User {
    let pool = || store::pool(&settings.postgres, "postgres", 2).unwrap();
    let archive = PostgresArchive::new(&settings.postgres, pool(), pool(), false);
    let mut open = None;
    Box::new(move || {
        let follower = match &mut open {
            Some(follower) => follower,
            None => open.insert(archive.follow().map_err(|e| e.to_string())?),
        };
        let done = follower.position().map(drop).and_then(|()| follower.wait(Duration::from_millis(10)));
        if done.is_err() {
            open = None;
        }
        done.map_err(|e| e.to_string())
    })
}

/// `anomaly migrate` over the migrated schema, and what `anomaly check` reads.
fn commands(settings: &Settings) -> User {
    let postgres = settings.postgres.clone();
    Box::new(move || {
        let (mut client, answers) = store::connect_adjustable(&postgres).map_err(|e| e.to_string())?;
        store::migrate::state(&mut client).map_err(|e| e.to_string())?;
        store::migrate::migrate(&mut client, &answers, &postgres).map(drop).map_err(|e| e.message)
    })
}

/// Maintenance of the partitions, up to the step that may take ten minutes.
fn maintenance(settings: &Settings) -> User {
    let postgres = settings.postgres.clone();
    Box::new(move || store::maintain::maintain(&postgres, Duration::ZERO).map(drop))
}

/// Calls the user in a thread of its own. It must return in time, whatever the result.
fn call(name: &str, mut user: User) -> (User, Result<(), String>) {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let result = user();
        sender.send((user, result))
    });
    receiver.recv_timeout(BUSY_TIMEOUT).unwrap_or_else(|_| panic!("{name} waits without a deadline"))
}

/// Calls the user until it succeeds. On a busy machine the short limits of the test may end a call although the server
/// works.
fn insist(name: &str, mut user: User) -> User {
    let start = Instant::now();
    loop {
        let (same, result) = call(name, user);
        match result {
            Ok(()) => return same,
            Err(e) => assert!(start.elapsed() < BUSY_TIMEOUT, "{name}: {e}"),
        }
        user = same;
    }
}

/// Freezes a new user after each piece of the server's answers.
fn freeze(name: &str, case: &Case, new: NewUser, most: usize) {
    let relay = Relay::new(case);
    let settings = through(&relay, case, Duration::from_millis(700));
    // The first connection of all is also probed.
    drop(insist(name, new(&settings)));
    relay.steps.lock().unwrap().clear();
    drop(insist(name, new(&settings)));
    let mut steps = relay.steps.lock().unwrap().clone();
    steps.push(0);
    steps.sort_unstable();
    steps.dedup();
    let mut failed = 0;
    // Before a piece and within a piece, by turns.
    for (cut, within) in steps.into_iter().zip([0, 3].into_iter().cycle()).take(most) {
        let cut = cut + within;
        relay.budget.store(cut, Ordering::SeqCst);
        let (user, frozen) = call(name, new(&settings));
        failed += usize::from(frozen.is_err());
        // The server is back, and a connection that was given up is replaced.
        relay.budget.store(usize::MAX, Ordering::SeqCst);
        drop(insist(&format!("{name} after {cut} bytes, {frozen:?}"), user));
    }
    assert!(failed >= 3, "{name} was frozen {failed} times");
}

#[test]
fn each_user_of_a_database_that_stops_answering_at_any_step_returns_in_time_and_works_when_it_is_back() {
    let case = Case::new("frozen");
    let users: [(&str, NewUser, usize); 6] = [
        ("sink", sink, usize::MAX),
        ("heartbeat", heartbeat, usize::MAX),
        ("pages", pages, usize::MAX),
        ("follower", follower, usize::MAX),
        ("migrate and check", commands, usize::MAX),
        // The maintenance may take ten minutes, but making its connection may not.
        ("maintenance", maintenance, 4),
    ];
    std::thread::scope(|scope| {
        for (name, new, most) in users {
            let case = &case;
            scope.spawn(move || freeze(name, case, new, most));
        }
    });
}

#[test]
fn a_connection_that_waits_for_a_notification_longer_than_the_limit_stays_open() {
    let case = Case::new("idle");
    let relay = Relay::new(&case);
    let limit = Duration::from_secs(1);
    let settings = through(&relay, &case, limit);
    drop(insist("follower", follower(&settings)));
    let pool = || store::pool(&settings.postgres, "postgres", 1).unwrap();
    let archive = PostgresArchive::new(&settings.postgres, pool(), pool(), false);
    // On a busy machine connecting may take longer than the limit, but not each time.
    let start = Instant::now();
    let mut follower = loop {
        match archive.follow() {
            Ok(follower) => break follower,
            Err(e) => assert!(start.elapsed() < BUSY_TIMEOUT, "{e}"),
        }
    };
    assert_eq!(follower.wait(limit * 5), Ok(()));
}
