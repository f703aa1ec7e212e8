//! Types of single settings that are no numbers or strings.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Deserializer};

use crate::config::declare::{choice, plain};

/// A string that never shows itself.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text, for sending it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { "\"***\"" })
    }
}

/// An address to bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenAddress {
    /// The role's own default.
    Default,
    /// Nothing is bound.
    Off,
    /// This one.
    At(SocketAddr),
}

impl ListenAddress {
    /// The address, or `None` when off.
    pub fn or(self, default: SocketAddr) -> Option<SocketAddr> {
        match self {
            ListenAddress::Default => Some(default),
            ListenAddress::Off => None,
            ListenAddress::At(address) => Some(address),
        }
    }
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "" => Ok(ListenAddress::Default),
            "off" => Ok(ListenAddress::Off),
            text => text.parse().map(ListenAddress::At).map_err(serde::de::Error::custom),
        }
    }
}

plain!(Secret, ListenAddress);

choice! {
    /// Where the producer's events come from.
    SourceKind {
        /// Synthetic devices.
        Generate = "generate",
        /// A file.
        Replay = "replay",
        /// This machine's own metrics.
        Host = "host",
    }
}

choice! {
    /// Format of a file of events.
    #[derive(clap::ValueEnum)]
    FileFormat {
        /// By the extension, then by the first characters
        Auto = "auto",
        /// One JSON object a line
        Jsonl = "jsonl",
        /// One JSON array of objects, or objects printed over several lines
        Json = "json",
        /// A table with a header line; cells are separated by a comma, semicolon, tab or vertical bar
        Csv = "csv",
    }
}

choice! {
    /// What happens to a rejected record.
    OnReject {
        /// It goes to the dead-letter topic.
        DeadLetter = "dead_letter",
        /// It is counted.
        Drop = "drop",
        /// The detector stops with exit code 65.
        Fail = "fail",
    }
}

choice! {
    /// How anomalies reach the topic.
    Delivery {
        /// In transactions with the offsets.
        ExactlyOnce = "exactly_once",
        /// Without transactions.
        AtLeastOnce = "at_least_once",
    }
}

choice! {
    /// How windows survive a restart.
    StateKeeping {
        /// As snapshots in the state topic.
        Topic = "topic",
        /// The input is read again.
        History = "history",
    }
}

choice! {
    /// Where a group without offsets and state begins.
    StartPosition {
        /// With the oldest record.
        Earliest = "earliest",
        /// With the next record.
        Latest = "latest",
    }
}

choice! {
    /// Whether responses ask browsers to use only TLS for this host.
    Hsts {
        /// On port 443.
        Auto = "auto",
        /// Over any encrypted connection.
        On = "on",
        /// Never.
        Off = "off",
    }
}
