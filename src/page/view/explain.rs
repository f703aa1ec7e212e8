//! The page of one anomaly: the value in its window, and the arithmetic of the verdict, repeated from the stored
//! window.

mod arithmetic;
mod return_period;

use serde::Serialize;

use super::format::{DASH, DisplayedNumbers, age, counted, duration, grouped, number, signed, times};
use super::links::{anomaly_address, anomaly_path, anomaly_url, device_url, segment};
use super::notice;
use super::review::ReviewForm;
use super::row::AnomalyRow;
use super::text::{TimeForm, named, shown, timed};
use crate::anomaly::{Anomaly, Direction, FIRST_GENERATION, RecordId};
use crate::archive::{AnomalyAddress, Archive, Filter, NoAnswer, ReviewRecord, StoredAnomaly};
use crate::event::Timestamp;
use crate::http::Response;
use crate::method::reason_text;
use crate::page::cached_page::{Answer, Page};
use crate::page::chart::explain as drawing;
use crate::page::frame::Frame;
use crate::page::query::{self, PageQuery};
use crate::page::respond;
use crate::page::site::{Site, Template};
use arithmetic::{ArithmeticStep, proof, steps};

/// Number of earlier anomalies of the series that are listed.
const EARLIER_ROWS: u32 = 6;
/// Maximum number of later values that are drawn.
const AFTER: usize = 40;
/// Number of preceding values that must be equal in a later window.
const CONTEXT: usize = 3;
/// Number of other anomalies on each side in time, and their maximum distance in milliseconds.
const AROUND: (u32, i64) = (4, 300_000);

/// The page of one anomaly, `/anomalies/TOPIC/PARTITION/OFFSET/INDEX/KIND?generation=GENERATION`
pub(crate) struct Explain;

impl Page for Explain {
    type Key = AnomalyAddress;
    type Data = Option<ExplainData>;

