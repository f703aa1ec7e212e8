//! Types of single settings that are not numbers or plain strings.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Deserializer};

use crate::config::declare::{choice, plain};

/// A string that is never printed.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Returns the text, for authentication only.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { "\"***\"" })
    }
}

/// Setting of an address to bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenAddress {
    /// The default address of the role.
    Default,
    /// No address is bound at all.
    Off,
    /// Exactly this address is bound.
    At(SocketAddr),
}

impl ListenAddress {
    /// Returns the address, or `None` if it is off.
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
    /// Source of the producer's events.
    SourceKind {
        /// Synthetic devices with injected anomalies.
        Generate = "generate",
        /// A file or standard input.
        Replay = "replay",
        /// The metrics of this machine itself.
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
    /// The treatment of a rejected record.
    OnReject {
        /// The record goes to the dead-letter topic.
        DeadLetter = "dead_letter",
        /// The record is counted and dropped.
        Drop = "drop",
        /// The detector stops with exit code 65.
        Fail = "fail",
    }
}

choice! {
    /// The treatment of records that cannot be read, for example because their batch is damaged.
    OnDamage {
        /// The partition waits until they can be read.
        Stop = "stop",
        /// The batch is skipped, and its records are counted.
        Skip = "skip",
    }
}

choice! {
    /// The way in which anomalies reach the topic.
    Delivery {
        /// In transactions together with the offsets.
        ExactlyOnce = "exactly_once",
        /// Without transactions, so a crash may repeat anomalies.
        AtLeastOnce = "at_least_once",
    }
}

choice! {
    /// The way in which windows survive a restart.
    StateKeeping {
        /// As snapshots in the state topic.
        Topic = "topic",
        /// The detector reads the input again.
        History = "history",
    }
}

choice! {
    /// The position from which a group without offsets and state begins.
    StartPosition {
        /// The oldest record of the partition.
        Earliest = "earliest",
        /// The next record that arrives.
        Latest = "latest",
    }
}

choice! {
    /// Whether responses ask browsers to use only TLS for this host.
    Hsts {
        /// If the dashboard uses port 443.
        Auto = "auto",
        /// If the connection is encrypted, on any port.
        On = "on",
        /// Responses never ask for it.
        Off = "off",
    }
}
