//! The same in instructions, which no other load on the machine can change: more than the stored numbers is an error.
//! `make bench-count`; bench/README.md says which toolchain they belong to.

use std::hint::black_box;

use anomaly::detect::Detector;
use anomaly::event::RawRecord;
use anomaly::event::{Decoder, Event, Parser};
use anomaly::method::Method;
use anomaly::series_block::SeriesBlock;
use gungraun::{Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main};

/// Instructions of a thousand events, of which five of a hundred more are tolerated.
fn stored(instructions: u64) -> LibraryBenchmarkConfig {
    LibraryBenchmarkConfig::default()
        .tool(Callgrind::default().hard_limits([(EventKind::Ir, instructions + instructions / 20)]))
        .clone()
}

fn texts() -> Vec<String> {
    micro::events(1_000, 100, 1)
}

fn texts_and_parser() -> (Vec<String>, Parser) {
    (texts(), micro::parser())
}

fn texts_and_decoder() -> (Vec<String>, Decoder) {
    let texts = texts();
    let decoder = micro::decoder(&texts[0]);
    (texts, decoder)
}

#[library_benchmark(config = stored(1_917_764), setup = texts_and_parser)]
fn decode_any_form((texts, parser): (Vec<String>, Parser)) -> usize {
    black_box(&texts).iter().filter(|text| parser.read(&RawRecord::value(text.as_bytes())).is_ok()).count()
}

#[library_benchmark(config = stored(1_085_699), setup = texts_and_decoder)]
fn decode_the_form_of_the_last((texts, mut decoder): (Vec<String>, Decoder)) -> usize {
    black_box(&texts).iter().filter(|text| decoder.decode(&RawRecord::value(text.as_bytes())).is_ok()).count()
}

fn learnt() -> (Detector, Vec<Event<'static>>) {
    // For the process' life, which is short. Ten rounds, since a window makes its sums afresh now and then.
    (micro::learnt(100), micro::decoded(micro::events(100, 100, 10).leak()))
}

#[library_benchmark(config = stored(880_072), setup = learnt)]
fn judge((mut detector, events): (Detector, Vec<Event<'static>>)) -> (Detector, usize) {
    let normal = micro::judge(&mut detector, black_box(&events));
    (detector, normal)
}

#[library_benchmark(config = stored(139_603), setup = micro::window)]
fn push(mut window: SeriesBlock) -> SeriesBlock {
    (0..1_000).for_each(|n| {
        window.push(micro::noise(n), 100);
    });
    window
}

fn with_method() -> (SeriesBlock, Box<dyn Method>) {
    (micro::window(), micro::method())
}

#[library_benchmark(config = stored(105_212), setup = with_method)]
fn screen((window, method): (SeriesBlock, Box<dyn Method>)) -> usize {
    (0..1_000).filter(|n| method.certainly_normal(black_box(&window), micro::noise(*n))).count()
}

#[library_benchmark(config = stored(12_901_212), setup = with_method)]
fn exact_figures((window, method): (SeriesBlock, Box<dyn Method>)) -> usize {
    (0..1_000).filter(|n| method.judge(black_box(&window), &[], micro::noise(*n), None).is_some()).count()
}

library_benchmark_group!(
    name = layers;
    benchmarks = decode_any_form, decode_the_form_of_the_last, judge, push, screen, exact_figures
);
main!(library_benchmark_groups = layers);
