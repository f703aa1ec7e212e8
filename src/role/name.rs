//! Names of the roles.

use clap::ValueEnum;

use crate::config::schema::ShippedFile;

/// A role of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Publish events: synthetic ones, those of a file, or metrics of this machine
    Producer,
    /// Judge events; write anomalies to Kafka and PostgreSQL
    Detector,
    /// Serve the pages
    Dashboard,
}

impl Role {
    /// Returns the settings file of the role.
    pub fn file(self) -> ShippedFile {
        match self {
            Role::Producer => ShippedFile::Producer,
            Role::Detector => ShippedFile::Detector,
            Role::Dashboard => ShippedFile::Dashboard,
        }
    }

    /// Returns the name of the role.
    pub fn name(self) -> &'static str {
        match self {
            Role::Producer => "producer",
            Role::Detector => "detector",
            Role::Dashboard => "dashboard",
        }
    }
}
