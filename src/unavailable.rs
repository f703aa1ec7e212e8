//! A service that cannot be reached. All rooms use this type. They report it in the same words, and no caller has to read
//! a message to know which service it is.

use std::fmt;

/// A service that this program needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// The database PostgreSQL.
    Postgresql,
    /// The Kafka cluster.
    Kafka,
}

impl Service {
    /// Returns the text that precedes the time at which an outage began.
    pub fn unreachable_since(self) -> String {
        format!("{self} has been unreachable since ")
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
    /// The service.
    pub what: Service,
    /// Error of the last attempt, for the log.
    pub cause: String,
}

impl Unavailable {
    /// Creates an error for PostgreSQL.
    pub fn postgresql(cause: impl Into<String>) -> Unavailable {
        Unavailable { what: Service::Postgresql, cause: cause.into() }
    }

    /// Creates an error for Kafka.
    pub fn kafka(cause: impl Into<String>) -> Unavailable {
        Unavailable { what: Service::Kafka, cause: cause.into() }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is unreachable: {}", self.what, self.cause)
    }
}
