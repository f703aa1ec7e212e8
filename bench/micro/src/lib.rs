//! What both measurements work on: events as a producer sends them, and a detector that has seen enough of each series.

use anomaly::anomaly::RecordId;
use anomaly::detect::{DetectionSettings, Detector, Verdict};
use anomaly::event::{Decoder, Event, Fields, Parser, RawRecord};
use anomaly::limits::Limits;
use anomaly::method::{Method, create};
use anomaly::series_block::SeriesBlock;

/// Values of events, one for each device, round by round, beginning with some round.
pub fn events(devices: usize, first: usize, rounds: usize) -> Vec<String> {
    let event = |n: usize| {
        let (device, value) = (n % devices, noise(n));
        format!(
            r#"{{"device_id":"device-{device:07}","metric_name":"temperature","metric_value":{value:.6},"timestamp":"2026-11-23T17:{:02}:{:02}.{:03}Z"}}"#,
            n / 60_000 % 60,
            n / 1_000 % 60,
            n % 1_000,
        )
    };
    (devices * first..devices * (first + rounds)).map(event).collect()
}

/// Not abnormal, and without a pattern.
pub fn noise(n: usize) -> f64 {
    20.0 + ((n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / (1 << 24) as f64
}

/// A parser with the default fields.
pub fn parser() -> Parser {
    Parser::new(&Fields::default()).expect("default settings are valid")
}

/// A decoder that has seen an event of this form.
pub fn decoder(example: &str) -> Decoder {
    let mut decoder = Decoder::new(&Fields::default());
    let _ = decoder.decode(&RawRecord::value(example.as_bytes()));
    decoder
}

/// All of them decoded.
pub fn decoded(texts: &[String]) -> Vec<Event<'_>> {
    let mut decoder = Decoder::new(&Fields::default());
    texts.iter().filter_map(|text| decoder.decode(&RawRecord::value(text.as_bytes())).ok()?.into_first()).collect()
}

/// A detector whose series have full windows.
pub fn learnt(devices: usize) -> Detector {
    let mut detector = Detector::new(DetectionSettings { max_series: usize::MAX, ..DetectionSettings::default() })
        .expect("a rule that exists");
    for round in 0..100 {
        // A round at a time: all events together would take gigabytes.
        let texts = events(devices, round, 1);
        judge(&mut detector, &decoded(&texts));
        detector.commit();
    }
    detector
}

/// Judges the events as the loop does, in blocks; how many were normal.
pub fn judge(detector: &mut Detector, events: &[Event<'_>]) -> usize {
    let mut source = RecordId { topic: "raw_events".into(), generation: 0, partition: 0, offset: 0, index: 0 };
    detector.within(0, |judge| {
        let mut normal = 0;
        for block in events.chunks(64) {
            judge.approach(block.iter());
            for event in block {
                source.offset += 1;
                judge.pass(event.timestamp.map(|at| at.millis()));
                normal += usize::from(judge.judge(&source, event, event.timestamp, || None) == Verdict::Normal);
            }
        }
        normal
    })
}

/// A full window of a hundred values.
pub fn window() -> SeriesBlock {
    let mut window = SeriesBlock::named("device-0000001");
    (0..250).for_each(|n| {
        window.push(noise(n), 100);
    });
    window
}

/// The method of the default settings.
pub fn method() -> Box<dyn Method> {
    create(&Limits::default()).expect("the default method")
}
