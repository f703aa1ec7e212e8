//! A service that cannot be reached. One type for all rooms, so that each says it in the same words, and so that no caller has to
//! read a message to know what it is about.

use std::fmt;

/// A service that this program needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// The database.
    Postgresql,
    /// The cluster.
    Kafka,
}

impl Service {
    /// The beginning of a sentence that ends with a time.
    pub fn unreachable_since(self) -> String {
        format!("{self} is unreachable since ")
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Service::Postgresql => "PostgreSQL",
            Service::Kafka => "Kafka",
        })
    }
}

/// A service that cannot be reached now, or is starting or stopping: worth waiting for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// Which.
    pub what: Service,
    /// What the last attempt met, for the log.
    pub cause: String,
}

impl Unavailable {
    /// The database.
    pub fn postgresql(cause: impl Into<String>) -> Unavailable {
        Unavailable { what: Service::Postgresql, cause: cause.into() }
    }

    /// The cluster.
    pub fn kafka(cause: impl Into<String>) -> Unavailable {
        Unavailable { what: Service::Kafka, cause: cause.into() }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is unreachable: {}", self.what, self.cause)
    }
}
