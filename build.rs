//! Passes options to the linker.

/// Functions of librdkafka that src/stream/kafka replaces: those of lengths.rs and of unpack.rs.
const WRAPPED: [&str; 9] = [
    "rd_slice_narrow_copy_relative",
    "rd_gz_decompress",
    "rd_kafka_snappy_uncompressed_length",
    "rd_kafka_snappy_uncompress",
    "rd_kafka_snappy_java_uncompress",
    "rd_kafka_lz4_decompress",
    "rd_kafka_zstd_decompress",
    "rd_kafka_msgset_parse",
    "rd_kafka_buf_new_shadow",
];

fn main() {
    for function in WRAPPED {
        println!("cargo:rustc-link-arg=-Wl,--wrap={function}");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
