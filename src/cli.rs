//! Parses the command line. The modules `command` and `role` run the commands and roles.

mod dlq;
mod offsets;
mod score;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::error::ContextValue;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use crate::command;
use crate::command::check::CheckCommand;
use crate::command::output;
use crate::config::raw::PREFIX;
use crate::config::schema::ShippedFile;
use crate::config::{self, SettingFiles, Settings};
use crate::error::{Error, ExitKind, Result};
use crate::foreign;
use crate::page::auth::UserRole as AccessRole;
use crate::role::{self, Role};

pub use dlq::{DeadLetterPosition, DeadLetterSelection, Dlq};
pub use offsets::{OffsetChoice, Offsets, PartitionChoice};
pub use score::{OutputForm, Score};

/// Detect abnormal values in device metrics from Kafka, and report each exactly once
///
/// A value is abnormal when it is more than `threshold` standard deviations away from the mean of the last `window` values
/// of its series. The detector publishes anomalies to a Kafka topic and stores them in PostgreSQL. The dashboard shows them.
#[derive(Debug, Parser)]
#[command(name = "anomaly", version, disable_help_subcommand = true, after_help = EXAMPLES)]
pub struct Cli {
    /// Run this role until SIGTERM, as the systemd units do
    #[arg(long, value_enum)]
    role: Option<Role>,

    /// Settings directory [default: /etc/anomaly]
    #[arg(long, value_name = "DIR", global = true)]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Option<Command>,
}

/// Examples below the help text.
pub const EXAMPLES: &str = "Examples:
  anomaly demo                                   try it without any set-up
  anomaly demo --file my.csv --value-field temp  try it with your own file
  anomaly score readings.csv --value-field temp  judge a file
  anomaly check --connect                        check the settings, Kafka and PostgreSQL
  anomaly topics && anomaly migrate              create topics and tables
  anomaly --role detector                        run the detector

