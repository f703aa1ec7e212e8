//! Builds the record of an abnormal value.

use crate::anomaly::{Anomaly, Direction, RecordId, SCHEMA_VERSION, Severity};
use crate::event::{Event, Timestamp};
use crate::method::Judgement;
use crate::policy::ResolvedPolicy;
use crate::series_block::SeriesBlock;

/// Returns the record of a judgement.
#[allow(clippy::too_many_arguments)] // The record is the sum of these; a struct of them would be the record.
pub(super) fn record(
    policy: &ResolvedPolicy,
    context: usize,
    block: &SeriesBlock,
    figures: Judgement,
    source: &RecordId,
    event: &Event<'_>,
    at: Option<Timestamp>,
    label: Option<String>,
) -> Anomaly {
    let is_critical = figures.score >= policy.method.critical_from(figures.threshold);
    Anomaly {
        schema_version: SCHEMA_VERSION,
        kind: "point".into(),
        device_id: event.device_id.to_string(),
        metric_name: event.metric_name.as_deref().map(str::to_owned),
        metric_value: event.metric_value,
        timestamp: at,
        method: policy.id.name.clone(),
        score: figures.score,
        threshold: Some(figures.threshold),
        expected: Some(figures.expected),
        lower: figures.lower,
        upper: figures.upper,
        mean: figures.mean,
        std_dev: figures.std_dev,
        z_score: figures.z_score,
        evidence: figures.evidence.into_iter().flatten().map(|(name, number)| (name.to_owned(), number)).collect(),
        direction: if event.metric_value > figures.expected { Direction::High } else { Direction::Low },
        severity: if is_critical { Severity::Critical } else { Severity::Warning },
        label,
        window_count: block.len() as u32,
        window: block.newest(context),
        reason: figures.reason.map(str::to_owned),
        return_period_events: figures.return_period_events,
        return_period_seconds: figures.return_period_seconds,
        source: source.clone(),
    }
}
