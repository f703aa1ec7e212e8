//! Nanoseconds for each layer of the hot path; `make bench-micro`.

use std::hint::black_box;

use anomaly::event::RawRecord;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn layers(criterion: &mut Criterion) {
    let texts = micro::events(1_000, 0, 1);
    let mut group = criterion.benchmark_group("event");
    group.throughput(Throughput::Elements(texts.len() as u64));
    let parser = micro::parser();
    group.bench_function("decode, any form", |bench| {
        bench.iter(|| texts.iter().filter(|text| parser.read(&RawRecord::value(text.as_bytes())).is_ok()).count())
    });
    let mut decoder = micro::decoder(&texts[0]);
    group.bench_function("decode, the form of the last", |bench| {
        bench.iter(|| texts.iter().filter(|text| decoder.decode(&RawRecord::value(text.as_bytes())).is_ok()).count())
    });
    // Rounds enough that no window is full of one value.
    for (devices, rounds) in [(1_000, 200), (1_000_000, 3)] {
        let texts = micro::events(devices, 100, rounds);
        let events = micro::decoded(&texts);
        let mut detector = micro::learnt(devices);
        let mut parts = events.chunks(10_000.min(devices)).cycle();
        group.throughput(Throughput::Elements(10_000.min(devices) as u64));
        group.bench_function(format!("judge, {devices} series"), |bench| {
            bench.iter(|| {
                let normal = micro::judge(&mut detector, parts.next().unwrap_or_default());
                detector.commit();
                normal
            })
        });
    }
    group.finish();
    let (mut window, method, mut n) = (micro::window(), micro::method(), 0);
    criterion.bench_function("window: push", |bench| {
        bench.iter(|| {
            n += 1;
            window.push(micro::noise(n), 100)
        })
    });
    criterion.bench_function("method: screen", |bench| {
        bench.iter(|| method.certainly_normal(black_box(&window), black_box(20.5)))
    });
    criterion.bench_function("method: exact figures", |bench| {
        bench.iter(|| method.judge(black_box(&window), &[], black_box(20.5), None))
    });
}

criterion_group!(benches, layers);
criterion_main!(benches);