Settings: /etc/anomaly/*.toml, or ANOMALY__SECTION__KEY in the environment.
Exit codes: 0 success, 64 usage, 65 data, 66 no input, 69 service unavailable, 70 internal, 74 output,
75 stopped by a signal, 78 settings.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Validate the settings and print each with its source; secrets are masked
    Check(CheckCommand),
    /// Judge a file or standard input without Kafka; print anomalies as a table or JSON Lines
    Score(Score),
    /// Create or upgrade the database schema
    Migrate,
    /// Create missing topics and list all
    Topics,
    /// Show the state of the detector: partitions, lag, outcomes, series and conditions
    Status {
        /// Remove and list partitions that have not reported for an hour, such as those of a deleted topic
        #[arg(long)]
        forget: bool,
    },
    /// List, show and replay rejected records, and skip records that cannot be read
    #[command(subcommand)]
    Dlq(Dlq),
    /// List the committed offsets of the detector's group, and set or accept them while it is stopped
    Offsets {
        /// Change instead of a list
        #[command(subcommand)]
        action: Option<Offsets>,
    },
    /// Add, change or remove a dashboard user
    Passwd(Passwd),
    /// Run all roles in one process on an in-memory broker and a private PostgreSQL
    Demo(Demo),
    /// Write a manual page or shell completions to standard output, for the package
    #[command(hide = true)]
    Generate {
        /// Document to write
        #[arg(value_enum)]
        document: GeneratedDocument,
    },
}

/// Documents that are generated from the definitions of the command line and of the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GeneratedDocument {
    /// Manual page anomaly(8)
    Man,
    /// Manual page anomaly.toml(5)
    ManToml,
    /// Completions for bash
    Bash,
    /// Completions for zsh
    Zsh,
    /// Completions for fish
    Fish,
}

/// Options of `anomaly passwd`.
///
/// The command asks for the password; in a script it is the first line of standard input. A change takes effect at once.
#[derive(Debug, Clone, clap::Args)]
pub struct Passwd {
    /// Name of the user
    pub name: String,
    /// Role of the user
    #[arg(long, value_enum, default_value = "viewer")]
    pub role: AccessRole,
    /// Remove the user and end open sessions
    #[arg(long, conflicts_with = "role")]
    pub remove: bool,
    /// File of users [default: the setting dashboard.users]
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// Options of the command `anomaly demo`.
#[derive(Debug, Clone, clap::Args)]
pub struct Demo {
    /// Address of the dashboard
    #[arg(long, default_value = "127.0.0.1:8501")]
    pub listen: SocketAddr,
    /// Judge this file instead of synthetic devices; the options below name its fields, as for `anomaly score`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["host", "devices"])]
    pub file: Option<String>,
    /// Judge this machine's own metrics instead: processor, memory, load, disks, network
    #[arg(long, conflicts_with_all = ["rate", "devices"])]
    pub host: bool,
    /// Path of the device [default: device_id]; a table without it is one device, named after the file
    #[arg(long, value_name = "PATH")]
    pub device_field: Option<String>,
    /// Path of the metric [default: metric_name]
    #[arg(long, value_name = "PATH")]
    pub metric_field: Option<String>,
    /// Path of the value [default: metric_value]
    #[arg(long, value_name = "PATH")]
    pub value_field: Option<String>,
    /// Path of the time [default: timestamp]
    #[arg(long, value_name = "PATH")]
    pub time_field: Option<String>,
    /// Events per second over all devices [default: 200; for a file 1000, the limit of the in-memory broker]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rate: Option<u32>,
    /// Number of synthetic devices [default: 20]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub devices: Option<u32>,
}

/// Returns the definition of the command line, for the manual and completions.
pub fn definition() -> clap::Command {
    Cli::command()
}

impl Command {
    /// Returns the name of a command that reads no settings directory.
    fn without_settings(&self) -> Option<&'static str> {
        match self {
            Command::Score(_) => Some("score"),
            Command::Demo(_) => Some("demo"),
            _ => None,
        }
    }
}

/// Parses the arguments and runs the command or role.
///
/// # Errors
/// The error that ended the command; its kind is the exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<()> {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(mut error) => {
            if error.use_stderr() {
                escape(&mut error);
                return Err(Error { is_report: true, ..Error::usage(error.render()) });
            }
            // --help and --version are not errors.
            return output::written(error.print()).and_then(|()| output::finish());
        }
    };
    if let (Some(_), Some(name)) = (&cli.config, cli.command.as_ref().and_then(Command::without_settings)) {
        output::note(format_args!("note: {name} takes its settings from its options; --config is not read"));
    }
    let done = match (cli.role, cli.command) {
        (Some(role), None) => {
            let places = places(cli.config, Some(role.file()))?;
            // A role logs the notices itself.
            config::load(&places).and_then(|loaded| role::run(role, &loaded, &places))
        }
        (None, Some(command)) => execute(command, cli.config),
        (Some(_), Some(_)) => {
            Err(Error::new(ExitKind::Usage, "--role runs a role; it goes with no command but `check --role`"))
        }
        (None, None) => Err(Error { is_report: true, ..Error::usage(Cli::command().render_help()) }),
    };
    done.and_then(|()| output::finish())
}

/// Executes a command with the settings that it needs.
fn execute(command: Command, config: Option<PathBuf>) -> Result<()> {
    let load = |file: ShippedFile| -> Result<Settings> {
        let loaded = config::load(&places(config.clone(), Some(file))?)?;
        loaded.notices.iter().for_each(|notice| output::note(format_args!("note: {notice}")));
        Ok(loaded.settings)
    };
    // What librdkafka opens itself must be regular files: it would wait for the writer of a named pipe.
    let load_for_kafka = || -> Result<Settings> {
        let settings = load(ShippedFile::Detector)?;
        role::files::usable_for_kafka(&settings)?;
        Ok(settings)
    };
    match command {
        Command::Check(check) => {
            // The limits of a series are those of the detector.
            let of_series = check.series.as_ref().map(|_| ShippedFile::Detector);
            let places = places(config.clone(), check.role.map(Role::file).or(of_series))?;
            command::check::run(&check, &places)
        }
        Command::Score(score) => {
            if let Some(note) = score::ignored_variables(std::env::vars_os().map(|(name, _)| name)) {
                output::note(note);
            }
            command::score::run(&score)
        }
        Command::Migrate => command::migrate::run(&load(ShippedFile::Detector)?),
        Command::Topics => command::topics::run(&load_for_kafka()?),
        Command::Status { forget: false } => command::status::run(&load(ShippedFile::Dashboard)?),
        // The dashboard's database role may be read-only.
        Command::Status { forget: true } => command::status::forget(&load(ShippedFile::Detector)?),
        Command::Dlq(dlq) => command::dlq::run(&load_for_kafka()?, &dlq),
        Command::Offsets { action } => command::offsets::run(&load_for_kafka()?, action.as_ref()),
        Command::Passwd(passwd) => match &passwd.file {
            Some(file) => command::passwd::run(&passwd, file),
            None => {
                let users = load(ShippedFile::Dashboard)?.dashboard.users;
                if users.is_empty() {
                    let remedy =
                        "dashboard.users is not set: name a file there, such as /etc/anomaly/tls/users, or with --file";
                    return Err(Error::config(remedy));
                }
                command::passwd::run(&passwd, users.as_ref())
            }
        },
        Command::Demo(demo) => command::demo::run(&demo),
        Command::Generate { document } => command::generate::run(document, definition()),
    }
}

/// Collects the sources of the settings. `/etc/anomaly` may be missing; a directory named with `--config` must exist.
fn places(config: Option<PathBuf>, file: Option<ShippedFile>) -> Result<SettingFiles> {
    let required = config.is_some();
    let mut env = Vec::new();
    for (name, value) in std::env::vars_os() {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => env.push((name, value)),
            (name, _) => {
                let name = name.unwrap_or_else(|name| name.to_string_lossy().into_owned());
                if name.starts_with(PREFIX) {
                    return Err(Error::config(format_args!("variable {name} is not UTF-8: write it in UTF-8")));
                }
            }
        }
    }
    Ok(SettingFiles {
        required,
        dir: config.unwrap_or_else(|| config::DIR.into()),
        file,
        env,
        credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
    })
}

/// Formats an error for standard error. Reports of settings and help texts are already formatted.
pub fn complaint(error: &Error) -> String {
    if error.is_report { error.message.clone() } else { format!("error: {}", foreign::line(&error.message)) }
}

/// Escapes the arguments that an error of the parser repeats.
fn escape(error: &mut clap::Error) {
    let given = |value: &ContextValue| match value {
        ContextValue::String(text) => Some(ContextValue::String(foreign::text(text).to_string())),
        ContextValue::Strings(texts) => {
            Some(ContextValue::Strings(texts.iter().map(|text| foreign::text(text).to_string()).collect()))
        }
        // A tip that repeats an argument of several lines.
        ContextValue::StyledStrs(tips) if tips.iter().any(|tip| tip.to_string().contains('\n')) => {
            Some(ContextValue::None)
        }
        _ => None,
    };
    let escaped = error.context().filter_map(|(kind, value)| Some((kind, given(value)?))).collect::<Vec<_>>();
    for (kind, value) in escaped {
        error.insert(kind, value);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_definition_is_sound() {
        super::definition().debug_assert();
    }
}
