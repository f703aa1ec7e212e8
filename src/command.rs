//! The commands of `anomaly`, one file each. Each runs once and ends.

pub mod check;
pub mod demo;
pub mod dlq;
pub mod generate;
pub mod migrate;
pub mod offsets;
pub mod output;
pub mod passwd;
pub mod score;
pub mod status;
pub mod topics;
