//! The queue of password checks. Only a few run at once, because each needs much memory and processor time. The others
//! wait, and the networks take turns. So many logins from some networks do not prevent those from others.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Maximum number of passwords that are checked at once. Each check needs 19 MiB and some tens of milliseconds of a
/// core.
const MAX_RUNNING: usize = 2;
/// Maximum number of checks that wait. Each occupies one of the 16 threads that also answer with pages.
const MAX_WAITING: usize = 8;
/// Number of checks for which a network's turn is remembered.
const REMEMBERED: usize = 64;

/// Error: too many passwords are being checked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HashingBusy;

#[derive(Default)]
struct Queue {
    running: usize,
    /// Number and network of each waiting check, in the order of arrival.
    waiting: Vec<(u64, IpAddr)>,
    /// Networks of the last checks, the newest last.
    served: VecDeque<IpAddr>,
    /// Number of the next check that waits.
    next: u64,
}

/// The queue of password checks.
pub(crate) struct PasswordQueue {
    queue: Mutex<Queue>,
    changed: Condvar,
    patience: Duration,
}

/// Permission to check a password, until it is dropped.
pub(crate) struct HashingTurn<'a>(&'a PasswordQueue);

impl Drop for HashingTurn<'_> {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
        self.0.changed.notify_all();
    }
}

impl PasswordQueue {
    /// Creates an empty queue, in which a check waits at most for `patience`.
    pub(crate) fn new(patience: Duration) -> PasswordQueue {
        PasswordQueue { queue: Mutex::default(), changed: Condvar::new(), patience }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn of a check that a network asks for.
    pub(crate) fn wait(&self, network: IpAddr) -> Result<HashingTurn<'_>, HashingBusy> {
        let deadline = Instant::now() + self.patience;
        let mut queue = self.lock();
        let number = queue.join(network).ok_or(HashingBusy)?;
        self.changed.notify_all();
        loop {
            if !queue.is_waiting(number) {
                return Err(HashingBusy);
            }
            if queue.running < MAX_RUNNING && queue.first() == Some(number) {
                queue.start(number);
                self.changed.notify_all();
                return Ok(HashingTurn(self));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                queue.leave(number);
                return Err(HashingBusy);
            }
            queue = self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Queue {
    /// Adds a check; returns its number. In a full queue it replaces the newest check of the network with the most
    /// checks. Of several such networks it takes the one that was served last. It replaces a check only if that network
    /// has more checks than its own would then have, or as many and was served later. Otherwise it returns `None`.
    fn join(&mut self, network: IpAddr) -> Option<u64> {
        if self.waiting.len() >= MAX_WAITING {
            let count = |of: IpAddr| self.waiting.iter().filter(|(_, other)| *other == of).count();
            let claim = |(number, of): &(u64, IpAddr)| (count(*of), self.last(*of), *number);
            let (number, of) = *self.waiting.iter().max_by_key(|check| claim(check))?;
            if (count(of), self.last(of)) <= (count(network) + 1, self.last(network)) {
                return None;
            }
            self.leave(number);
        }
        self.next += 1;
        self.waiting.push((self.next, network));
        Some(self.next)
    }

    /// Returns the position of a network's last check among the remembered ones.
    fn last(&self, network: IpAddr) -> Option<usize> {
        self.served.iter().rposition(|other| *other == network)
    }

    fn is_waiting(&self, number: u64) -> bool {
        self.waiting.iter().any(|(other, _)| *other == number)
    }

    fn leave(&mut self, number: u64) {
        self.waiting.retain(|(other, _)| *other != number);
    }

    /// Returns the number of the next check: of the network whose last check was the longest ago.
    fn first(&self) -> Option<u64> {
        self.waiting.iter().min_by_key(|(number, network)| (self.last(*network), *number)).map(|(number, _)| *number)
    }

    fn start(&mut self, number: u64) {
        if let Some((_, network)) = self.waiting.iter().find(|(other, _)| *other == number) {
            self.served.push_back(*network);
        }
        if self.served.len() > REMEMBERED {
            self.served.pop_front();
        }
        self.leave(number);
        self.running += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn queue_of(networks: &[u8]) -> Queue {
        let mut queue = Queue::default();
        networks.iter().for_each(|network| assert!(queue.join(ip(*network)).is_some()));
        queue
    }

    /// Returns the networks in the order in which their checks start.
    fn order(queue: &mut Queue) -> Vec<IpAddr> {
        let next = |queue: &mut Queue| {
            let number = queue.first()?;
            let network = queue.waiting.iter().find(|(other, _)| *other == number)?.1;
            queue.start(number);
            Some(network)
        };
        std::iter::from_fn(|| next(queue)).collect()
    }

    #[test]
    fn the_networks_take_turns() {
        let mut queue = queue_of(&[1, 1, 1, 1, 2, 2, 3]);
        assert_eq!(order(&mut queue), [1, 2, 3, 1, 2, 1, 1].map(ip));
        // The next turn is not that of the network that was served last.
        queue.join(ip(1));
        queue.join(ip(3));
        assert_eq!(order(&mut queue), [3, 1].map(ip));
    }

    #[test]
    fn a_full_queue_takes_a_network_with_fewer_checks_in() {
        let mut queue = queue_of(&[1; MAX_WAITING]);
        assert_eq!(queue.join(ip(1)), None);
        for network in 2..6 {
            assert!(queue.join(ip(network)).is_some() && queue.waiting.len() == MAX_WAITING, "{network}");
        }
        assert!(queue.is_waiting(1), "the oldest check keeps its place");
        let mut queue = queue_of(&(1..=MAX_WAITING as u8).collect::<Vec<_>>());
        assert_eq!(queue.join(ip(99)), None, "each network has one check and had none before");
        queue.served.extend([ip(3), ip(5), ip(4)]);
        assert!(queue.join(ip(99)).is_some() && !queue.is_waiting(4) && queue.is_waiting(3));
    }

    #[test]
    fn at_most_two_run_and_one_that_waits_in_vain_leaves() {
        let queue = PasswordQueue::new(Duration::from_millis(50));
        let turns = [queue.wait(ip(1)).ok().unwrap(), queue.wait(ip(1)).ok().unwrap()];
        assert_eq!(queue.wait(ip(2)).err(), Some(HashingBusy));
        assert!(queue.lock().waiting.is_empty());
        drop(turns);
        assert!(queue.wait(ip(2)).is_ok());
        assert_eq!(queue.lock().running, 0);
    }

    #[test]
    fn under_a_flood_of_other_networks_every_login_gets_its_turn() {
        let queue = PasswordQueue::new(Duration::from_secs(120));
        let is_over = std::sync::atomic::AtomicBool::new(false);
        let check = |network: IpAddr| queue.wait(network).map(|_turn| std::thread::sleep(Duration::from_millis(2)));
        std::thread::scope(|scope| {
            for client in 0..2 * MAX_WAITING as u8 {
                let (check, is_over) = (&check, &is_over);
                scope.spawn(move || {
                    while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                        let _ = check(ip(client % 4));
                    }
                });
            }
            for login in 0..25 {
                assert!(check(ip(100 + login)).is_ok(), "login {login}");
            }
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}
