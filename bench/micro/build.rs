//! Passes options to the linker.

fn main() {
    // The file src/stream/kafka/lengths.rs of the program stands between two functions of librdkafka.
    println!("cargo:rustc-link-arg=-Wl,--wrap=rd_slice_narrow_copy_relative");
    println!("cargo:rerun-if-changed=build.rs");
}
