//! Parses, runs, and turns the outcome into an exit code. Nothing else ends the process.
#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match anomaly::cli::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.message.is_empty() {
                anomaly::command::output::notes(anomaly::cli::complaint(&error));
            }
            ExitCode::from(error.kind.code())
        }
    }
}
