//! Settings as used: typed, complete, and consistent with one another. Field names are the keys of the schema,
//! whose sentences are not repeated here.
#![allow(missing_docs)]

pub mod base;
pub mod network;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::event::{Fields, Timestamp};

/// A string that never shows itself.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text, for the one who must send it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { "\"***\"" })
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub kafka: KafkaSettings,
    pub topics: TopicSettings,
    pub fields: Fields,
    pub postgres: PostgresSettings,
    pub migrate: MigrateSettings,
    pub service: ServiceSettings,
    pub metrics: MetricsSettings,
    pub log: LogSettings,
    pub producer: ProducerSettings,
    pub detector: DetectorSettings,
    pub sink: SinkSettings,
    pub dashboard: DashboardSettings,
    pub marks: ReviewSettings,
}

#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSettings {
    pub bootstrap_servers: String,
    pub properties: BTreeMap<String, String>,
}

impl fmt::Debug for KafkaSettings {
    /// Without the properties, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka").field("bootstrap_servers", &self.bootstrap_servers).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicSettings {
    pub raw_events: String,
    pub anomalies: String,
    pub dead_letter: String,
    pub state: String,
    pub partitions: i32,
    pub replication: i32,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresSettings {
    pub host: String,
    pub port: u16,
    pub dbname: String,
    pub user: String,
    pub password: Secret,
    pub password_file: String,
    pub schema: String,
    pub sslmode: String,
    pub sslrootcert: String,
    pub sslcert: String,
    pub sslkey: String,
    #[serde(deserialize_with = "duration")]
    pub connect_timeout: Duration,
    #[serde(deserialize_with = "duration")]
    pub statement_timeout: Duration,
    #[serde(deserialize_with = "duration")]
    pub retention: Duration,
    #[serde(deserialize_with = "duration")]
    pub retention_delay: Duration,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigrateSettings {
    pub user: String,
    pub password: Secret,
    pub password_file: String,
    pub reader: String,
    pub marker: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSettings {
    #[serde(deserialize_with = "duration")]
    pub ready_timeout: Duration,
    #[serde(deserialize_with = "duration")]
    pub drain_timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsSettings {
    pub listen: ListenAddress,
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

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    pub target: String,
    pub level: String,
    pub anomalies_per_second: u32,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProducerSettings {
    pub source: SourceKind,
    pub devices: u64,
    pub rate: f64,
    pub seed: u64,
    #[serde(deserialize_with = "time")]
    pub start: Option<Timestamp>,
    #[serde(deserialize_with = "step")]
    pub step: Option<Duration>,
    pub anomaly_rate: f64,
    pub count: u64,
    pub file: String,
    pub format: FileFormat,
    pub decimal_comma: bool,
    pub speed: f64,
    #[serde(deserialize_with = "duration")]
    pub max_pause: Duration,
    #[serde(deserialize_with = "duration")]
    pub interval: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    Generate,
    Replay,
    Host,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// By the extension, then by the first characters
    Auto,
    /// One JSON object a line
    Jsonl,
    /// One JSON array of objects, or objects printed over several lines
    Json,
    /// A table with a header line; cells are separated by a comma, semicolon, tab or vertical bar
    Csv,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectorSettings {
    pub window: usize,
    pub threshold: f64,
    pub min_samples: usize,
    pub min_std_dev: f64,
    pub min_relative_std_dev: f64,
    pub method: String,
    pub context: usize,
    pub on_reject: OnReject,
    pub workers: usize,
    pub delivery: Delivery,
    pub group: String,
    pub instance: String,
    pub start: StartPosition,
    pub state: StateKeeping,
    pub history: i64,
    #[serde(deserialize_with = "duration")]
    pub snapshot_interval: Duration,
    pub max_series: usize,
    #[serde(deserialize_with = "duration")]
    pub idle_after: Duration,
    #[serde(deserialize_with = "duration")]
    pub commit_interval: Duration,
    pub commit_events: usize,
    #[serde(deserialize_with = "duration")]
    pub session_timeout: Duration,
    pub stop_leaves: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnReject {
    DeadLetter,
    Drop,
    Fail,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    ExactlyOnce,
    AtLeastOnce,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateKeeping {
    Topic,
    History,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartPosition {
    Earliest,
    Latest,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkSettings {
    pub enabled: bool,
    pub group: String,
    pub batch: usize,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DashboardSettings {
    pub listen: ListenAddress,
    pub path: String,
    pub hsts: Hsts,
    #[serde(deserialize_with = "duration")]
    pub refresh: Duration,
    pub tls_certificate: String,
    pub tls_key: String,
    pub users: String,
    #[serde(deserialize_with = "duration")]
    pub session_idle: Duration,
    #[serde(deserialize_with = "duration")]
    pub session_life: Duration,
    pub proxy_header: String,
    #[serde(deserialize_with = "list")]
    pub proxy_addresses: Vec<String>,
    #[serde(deserialize_with = "list")]
    pub operators: Vec<String>,
    pub insecure: bool,
    pub console: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReviewSettings {
    pub user: String,
    pub password: Secret,
    pub password_file: String,
}

/// Whether browsers are to refuse this host over plain HTTP from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hsts {
    /// On port 443.
    Auto,
    /// Over any encrypted connection.
    On,
    /// Never.
    Off,
}

/// Names with commas between them.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

impl Settings {
    /// What decides a verdict.
    pub fn detection(&self) -> crate::detect::DetectionSettings {
        let d = &self.detector;
        crate::detect::DetectionSettings {
            window: d.window,
            min_samples: d.min_samples,
            method: d.method.clone(),
            threshold: d.threshold,
            min_std_dev: d.min_std_dev,
            min_relative_std_dev: d.min_relative_std_dev,
            context: d.context,
            max_series: d.max_series,
            idle_after: u32::try_from(d.idle_after.as_secs()).ok().filter(|seconds| *seconds > 0),
        }
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    humantime::parse_duration(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

fn step<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    humantime::parse_duration(&text).map(Some).map_err(serde::de::Error::custom)
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    Ok(Timestamp::parse_rfc3339(&String::deserialize(deserializer)?))
}
