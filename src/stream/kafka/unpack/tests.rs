//! The functions that librdkafka calls, by the names under which it calls them.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;
use crate::stream::client::OversizedBatch;

unsafe extern "C" {
    fn rd_gz_decompress(packed: *const u8, length: c_int, unpacked_length: *mut u64) -> *mut u8;
    fn rd_kafka_snappy_uncompressed_length(packed: *const u8, length: usize, result: *mut usize) -> bool;
    fn rd_kafka_snappy_uncompress(packed: *const u8, length: usize, to: *mut u8) -> c_int;
    fn rd_kafka_snappy_java_uncompress(
        packed: *const u8,
        length: usize,
        unpacked_length: *mut usize,
        message: *mut c_char,
        message_size: usize,
    ) -> *mut u8;
    fn rd_kafka_lz4_decompress(
        broker: *mut c_void,
        is_proper: c_int,
        offset: i64,
        packed: *mut u8,
        length: usize,
        unpacked: *mut *mut u8,
        unpacked_length: *mut usize,
    ) -> RDKafkaRespErr;
    fn rd_kafka_zstd_decompress(
        broker: *mut c_void,
        packed: *const u8,
        length: usize,
        unpacked: *mut *mut u8,
        unpacked_length: *mut usize,
    ) -> RDKafkaRespErr;
    fn LZ4F_compressFrameBound(length: usize, preferences: *const c_void) -> usize;
    fn LZ4F_compressFrame(
        to: *mut u8,
        size: usize,
        data: *const u8,
        length: usize,
        preferences: *const c_void,
    ) -> usize;
    fn ZSTD_compressBound(length: usize) -> usize;
    fn ZSTD_compress(to: *mut u8, size: usize, data: *const u8, length: usize, level: c_int) -> usize;
    fn malloc(size: usize) -> *mut c_void;
    fn free(start: *mut c_void);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codec {
    Gzip,
    Snappy,
    SnappyJava,
    Lz4,
    Zstd,
}

const CODECS: [Codec; 5] = [Codec::Gzip, Codec::Snappy, Codec::SnappyJava, Codec::Lz4, Codec::Zstd];

/// Packs a byte that is repeated, as snappy: a literal, then copies of 64 bytes.
fn snappy(byte: u8, length: usize) -> Vec<u8> {
    let (mut packed, mut rest) = (Vec::new(), length);
    while rest > 0x7f {
        packed.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    packed.extend([rest as u8, 0, byte]);
    let mut left = length - 1;
    while left > 0 {
        let part = left.min(64);
        packed.extend([(part as u8 - 1) << 2 | 2, 1, 0]);
        left -= part;
    }
    packed
}

/// Packs a byte that is repeated.
fn pack(codec: Codec, byte: u8, length: usize) -> Vec<u8> {
    let data = vec![byte; length];
    match codec {
        Codec::Gzip => {
            let mut stream = GzEncoder::new(Vec::new(), Compression::default());
            stream.write_all(&data).unwrap();
            stream.finish().unwrap()
        }
        Codec::Snappy => snappy(byte, length),
        Codec::SnappyJava => {
            let mut packed = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
            for part in data.chunks(32 << 10) {
                let block = snappy(byte, part.len());
                packed.extend((block.len() as u32).to_be_bytes());
                packed.extend(block);
            }
            packed
        }
        // SAFETY: the library writes at most the size of the buffer.
        Codec::Lz4 => unsafe {
            let mut packed = vec![0; LZ4F_compressFrameBound(length, ptr::null())];
            let size = LZ4F_compressFrame(packed.as_mut_ptr(), packed.len(), data.as_ptr(), data.len(), ptr::null());
            packed.truncate(size);
            packed
        },
        // SAFETY: the library writes at most the size of the buffer.
        Codec::Zstd => unsafe {
            let mut packed = vec![0; ZSTD_compressBound(length)];
            let size = ZSTD_compress(packed.as_mut_ptr(), packed.len(), data.as_ptr(), data.len(), 3);
            packed.truncate(size);
            packed
        },
    }
}

/// Calls the functions of a codec as librdkafka does. Returns the unpacked data.
fn call(codec: Codec, packed: &mut [u8]) -> Option<Vec<u8>> {
    let (at, length, mut unpacked, mut size) = (packed.as_mut_ptr(), packed.len(), ptr::null_mut(), 0);
    // SAFETY: the arguments are those of librdkafka, which frees the result in the same way.
    unsafe {
        match codec {
            Codec::Gzip => {
                let mut long = 0;
                unpacked = rd_gz_decompress(at, length as c_int, &raw mut long);
                size = long as usize;
            }
            Codec::Snappy => {
                if !rd_kafka_snappy_uncompressed_length(at, length, &raw mut size) {
                    return None;
                }
                unpacked = malloc(size).cast();
                if rd_kafka_snappy_uncompress(at, length, unpacked) != 0 {
                    free(unpacked.cast());
                    return None;
                }
            }
            Codec::SnappyJava => {
                let (at, length) = (at.add(16), length - 16);
                unpacked = rd_kafka_snappy_java_uncompress(at, length, &raw mut size, [0; 128].as_mut_ptr(), 128);
            }
            Codec::Lz4 => {
                let broker = ptr::null_mut();
                rd_kafka_lz4_decompress(broker, 1, 0, at, length, &raw mut unpacked, &raw mut size);
            }
            Codec::Zstd => {
                rd_kafka_zstd_decompress(ptr::null_mut(), at, length, &raw mut unpacked, &raw mut size);
            }
        }
        if unpacked.is_null() {
            return None;
        }
        let copy = std::slice::from_raw_parts(unpacked, size).to_vec();
        let release = if budget::is_new(unpacked.cast()) { budget::release } else { free };
        release(unpacked.cast());
        Some(copy)
    }
}

/// Returns a batch after its checksum: its header, then the packed data.
fn batch(last: i32, records: i32, packed: &[u8]) -> Vec<u8> {
    let mut batch = vec![0; 40];
    batch[1] = 1;
    batch[2..6].copy_from_slice(&last.to_be_bytes());
    batch[36..40].copy_from_slice(&records.to_be_bytes());
    batch.extend(packed);
    batch
}

/// Unpacks a batch with a known header.
fn unpacked(codec: Codec, last: i32, records: i32, packed: &[u8]) -> Option<Vec<u8>> {
    let mut batch = batch(last, records, packed);
    budget::begin_answer((&raw const batch).cast(), (&raw const batch).cast());
    note_batch(&batch);
    call(codec, &mut batch[40..])
}

/// Reads a number of the protocol.
fn take_number(from: &mut &[u8]) -> i64 {
    let (mut number, mut shift) = (0_u64, 0);
    loop {
        let (byte, rest) = from.split_first().unwrap();
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return (number >> 1) as i64 ^ -((number & 1) as i64);
        }
    }
}

/// Decodes the records of a batch that begins at offset 1,000, as librdkafka does: there must be one, and it must be a
/// placeholder.
fn replaced(data: &[u8]) -> OversizedBatch {
    let mut rest = data;
    let length = take_number(&mut rest);
    assert_eq!(length as usize, rest.len(), "one record");
    assert_eq!((rest[0], rest[1]), (0, 0), "attributes and time");
    rest = &rest[2..];
    let offset = 1_000 + take_number(&mut rest);
    assert_eq!(take_number(&mut rest), -1, "no key");
    assert_eq!(take_number(&mut rest) as usize, PLACEHOLDER);
    let (value, headers) = rest.split_at(PLACEHOLDER);
    assert_eq!(headers, [0], "no headers");
    read_placeholder(offset, value).expect("a placeholder")
}

#[test]
fn a_batch_within_the_limits_is_unpacked_unchanged_by_each_codec() {
    for codec in CODECS {
        for length in [1, 100, 5_000_000, MAX_BATCH_BYTES] {
            let packed = pack(codec, b'x', length);
            let records = MAX_BATCH_RECORDS.min(1_000);
            let data = unpacked(codec, 999, records, &packed).unwrap_or_default();
            assert!(
                data.len() == length && data.iter().all(|byte| *byte == b'x'),
                "{codec:?} {length}: {}",
                data.len()
            );
        }
    }
}

#[test]
fn a_batch_beyond_the_limit_of_bytes_is_replaced_with_its_extent_by_each_codec() {
    for codec in CODECS {
        for length in [MAX_BATCH_BYTES + 1, 3 * MAX_BATCH_BYTES] {
            let packed = pack(codec, 0, length);
            let data = unpacked(codec, 41, 7, &packed).unwrap_or_default();
            assert!(data.len() < 100, "{codec:?} {length}: {}", data.len());
            let expected = OversizedBatch { offsets: 1_000..1_042, records: 7, packed: packed.len() as u64 };
            assert_eq!(replaced(&data), expected, "{codec:?}");
            // A message of an older format has no such header: librdkafka reports an error at its offset.
            note_batch(&[]);
            assert_eq!(call(codec, &mut packed.clone()), None, "{codec:?} {length}");
        }
    }
}

#[test]
fn a_batch_of_too_many_records_is_replaced_by_each_codec() {
    for codec in CODECS {
        let packed = pack(codec, 0, 1_000);
        let most = MAX_BATCH_RECORDS;
        assert_eq!(unpacked(codec, most - 1, most, &packed), Some(vec![0; 1_000]), "{codec:?}");
        let data = unpacked(codec, most, most + 1, &packed).unwrap_or_default();
        assert_eq!(replaced(&data).records, most as u64 + 1, "{codec:?}");
    }
}

#[test]
fn a_batch_behind_others_in_an_answer_is_left_for_the_next_request_by_each_codec() {
    for codec in CODECS {
        let packed = pack(codec, b'x', MAX_BATCH_BYTES);
        let answer = [batch(9, 10, &packed), batch(9, 10, &packed), batch(9, 10, &packed)];
        // Data that are freed at once leave room again, so other data of the partition are reserved before.
        budget::begin_answer((&raw const packed).cast(), (&raw const packed).cast());
        let before = ReservedMemory::of(MAX_BATCH_BYTES + 10, 0);
        let sizes = answer.map(|mut batch| {
            note_batch(&batch);
            call(codec, &mut batch[40..]).unwrap_or_default().len()
        });
        assert_eq!((sizes, before.is_some()), ([1; 3], true), "{codec:?}");
        drop(before);
        assert_eq!(unpacked(codec, 9, 10, &packed).unwrap_or_default().len(), MAX_BATCH_BYTES, "{codec:?}");
    }
}

#[test]
fn damaged_data_is_an_error_of_each_codec() {
    for codec in CODECS {
        let packed = pack(codec, b'x', 100_000);
        for end in [packed.len() / 3, packed.len() / 2, packed.len() - 1] {
            // librdkafka accepts a frame of lz4 without its end: the lengths of the records show what is missing.
            let is_accepted = codec == Codec::Lz4;
            let result = unpacked(codec, 0, 1, &packed[..end]);
            assert!(result.is_none() || is_accepted, "{codec:?} {end} of {}", packed.len());
        }
        let wrong = packed.iter().map(|byte| byte ^ 0x55).collect::<Vec<_>>();
        if !matches!(codec, Codec::Snappy | Codec::SnappyJava) {
            assert_eq!(unpacked(codec, 0, 1, &wrong), None, "{codec:?}");
        }
    }
}

#[test]
fn zstd_and_lz4_without_their_unpacked_size_and_gzip_with_a_wrong_one_are_bounded() {
    let frames = |length: usize| pack(Codec::Zstd, 0, 1 << 20).repeat(length >> 20);
    assert_eq!(unpacked(Codec::Zstd, 0, 1, &frames(MAX_BATCH_BYTES)).unwrap_or_default().len(), MAX_BATCH_BYTES);
    let data = unpacked(Codec::Zstd, 0, 1, &frames(MAX_BATCH_BYTES + (1 << 20))).unwrap_or_default();
    assert_eq!(replaced(&data).records, 1, "only the size of the first frame is given");
    for (length, given) in [(100_000, 7_u32), (100_000, u32::MAX), (MAX_BATCH_BYTES + 1, 7)] {
        let mut packed = pack(Codec::Gzip, 0, length);
        let at = packed.len() - 4;
        packed[at..].copy_from_slice(&given.to_le_bytes());
        let data = unpacked(Codec::Gzip, 0, 1, &packed);
        let is_replaced = length > MAX_BATCH_BYTES;
        assert_eq!(data.map(|data| replaced(&data).records), is_replaced.then_some(1), "the size is checked");
    }
}

#[test]
fn the_wrong_checksum_of_old_frames_of_lz4_is_mended() {
    let mut packed = pack(Codec::Lz4, b'x', 1_000);
    let at = if packed[4] >> 3 & 1 == 1 { 14 } else { 6 };
    packed[at] ^= 0xff;
    assert_eq!(call(Codec::Lz4, &mut packed.clone()), None);
    let (mut unpacked, mut size) = (ptr::null_mut(), 0);
    // SAFETY: the arguments are those of librdkafka, which frees the result in the same way.
    unsafe {
        let (at, length) = (packed.as_mut_ptr(), packed.len());
        rd_kafka_lz4_decompress(ptr::null_mut(), 0, 0, at, length, &raw mut unpacked, &raw mut size);
        assert_eq!(std::slice::from_raw_parts(unpacked, size), [b'x'; 1_000]);
        free(unpacked.cast());
    }
    assert!(!lz4::mend(&mut [0; 20]), "no frame");
}

#[test]
fn only_the_header_of_the_same_batch_of_format_2_is_used() {
    let packed = [7; 100];
    let noted_of = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = batch(41, 7, &packed);
        change(&mut bytes);
        note_batch(&bytes);
        bytes.get(40..).and_then(noted).map(|batch| (batch.last, batch.records))
    };
    assert_eq!(noted_of(&|_| ()), Some((41, 7)));
    assert_eq!(noted_of(&|bytes| bytes[1] = 0), None, "not compressed");
    assert_eq!(noted_of(&|bytes| bytes[0] = 1), None, "a message of version 1");
    assert_eq!(noted_of(&|bytes| bytes[39] = 43), None, "more records than offsets");
    assert_eq!(noted_of(&|bytes| bytes[36] = 0x80), None, "a negative number");
    assert_eq!(noted_of(&|bytes| bytes.truncate(39)), None);
    let older = |bytes: &mut Vec<u8>| {
        bytes[5] = 30;
        bytes.truncate(60);
        bytes[39] = 20;
    };
    assert_eq!(noted_of(&older), None, "a message of version 0 with a key of 30 bytes");
    let bytes = batch(41, 7, &packed);
    note_batch(&bytes);
    assert_eq!((noted(&bytes[41..]), noted(&bytes[40..139])), (None, None), "other data");
}

#[test]
fn no_value_of_a_record_is_taken_for_a_placeholder() {
    assert_eq!(read_placeholder(5, &[0; PLACEHOLDER]), None);
    let batch = batch(0, 1, &[1]);
    note_batch(&batch);
    let mut data = placeholder::placeholder(&noted(&batch[40..]).unwrap());
    assert_eq!(replaced(&data).offsets, 1_000..1_001);
    let at = data.len() - 1 - PLACEHOLDER;
    data[at] ^= 1;
    assert_eq!(read_placeholder(1_000, &data[at..at + PLACEHOLDER]), None);
}
