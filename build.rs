//! Passes options to the linker.

fn main() {
    // src/stream/kafka/lengths.rs stands between two functions of librdkafka.
    println!("cargo:rustc-link-arg=-Wl,--wrap=rd_slice_narrow_copy_relative");
    println!("cargo:rerun-if-changed=build.rs");
}
