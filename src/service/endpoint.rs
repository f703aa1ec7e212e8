//! Content of `/healthz`, `/readyz` and `/metrics`. The role runs the HTTP server.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::exposition::ExpositionFormat;
use crate::foreign;
use crate::health::Health;
use crate::meter::{Meter, ProcessRole};

/// A status code, a content type and a body.
pub(crate) type EndpointAnswer = (u16, &'static str, String);

const TEXT: &str = "text/plain; charset=utf-8";

/// Answers requests from the current health and counters.
pub(crate) struct Endpoint {
    health: Arc<Health>,
    registry: Registry,
}

/// Gauges that are read from the health when a client requests the metrics.
#[derive(Debug)]
struct Gauges {
    health: Arc<Health>,
    /// Whether the components of this role have partitions.
    has_partitions: bool,
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let gauges = [
            ("anomaly_lag", "Events between the committed offset and the end of the partition"),
            ("anomaly_committed_offset", "Next offset to judge, as committed"),
            ("anomaly_series", "Series in memory"),
        ];
        for (name, help) in gauges.into_iter().filter(|_| self.has_partitions) {
            let gauge = ConstGauge::new(0i64);
            let mut family = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            for component in self.health.components() {
                for (partition, status) in component.partitions() {
                    let value = match name {
                        "anomaly_lag" => status.lag(),
                        "anomaly_series" => i64::try_from(status.series).ok(),
                        _ => status.confirmed(status.committed),
                    };
                    let labels = [("worker", component.name.clone()), ("partition", partition.to_string())];
                    if let Some(value) = value {
                        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
                    }
                }
            }
        }
        let one = ConstGauge::new(1i64);
        let help = "1 while a condition is active; the manual explains the codes";
        let mut family = encoder.encode_descriptor("anomaly_condition", help, None, one.metric_type())?;
        for component in self.health.components() {
            for held in component.conditions() {
                let labels = [
                    ("component", component.name.as_str()),
                    ("code", held.code.as_str()),
                    ("severity", held.severity.as_str()),
                ];
                one.encode(family.encode_family(&labels)?)?;
            }
        }
        let ready = ConstGauge::new(i64::from(self.health.is_ready()));
        ready.encode(encoder.encode_descriptor("anomaly_ready", "1 when the role serves", None, ready.metric_type())?)
    }
}

impl Endpoint {
    /// Creates the endpoint of a role.
    pub(crate) fn new(process: ProcessRole, health: Arc<Health>, meter: &Meter) -> Self {
        let mut registry = Registry::default();
        meter.register(process, &mut registry);
        let has_partitions = process == ProcessRole::Detector;
        registry.register_collector(Box::new(Gauges { health: health.clone(), has_partitions }));
        let build = Info::new([("version", env!("CARGO_PKG_VERSION")), ("role", process.as_str())]);
        registry.register("anomaly_build", "Version and role", build);
        Endpoint { health, registry }
    }

    /// Answers a path, in the format that `accept` prefers; `None` for an unknown path.
    pub(crate) fn answer(&self, path: &str, accept: &str) -> Option<EndpointAnswer> {
        match path {
            // A process that answers is alive.
            "/healthz" => Some((200, TEXT, "ok\n".into())),
            "/readyz" => {
                let code = if self.health.is_ready() { 200 } else { 503 };
                Some((code, TEXT, format!("{}\n", foreign::line(&self.health.summary()))))
            }
            "/metrics" => {
                let mut text = String::new();
                match prometheus_client::encoding::text::encode(&mut text, &self.registry) {
                    Ok(()) => {
                        let format = ExpositionFormat::wanted(accept);
                        Some((200, format.content_type(), format.write(text)))
                    }
                    Err(e) => Some((500, TEXT, format!("{e}\n"))),
                }
            }
            _ => None,
        }
    }
}