    const NAV: &'static str = "anomalies";
    const ACCEPTS: &'static [&'static [&'static str]] = query::ANOMALY;
    const TEMPLATE: Template = ("explain.html", include_str!("../templates/explain.html"));

    fn key(path: &[&str], query: &PageQuery) -> Option<AnomalyAddress> {
        match path {
            ["anomalies", topic, partition, offset, index, kind] => {
                anomaly_address([topic, partition, offset, index, kind], query.generation)
            }
            _ => None,
        }
    }

    fn title(address: &AnomalyAddress) -> (String, String) {
        ("Anomaly".to_owned(), anomaly_path(address))
    }

    fn load(archive: &dyn Archive, key: &AnomalyAddress, now: Timestamp) -> Result<Option<ExplainData>, NoAnswer> {
        load(archive, key, now)
    }

    fn render(site: &Site, frame: Frame<'_>, answer: &Answer<'_, Explain>) -> Response {
        if let Some(data) = answer.data {
            return show(site, frame, data);
        }
        let frame = Frame { refresh: 0, ..frame };
        let text = "No anomaly is recorded for this record; it may be older than the retention time.";
        notice::page(site, 404, &frame, "There is no such anomaly.", text)
    }
}

/// Data that the page loads from the archive.
pub(crate) struct ExplainData {
    record: StoredAnomaly,
    /// Earlier anomalies of the same series.
    earlier: Vec<StoredAnomaly>,
    /// Values after the anomaly, if the record of a later anomaly contains them.
    after: Vec<f64>,
    /// Other anomalies at about the same time.
    around: Vec<StoredAnomaly>,
    /// Reviews of the anomaly, newest first.
    reviews: Vec<ReviewRecord>,
}

/// Loads the data from the archive; `None` if the anomaly does not exist.
fn load(archive: &dyn Archive, address: &AnomalyAddress, _now: Timestamp) -> Result<Option<ExplainData>, NoAnswer> {
    let Some(record) = archive.find(address)? else { return Ok(None) };
    let anomaly = &record.anomaly;
    let series = Filter {
        devices: vec![anomaly.device_id.clone()],
        metrics: anomaly.metric_name.iter().cloned().collect(),
        ..Filter::default()
    };
    let before = crate::archive::PageKey::of(anomaly);
    let earlier = archive.newest(&series, before.as_ref(), EARLIER_ROWS)?.records;
    let after = match &before {
        // The newest comes first, so the last one is nearest and has most of the values in between.
        Some(key) => archive.newer(&series, key, 1)?.records.last().and_then(|later| after(anomaly, &later.anomaly)),
        None => None,
    };
    let around = around(archive, &record)?;
    let reviews = archive.reviews_of(&anomaly.id())?;
    Ok(Some(ExplainData { record, earlier, after: after.unwrap_or_default(), around, reviews }))
}

/// Returns the values after an anomaly, from the window of a later anomaly of its series. They follow the place where
/// that window has the same values as here. `None` if there is no such place, or if there are two.
fn after(anomaly: &Anomaly, later: &Anomaly) -> Option<Vec<f64>> {
    let is_same = |a: &f64, b: &f64| a.to_bits() == b.to_bits();
    let source = RecordId { offset: anomaly.source.offset, index: anomaly.source.index, ..later.source.clone() };
    if source != anomaly.source || later.source.offset <= anomaly.source.offset {
        return None;
    }
    let fits = |at: &usize| {
        let known = (*at).min(anomaly.window.len());
        let (theirs, ours) = (&later.window[at - known..*at], &anomaly.window[anomaly.window.len() - known..]);
        let is_known = known >= CONTEXT.min(anomaly.window.len());
        is_known
            && is_same(&later.window[*at], &anomaly.metric_value)
            && theirs.iter().zip(ours).all(|(a, b)| is_same(a, b))
    };
    let mut places = (0..later.window.len()).filter(fits);
    let (place, None) = (places.next()?, places.next()) else { return None };
    Some(later.window[place + 1..].iter().take(AFTER).copied().collect())
}

/// Returns the nearest anomalies before and after, in the order of time.
fn around(archive: &dyn Archive, record: &StoredAnomaly) -> Result<Vec<StoredAnomaly>, NoAnswer> {
    let (most, reach) = AROUND;
    let Some(key) = crate::archive::PageKey::of(&record.anomaly) else { return Ok(Vec::new()) };
    let reached = |millis| Timestamp::from_millis(key.time.millis() + millis);
    let after = Filter { to: reached(reach), ..Filter::default() };
    let before = Filter { from: reached(-reach), ..Filter::default() };
    // Both queries begin at the record itself; the newest comes first.
    let mut around = archive.newer(&after, &key, most)?.records;
    around.extend(archive.newest(&before, Some(&key), most)?.records);
    around.retain(|other| other.anomaly.source != record.anomaly.source);
    around.reverse();
    Ok(around)
}

#[derive(Serialize)]
struct ExplanationContent {
    heading: String,
    device: String,
    device_url: String,
    metric: String,
    severity: &'static str,
    when: String,
    left: String,
    plot: String,
    right: String,
    count: String,
    after: String,
    values: Vec<[String; 2]>,
    steps: Vec<ArithmeticStep>,
    proof: String,
    is_proven: bool,
    source: Vec<[String; 2]>,
    command: Option<String>,
    rule: Vec<[String; 2]>,
    json: String,
    console: String,
    review: ReviewForm,
    around: Vec<Near>,
    rows: Vec<AnomalyRow>,
    show_device: bool,
}

#[derive(Serialize)]
struct Near {
    name: String,
    metric: String,
    url: String,
    severity: &'static str,
    z: String,
    distance: String,
}

/// Renders the page from its data.
fn show(site: &Site, frame: Frame<'_>, data: &ExplainData) -> Response {
    let now = site.now();
    let StoredAnomaly { anomaly, detected_at, .. } = &data.record;
    let figures = DisplayedNumbers::of(anomaly);
    let chart = drawing::draw(anomaly, &figures, drawing::ChartSize::LARGE, &data.after);
    let time = anomaly.timestamp.unwrap_or(*detected_at);
    let delay = detected_at.millis() - time.millis();
    let mut when = format!("{} \u{b7} {}", timed(time, TimeForm::Full, now), age(time, now));
    // Replayed events are judged long after they happened, so their delay has no meaning.
    if (0..60_000).contains(&delay) {
        when += &format!(" \u{b7} detected {} ms after the event", grouped(delay.unsigned_abs()));
    }
    let proof = proof(anomaly);
    let count = anomaly.window.len();
    let heading = heading(anomaly, &figures);
    let content = ExplanationContent {
        heading: heading.clone(),
        device: shown(&anomaly.device_id),
        device_url: device_url(&anomaly.device_id),
        metric: anomaly.metric_name.as_deref().map(shown).unwrap_or_default(),
        severity: anomaly.severity.as_str(),
        when,
        left: chart.left,
        plot: chart.plot,
        right: chart.right,
        count: grouped(count as u64),
        after: match data.after.len() {
            0 => String::new(),
            n => format!("After it: {}, from the record of a later anomaly.", counted(n as u64, "value", "values")),
        },
        values: anomaly
            .window
            .iter()
            .enumerate()
            .map(|(i, x)| [format!("\u{2212}{}", count - i), signed(*x)])
            .collect(),
        steps: steps(anomaly),
        is_proven: proof.is_ok(),
        proof: proof.unwrap_or_else(|reason| reason),
        source: source(&data.record, now),
        command: command(&data.record).map(|command| shown(&command)),
        rule: rule(anomaly),
        json: api_url(anomaly),
        console: console(&site.console, &data.record),
        review: ReviewForm::of(&anomaly.id(), &data.reviews, now),
        around: data.around.iter().map(|other| near(other, time)).collect(),
        rows: AnomalyRow::all(&data.earlier, now),
        show_device: false,
    };
    let frame = Frame { title: heading, ..frame };
    respond::html(site, 200, "explain.html", &frame, &content)
}

fn heading(anomaly: &Anomaly, figures: &DisplayedNumbers) -> String {
    let side = if anomaly.direction == Direction::Low { "below" } else { "above" };
    let (value, count) = (&figures.value, grouped(u64::from(anomaly.window_count)));
    if let Some(text) = anomaly.reason.as_deref().and_then(|reason| reason_text(&anomaly.method, reason)) {
        return format!("{value} {text}");
    }
    match anomaly.z_score {
        Some(_) => {
            format!(
                "{value} is {} standard deviations {side} what the last {count} values predict",
                times(anomaly.z_score)
            )
        }
        None if anomaly.std_dev == Some(0.0) => {
            format!("{value} is {side} {}, which all of the last {count} values were", figures.expected)
        }
        None => format!("{value} is {side} the expected {} to {}", figures.lower, figures.upper),
    }
}

/// Returns the facts about the record: names, and values as HTML.
fn source(record: &StoredAnomaly, now: Timestamp) -> Vec<[String; 2]> {
    let StoredAnomaly { anomaly, detected_at, is_newest_generation, .. } = record;
    let source = &anomaly.source;
    let mut lines = vec![["Topic".to_owned(), named(&source.topic)]];
    let earlier = if *is_newest_generation { "" } else { ", an earlier topic of this name" };
    if source.generation != FIRST_GENERATION || !is_newest_generation {
        lines.push(["Generation".to_owned(), format!("{}{earlier}", source.generation)]);
    }
    lines.push(["Partition".to_owned(), source.partition.to_string()]);
    lines.push(["Offset".to_owned(), grouped(source.offset.unsigned_abs())]);
    if source.index > 0 {
        lines.push(["Value in the record".to_owned(), source.index.to_string()]);
    }
    if let Some(time) = anomaly.timestamp {
        lines.push(["Event time".to_owned(), timed(time, TimeForm::Exact, now)]);
    }
    lines.push(["Detected".to_owned(), timed(*detected_at, TimeForm::Exact, now)]);
    lines
}

/// Returns a shell command that prints the record. The topic is quoted if it has special characters. `None` if the record
/// was in an earlier topic: that place has another record now.
fn command(record: &StoredAnomaly) -> Option<String> {
    let source = record.is_newest_generation.then_some(&record.anomaly.source)?;
    let is_plain = source.topic.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    let topic = if is_plain { source.topic.clone() } else { format!("'{}'", source.topic.replace('\'', "'\\''")) };
    Some(format!("kcat -C -b $BROKERS -t {topic} -p {} -o {} -c 1", source.partition, source.offset))
}

/// Returns the URL of the record in the configured console; empty if none is configured, or if the record was in an
/// earlier topic.
fn console(pattern: &str, record: &StoredAnomaly) -> String {
    if !record.is_newest_generation {
        return String::new();
    }
    let source = &record.anomaly.source;
    pattern
        .replace("{topic}", &segment(&source.topic))
        .replace("{partition}", &source.partition.to_string())
        .replace("{offset}", &source.offset.to_string())
}

fn rule(anomaly: &Anomaly) -> Vec<[String; 2]> {
    let mut lines = vec![
        ["Method".to_owned(), shown(&anomaly.method)],
        ["Threshold".to_owned(), anomaly.threshold.map_or_else(|| DASH.to_owned(), signed)],
        ["Values judged against".to_owned(), grouped(u64::from(anomaly.window_count))],
        ["Score".to_owned(), number(anomaly.score, 4)],
    ];
    if let Some(reason) = &anomaly.reason {
        lines.push(["Reason".to_owned(), shown(reason)]);
    }
    lines.extend(return_period::text(anomaly).map(|text| ["Return period".to_owned(), text]));
    if let Some(label) = &anomaly.label {
        lines.push(["Label from the producer".to_owned(), shown(label)]);
    }
    lines
}

/// Returns the API's URL for this anomaly, selected by its device and its millisecond.
fn api_url(anomaly: &Anomaly) -> String {
    let filter = Filter {
        devices: vec![anomaly.device_id.clone()],
        from: anomaly.timestamp,
        to: anomaly.timestamp.and_then(|time| Timestamp::from_millis(time.millis() + 1)),
        ..Filter::default()
    };
    format!("/api/v1/anomalies{}", crate::page::query::PageQuery { filter, ..Default::default() }.query())
}

fn near(other: &StoredAnomaly, time: Timestamp) -> Near {
    let anomaly = &other.anomaly;
    let millis = anomaly.timestamp.unwrap_or(other.detected_at).millis() - time.millis();
    Near {
        name: shown(&anomaly.device_id),
        metric: anomaly.metric_name.as_deref().map(shown).unwrap_or_default(),
        url: anomaly_url(other),
        severity: anomaly.severity.as_str(),
        z: super::format::sigma_of(anomaly),
        distance: match millis {
            -999..=999 => "same time".to_owned(),
            i64::MIN..-999 => format!("\u{2212}{}", duration(-millis)),
            _ => format!("+{}", duration(millis)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::after;
    use crate::anomaly::Anomaly;
    use crate::page::chart::spark::tests::sample;

    #[test]
    fn values_after_an_anomaly_come_from_a_later_window_only_where_it_fits() {
        let first = sample(18.0);
        let later = |window: &[f64]| {
            let mut later = Anomaly { window: window.to_vec(), ..sample(20.0) };
            later.source.offset += 7;
            later
        };
        // 9, 11, 9, 11 came before 18.
        assert_eq!(after(&first, &later(&[11.0, 9.0, 11.0, 18.0, 10.0, 10.5])), Some(vec![10.0, 10.5]));
        assert_eq!(after(&first, &later(&[9.0, 11.0, 9.0, 11.0, 18.0])), Some(vec![]));
        assert_eq!(after(&first, &later(&[18.0, 10.0, 10.5])), None, "too little is known of what was before");
        assert_eq!(after(&first, &later(&[11.0, 9.5, 11.0, 18.0, 10.0])), None);
        let twice = [9.0, 11.0, 9.0, 11.0, 18.0, 9.0, 11.0, 9.0, 11.0, 18.0, 1.0];
        assert_eq!(after(&first, &later(&twice)), None);
        let mut other = later(&[11.0, 9.0, 11.0, 18.0, 10.0]);
        other.source.offset = 1;
        assert_eq!(after(&first, &other), None);
    }
}
