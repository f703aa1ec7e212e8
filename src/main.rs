//! Parses, runs, and turns the outcome into an exit code. Nothing else ends the process.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match anomaly::cli::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.message.is_empty() {
                eprintln!("{}", anomaly::cli::complaint(&error));
            }
            ExitCode::from(error.kind.code())
        }
    }
}
