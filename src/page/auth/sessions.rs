//! Sessions on the server, so that a logout ends them at once. The browser has only a random token; the server stores
//! only its hash.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::passwords::UserFingerprint;

/// Identifies a session to the server. Unlike the token it opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionKey([u8; 32]);

impl SessionKey {
    /// Returns the key of a token's session.
    pub(crate) fn of(token: &str) -> SessionKey {
        SessionKey(hash(token))
    }
}

/// Maximum number of sessions. Beyond it, the session that was unused for longest ends.
const MAX_SESSIONS: usize = 10_000;

/// Limits of a session's lifetime.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lifetime {
    /// Idle timeout of a session.
    pub idle: Duration,
    /// Maximum lifetime of a session.
    pub whole: Duration,
}

struct Session {
    name: String,
    user: UserFingerprint,
    begun: Instant,
    used: Instant,
}

/// The open sessions, by the hash of their token.
pub(crate) struct Sessions {
    lifetime: Lifetime,
    open: Mutex<HashMap<[u8; 32], Session>>,
}

impl Sessions {
    /// Creates the list without open sessions.
    pub(crate) fn new(lifetime: Lifetime) -> Sessions {
        Sessions { lifetime, open: Mutex::default() }
    }

    /// Opens a session of a user whose line has this fingerprint; returns its token. `None` if the system provides no
    /// random numbers.
    pub(crate) fn begin(&self, name: &str, user: UserFingerprint) -> Option<String> {
        let mut bytes = [0; 32];
        openssl::rand::rand_bytes(&mut bytes).ok()?;
        let token = bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        let now = Instant::now();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, session| self.lifetime.covers(session));
        if open.len() >= MAX_SESSIONS
            && let Some(oldest) = open.iter().min_by_key(|(_, session)| session.used).map(|(hash, _)| *hash)
        {
            open.remove(&oldest);
        }
        open.insert(hash(&token), Session { name: name.to_owned(), user, begun: now, used: now });
        Some(token)
    }

    /// Returns the user of an open session and the fingerprint of the line with which the user logged in, and resets
    /// the idle timeout.
    pub(crate) fn find(&self, token: &str) -> Option<(String, UserFingerprint)> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let session = open.get_mut(&hash(token)).filter(|session| self.lifetime.covers(session))?;
        session.used = Instant::now();
        Some((session.name.clone(), session.user))
    }

    /// Returns the same as [`find`](Self::find), and leaves the idle timeout as it is.
    pub(crate) fn peek(&self, key: &SessionKey) -> Option<(String, UserFingerprint)> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let session = open.get(&key.0).filter(|session| self.lifetime.covers(session))?;
        Some((session.name.clone(), session.user))
    }

    /// Ends the session of a token.
    pub(crate) fn end(&self, token: &str) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&hash(token));
    }
}

impl Lifetime {
    fn covers(&self, session: &Session) -> bool {
        session.used.elapsed() < self.idle && session.begun.elapsed() < self.whole
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}
