//! Compressed batches that expand to far more memory than the process may use. Good records before and after them are
//! judged, and memory is bounded.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use flate2::{Compress, Compression, FlushCompress};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::common::{Case, Process, Sent, event, wait_for};

const LIMIT: Duration = Duration::from_secs(120);
const MEBIBYTE: usize = 1 << 20;
/// Values of the protocol for the compression of a batch.
const GZIP: u8 = 1;
const SNAPPY: u8 = 2;

fn usual(n: usize, partition: i32) -> impl Iterator<Item = Sent> {
    (0..n).map(move |i| Sent { partition: Some(partition), ..event(&format!("d{}", i % 4), (i % 7) as f64) })
}

fn wait_committed(case: &Case, records: i64) {
    wait_for(&format!("{records} records to have an outcome"), LIMIT, || case.committed() == records);
}

/// Encodes a number of the protocol: zigzag, then 7 bits in each byte.
fn number(number: i64) -> Vec<u8> {
    let (mut rest, mut bytes) = (((number << 1) ^ (number >> 63)) as u64, Vec::new());
    while rest > 0x7f {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

/// Returns the bytes before the value of a record with this number of zeros. The value ends with the byte that counts no
/// headers.
fn head(zeros: usize) -> Vec<u8> {
    let mut record = vec![0, 0, 0, 1];
    record.extend(number(zeros as i64));
    [number((record.len() + zeros + 1) as i64), record].concat()
}

/// Returns the bytes before the value of a header with this number of zeros, in a record with a null value.
fn head_of_null(zeros: usize) -> Vec<u8> {
    let mut record = vec![0, 0, 0, 1, 1, 2, 2, b'h'];
    record.extend(number(zeros as i64));
    [number((record.len() + zeros) as i64), record].concat()
}

/// Packs a record as gzip: its head, mebibytes of zeros, and its tail. The compressed form of one mebibyte is repeated.
fn gzip(head: &[u8], mebibytes: usize, tail: &[u8]) -> Vec<u8> {
    let piece = vec![0; MEBIBYTE];
    let mut stream = Compress::new(Compression::default(), false);
    let mut pack = |data: &[u8], flush| {
        let mut packed = Vec::with_capacity(data.len() / 100 + 1_000);
        stream.compress_vec(data, &mut packed, flush).unwrap();
        packed
    };
    let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    packed.extend(pack(head, FlushCompress::Full));
    packed.extend(pack(&piece, FlushCompress::Full));
    let repeated = pack(&piece, FlushCompress::Full);
    (1..mebibytes).for_each(|_| packed.extend(&repeated));
    packed.extend(pack(tail, FlushCompress::Finish));
    let mut sum = crc32fast::Hasher::new();
    sum.update(head);
    let mut sum_of_piece = crc32fast::Hasher::new();
    sum_of_piece.update(&piece);
    (0..mebibytes).for_each(|_| sum.combine(&sum_of_piece));
    let mut sum_of_tail = crc32fast::Hasher::new();
    sum_of_tail.update(tail);
    sum.combine(&sum_of_tail);
    packed.extend(sum.finalize().to_le_bytes());
    packed.extend(((head.len() + mebibytes * MEBIBYTE + tail.len()) as u32).to_le_bytes());
    packed
}

/// Packs one record with this number of mebibytes of zeros as snappy, in the framing of Java clients.
fn snappy_java(mebibytes: usize) -> Vec<u8> {
    let block = |first: &[u8], length: usize| {
        let mut block = Vec::new();
        let mut rest = first.len() + length;
        while rest > 0x7f {
            block.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        // A literal, then copies of up to 64 bytes of the last byte.
        block.extend([rest as u8, (first.len() as u8 - 1) << 2]);
        block.extend(first);
        let mut left = length;
        while left > 0 {
            let part = left.min(64);
            block.extend([(part as u8 - 1) << 2 | 2, 1, 0]);
            left -= part;
        }
        [&(block.len() as u32).to_be_bytes()[..], &block].concat()
    };
    let mut packed = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    packed.extend(block(&head(mebibytes * MEBIBYTE), 0));
    let repeated = block(&[0], MEBIBYTE - 1);
    (0..mebibytes).for_each(|_| packed.extend(&repeated));
    packed.extend(block(&[0], 0));
    packed
}

/// Computes the checksum of a batch, CRC-32C.
fn checksum(bytes: &[u8]) -> u32 {
    let table = std::array::from_fn::<u32, 256, _>(|at| {
        (0..8).fold(at as u32, |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 })
    });
    !bytes.iter().fold(!0, |sum: u32, byte| sum >> 8 ^ table[(sum as u8 ^ byte) as usize])
}

/// Returns a batch of one record with this packed data.
fn batch(codec: u8, packed: &[u8]) -> Vec<u8> {
    let now = jiff::Timestamp::now().as_millisecond();
    let mut checked = vec![0, codec, 0, 0, 0, 0];
    checked.extend(now.to_be_bytes());
    checked.extend(now.to_be_bytes());
    // Neither an idempotent nor a transactional producer.
    checked.extend([0xff; 14]);
    checked.extend(1_i32.to_be_bytes());
    checked.extend(packed);
    let mut batch = 0_i64.to_be_bytes().to_vec();
    batch.extend((checked.len() as i32 + 9).to_be_bytes());
    batch.extend((-1_i32).to_be_bytes());
    batch.push(2);
    batch.extend(checksum(&checked).to_be_bytes());
    batch.extend(checked);
    batch
}

/// Sends a batch as it is: no client library compresses so much.
fn send_batch(case: &Case, topic: &str, partition: i32, batch: &[u8]) {
    let text = |text: &str| [&(text.len() as i16).to_be_bytes()[..], text.as_bytes()].concat();
    let mut request = [0_i16.to_be_bytes(), 3_i16.to_be_bytes()].concat();
    request.extend(7_i32.to_be_bytes());
    request.extend(text("bomb"));
    // No transaction, acknowledgement by the leader, 60 s, one topic.
    request.extend([0xff, 0xff, 0, 1]);
    request.extend(60_000_i32.to_be_bytes());
    request.extend(1_i32.to_be_bytes());
    request.extend(text(topic));
    request.extend([1_i32.to_be_bytes(), partition.to_be_bytes(), (batch.len() as i32).to_be_bytes()].concat());
    request.extend(batch);
    let mut broker = TcpStream::connect(case.parts.brokers()).unwrap();
    broker.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    broker.write_all(&(request.len() as i32).to_be_bytes()).unwrap();
    broker.write_all(&request).unwrap();
    let mut length = [0; 4];
    broker.read_exact(&mut length).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    broker.read_exact(&mut answer).unwrap();
    // Correlation, topics, name, partitions, partition, then the error.
    let at = 4 + 4 + 2 + topic.len() + 4 + 4;
    assert_eq!(answer[at..at + 2], [0, 0], "the broker's answer: {answer:?}");
}

/// Lets a topic accept batches of 10 MB.
fn accept_large_batches(case: &Case, topic: &str) {
    let admin: AdminClient<DefaultClientContext> = case.client().create().unwrap();
    let config = AlterConfig::new(ResourceSpecifier::Topic(topic)).set("max.message.bytes", "10000000");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answers = runtime.block_on(admin.alter_configs(&[config], &AdminOptions::new())).unwrap();
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

/// Sends a record of zeros with librdkafka.
fn send_zeros(case: &Case, codec: &str, partition: i32, mebibytes: usize) {
    let mut config = case.client();
    config.set("compression.type", codec).set("message.max.bytes", "200000000");
    let producer: BaseProducer = config.create().unwrap();
    let value = vec![0; mebibytes * MEBIBYTE];
    producer.send(BaseRecord::<[u8], [u8]>::to(&case.raw()).partition(partition).payload(&value)).unwrap();
    producer.flush(Duration::from_secs(60)).unwrap();
}

/// Compares the peak of memory with a limit in MiB. The limit of the unit is 2,048 MiB.
fn check_peak(detector: &Process, limit: u64) {
    let peak = detector.mebibytes("VmHWM:");
    eprintln!("peak of memory: {peak} MiB");
    assert!(peak < limit, "{peak} MiB");
}

#[test]
fn gzip_batches_of_960_mb_are_skipped_with_a_dead_letter_each_and_the_records_around_them_are_judged() {
    let mut case = Case::bare("bombs", crate::common::Parts::shared());
    case.set("TOPICS__PARTITIONS", 2);
    case.set("SINK__ENABLED", false);
    case.ok(&["topics"]);
    case.ok(&["migrate"]);
    let raw = case.raw();
    case.produce(usual(50, 0));
    let bomb = batch(GZIP, &gzip(&head(915 * MEBIBYTE), 915, &[0]));
    assert!((900_000..1_000_000).contains(&bomb.len()), "{}", bomb.len());
    for partition in [0, 0, 1, 1] {
        send_batch(&case, &raw, partition, &bomb);
    }
    case.produce(usual(30, 0));
    case.produce(usual(20, 1));
    let began = Instant::now();
    let detector = case.detector("a", &[]);
    wait_committed(&case, 104);
    eprintln!("all records had an outcome after {:?}", began.elapsed());
    check_peak(&detector, 500);
    let words = format!("2 records of {raw} [0] cannot be read, and were skipped (offsets 50 to 51)");
    wait_for("the report of the batches", LIMIT, || {
        detector.get("/readyz").is_some_and(|(status, text)| status == 200 && text.contains(&words))
    });
    assert_eq!(detector.metric("anomaly_records_total{kind=\"skipped\"} "), 4.0);
    assert_eq!(detector.metric("anomaly_rejects_total{kind=\"batch_size\"} "), 4.0);
    let dead_letters = case.read(&case.dlq());
    let place =
        |name| dead_letters.iter().map(|dead_letter| dead_letter.header(name).unwrap_or_default()).collect::<Vec<_>>();
    let mut offsets = place("anomaly.error.offset");
    offsets.sort();
    assert_eq!(offsets, ["0", "1", "50", "51"]);
    assert_eq!(place("anomaly.error.class"), ["batch_size"; 4]);
    assert_eq!(place("anomaly.error.records"), ["1"; 4]);
    assert_eq!((place("anomaly.error.topic"), dead_letters[0].value.clone()), (vec![raw.clone(); 4], None));
    // More of them arrive while the detector is told to stop.
    for partition in [0, 1] {
        send_batch(&case, &raw, partition, &bomb);
    }
    assert!(detector.terminate(Duration::from_secs(10)).success());
    // A restart replays the input, and misses none of the batches.
    let detector = case.detector("a", &[]);
    wait_committed(&case, 106);
    detector.wait_ready();
    let metrics = detector.get("/metrics").unwrap().1;
    assert!(!metrics.contains("code=\"replay_shortfall\""), "{metrics}");
    check_peak(&detector, 500);
    // The dead letters are listed, and a replay names them and sends nothing.
    let list = case.ok(&["dlq", "list"]);
    assert_eq!(list.matches("never: oversized batch").count(), 6, "{list}");
    let replay = case.ok(&["dlq", "replay"]);
    assert!(replay.starts_with("0 dead letters were sent again"), "{replay}");
    let named = "6 are about oversized batches, and do not have their records: ";
    assert!(replay.contains(named) && replay.contains(&format!("from {raw}[1]@22")), "{replay}");
    let check = case.run(&["check", "--connect"]);
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(text.contains("rejected: the batch of offsets 22 to 22 has 1 records in"), "{text}");
}

#[test]
fn batches_of_every_codec_that_expand_beyond_the_limit_are_skipped() {
    let mut case = Case::bare("codecs", crate::common::Parts::shared());
    case.set("TOPICS__PARTITIONS", 1);
    case.set("SINK__ENABLED", false);
    case.ok(&["topics"]);
    case.ok(&["migrate"]);
    let raw = case.raw();
    accept_large_batches(&case, &raw);
    case.produce(usual(40, 0));
    for codec in ["gzip", "snappy", "lz4", "zstd"] {
        send_zeros(&case, codec, 0, 90);
        case.produce(usual(10, 0));
    }
    send_batch(&case, &raw, 0, &batch(SNAPPY, &snappy_java(90)));
    case.produce(usual(10, 0));
    let detector = case.detector("a", &[]);
    wait_committed(&case, 95);
    check_peak(&detector, 500);
    assert_eq!(detector.metric("anomaly_records_total{kind=\"skipped\"} "), 5.0);
    let offsets = case.read(&case.dlq());
    let offsets =
        offsets.iter().filter_map(|dead_letter| dead_letter.header("anomaly.error.offset")).collect::<Vec<_>>();
    assert_eq!(offsets, ["40", "51", "62", "73", "84"]);
}

#[test]
fn many_batches_below_the_limit_share_a_bound_of_memory() {
    let mut case = Case::bare("many_bombs", crate::common::Parts::shared());
    case.set("TOPICS__PARTITIONS", 2);
    case.set("SINK__ENABLED", false);
    case.ok(&["topics"]);
    case.ok(&["migrate"]);
    // Records with null values are ignored, so they need no dead letters.
    let most = batch(GZIP, &gzip(&head_of_null(60 * MEBIBYTE), 60, &[]));
    for _ in 0..10 {
        send_batch(&case, &case.raw(), 0, &most);
        send_batch(&case, &case.raw(), 1, &most);
    }
    case.produce(usual(10, 0));
    case.produce(usual(10, 1));
    let detector = case.detector("a", &[]);
    wait_committed(&case, 40);
    check_peak(&detector, 900);
    assert_eq!(detector.metric("anomaly_records_total{kind=\"ignored\"} "), 20.0);
}

#[test]
fn batches_below_the_limit_in_many_partitions_share_a_bound_of_memory() {
    const PARTITIONS: i32 = 24;
    let mut case = Case::bare("wide_bombs", crate::common::Parts::shared());
    case.set("TOPICS__PARTITIONS", PARTITIONS);
    case.set("SINK__ENABLED", false);
    case.ok(&["topics"]);
    case.ok(&["migrate"]);
    let most = batch(GZIP, &gzip(&head_of_null(63 * MEBIBYTE), 63, &[]));
    for partition in (0..PARTITIONS).flat_map(|partition| [partition; 3]) {
        send_batch(&case, &case.raw(), partition, &most);
    }
    case.produce((0..PARTITIONS).flat_map(|partition| usual(10, partition)));
    let detector = case.detector("a", &[]);
    wait_committed(&case, i64::from(PARTITIONS) * 13);
    check_peak(&detector, 900);
    assert_eq!(detector.metric("anomaly_records_total{kind=\"ignored\"} "), f64::from(PARTITIONS * 3));
}

#[test]
fn the_policy_for_rejected_records_applies_to_an_oversized_batch() {
    let case = Case::new("bomb_policy");
    case.produce(usual(40, 0));
    send_zeros(&case, "zstd", 0, 90);
    case.produce(usual(10, 0));
    let mut detector = case.detector("a", &[("DETECTOR__ON_REJECT", "fail")]);
    assert_eq!(detector.exit(LIMIT).code(), Some(65));
    let words = format!("{} [0]: the batch of offsets 40 to 40 has 1 records in", case.raw());
    assert!(detector.log().contains(&words), "{}", detector.log());
    assert_eq!(case.committed(), 40);
    let detector = case.detector("a", &[("DETECTOR__ON_REJECT", "drop")]);
    wait_committed(&case, 51);
    assert!(case.read(&case.dlq()).is_empty());
    assert_eq!(detector.metric("anomaly_records_total{kind=\"skipped\"} "), 1.0);
}

#[test]
fn an_oversized_batch_in_the_anomalies_stops_the_sink_at_its_place_until_it_is_skipped() {
    let case = Case::new("bomb_anomalies");
    let anomalies = case.anomalies();
    send_batch(&case, &anomalies, 0, &batch(GZIP, &gzip(&head(200 * MEBIBYTE), 200, &[0])));
    let detector = case.detector("a", &[]);
    let words = format!("{anomalies} [0] cannot be read at offset 0: the batch of offsets 0 to 0 has 1 records");
    wait_for("the report of the batch", LIMIT, || {
        detector.get("/readyz").is_some_and(|(status, text)| status == 503 && text.contains(&words))
    });
    check_peak(&detector, 500);
    let skipped = case.ok(&["dlq", "skip", &anomalies, "0", "0"]);
    assert!(skipped.contains("1 records of") && skipped.contains("offsets 0 to 0"), "{skipped}");
    wait_for("the detector to be ready", LIMIT, || detector.get("/readyz").is_some_and(|(status, _)| status == 200));
}
