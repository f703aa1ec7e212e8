//! A separate box whose services can be killed.

use std::process::{Command, Stdio};

use crate::common::{Parts, root};

pub struct Stage {
    dir: &'static str,
    port: u16,
    brokers: u8,
}

impl Stage {
    /// Starts the services that do not run, in `target/DIR`, on `port` and the three ports after it.
    pub fn up(dir: &'static str, port: u16, brokers: u8) -> (Stage, Parts) {
        let stage = Stage { dir, port, brokers };
        stage.run(&["up"]);
        let output = stage.command(&["env"]).output().unwrap();
        let env = String::from_utf8(output.stdout).unwrap();
        let variable = |line: &str| {
            let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
            Some((name.to_owned(), value.replace(['\'', '"', '\\'], "")))
        };
        let env = env.lines().filter_map(variable).collect();
        (stage, Parts { env })
    }

    /// Starts the stage after removing all data of earlier runs.
    pub fn empty(dir: &'static str, port: u16, brokers: u8) -> (Stage, Parts) {
        Stage { dir, port, brokers }.run(&["reset"]);
        Stage::up(dir, port, brokers)
    }

    /// Runs `tests/box` with these arguments; it must succeed.
    pub fn run(&self, arguments: &[&str]) {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "box {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(root().join("tests/box"));
        command.args(arguments).stdin(Stdio::null());
        command.env("ANOMALY_BOX_DIR", root().join("target").join(self.dir));
        command.env("ANOMALY_BOX_PORT", self.port.to_string()).env("ANOMALY_BOX_BROKERS", self.brokers.to_string());
        command
    }
}
