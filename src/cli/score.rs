//! Options of `anomaly score`. Options that affect a verdict, or how events are read, are also settings of the roles: they
//! come from the settings' schema.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::builder::{PossibleValuesParser, TypedValueParser, ValueParser};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, ValueEnum};
use serde_json::Value;

use crate::config::option;
use crate::config::raw::PREFIX;
use crate::config::resolved::{FileFormat, Settings};
use crate::config::schema::{self, SettingKey, ValueType};

/// Options of the command `anomaly score`.
#[derive(Debug, Clone, clap::Args)]
pub struct Score {
    /// JSON Lines, a JSON array, or a table with a header line, optionally with gzip; -: standard input
    #[arg(default_value = "-")]
    pub file: String,
    /// Format of the input
    #[arg(long, value_enum, default_value = "auto")]
    pub format: FileFormat,
    /// Delimiter of a table: a character, or tab [default: the one in its header line]
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter)]
    pub delimiter: Option<u8>,
    /// Read a comma in a table as the decimal point: 21,5
    #[arg(long)]
    pub decimal_comma: bool,
    /// Read each numeric column of a table as a metric [default: if it has a time, but neither a value nor a metric]
    #[arg(long)]
    pub wide: bool,
    /// Options that affect verdicts, and how events are read.
    #[command(flatten)]
    pub judging: Judging,
    /// Judge the events in the order of their times instead of the file's order
    #[arg(long)]
    pub sort: bool,
    /// Print a line for every valid event, with its numbers and its verdict
    #[arg(long)]
    pub all: bool,
    /// Form of the output
    #[arg(long, value_enum, default_value = "auto")]
    pub output: OutputForm,
    /// Write the exact lines of rejected records to this file
    #[arg(long, value_name = "FILE")]
    pub rejects: Option<PathBuf>,
}

/// Form of the command's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputForm {
    /// A table on a terminal, otherwise JSON Lines
    Auto,
    /// One JSON object per line
    Jsonl,
    /// A table for reading
    Table,
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        _ if text == "tab" || text == "\\t" => Ok(b'\t'),
        [one] if !matches!(one, b'"' | b'\n' | b'\r') && one.is_ascii() => Ok(*one),
        _ => Err("expected one ASCII character that is not a quote, or tab".into()),
    }
}

/// Settings that are given as options.
#[derive(Debug, Clone)]
pub struct Judging {
    /// The settings; options that are absent have their defaults.
    pub settings: Box<Settings>,
    /// Whether the option for device, metric, value and time was given, in this order.
    pub named: [bool; 4],
}

/// Settings of the sections `fields` and `detector` whose options have different names.
const RENAMED: [(&str, &str); 4] = [
    ("fields.device", "device-field"),
    ("fields.metric", "metric-field"),
    ("fields.value", "value-field"),
    ("fields.time", "time-field"),
];

/// The settings that are options, with the names of the options: those that decide a verdict, and how many preceding values
/// an anomaly carries. Options for eviction do not exist: in a file no series is evicted.
static OPTIONS: LazyLock<Vec<(&SettingKey, String)>> = LazyLock::new(|| {
    let policy = crate::policy::Policy::default().values();
    let decides = |name: &str| name == "context" || policy.contains_key(name);
    let is_option = |key: &&SettingKey| match key.path.split_once('.') {
        Some(("fields", _)) => true,
        Some(("detector", name)) => decides(name),
        _ => false,
    };
    let name = |key: &SettingKey| match RENAMED.iter().find(|(path, _)| *path == key.path) {
        Some((_, name)) => (*name).to_owned(),
        None => key.path.rsplit('.').next().unwrap_or(key.path).replace('_', "-"),
    };
    schema::keys().filter(is_option).map(|key| (key, name(key))).collect()
});

/// Returns a note on the environment variables that have an option, because `anomaly score` reads only options.
pub(super) fn ignored_variables(names: impl Iterator<Item = OsString>) -> Option<String> {
    let mut ignored = Vec::new();
    for name in names.filter_map(|name| name.into_string().ok()) {
        let path = name.strip_prefix(PREFIX).map(|path| path.to_lowercase().replace("__", "."));
        if let Some((_, option)) = OPTIONS.iter().find(|(key, _)| path.as_deref() == Some(key.path)) {
            ignored.push(format!("{name} (use --{option})"));
        }
    }
    ignored.sort();
    let list = ignored.join(", ");
    (!ignored.is_empty())
        .then(|| format!("note: `anomaly score` reads no settings, and ignores these variables: {list}"))
}

fn argument(key: &'static SettingKey, name: &'static str) -> Arg {
    let value_name = match key.kind {
        ValueType::Integer(..) | ValueType::Float(..) => "NUMBER",
        ValueType::Bool => "true|false",
        ValueType::Duration(..) => "TIME",
        _ if name.ends_with("-field") => "PATH",
        _ => "VALUE",
    };
    let parser = match key.kind {
        ValueType::OneOf(words) => ValueParser::new(PossibleValuesParser::new(words).map(Value::from)),
        _ => ValueParser::new(move |text: &str| option::value(key, text)),
    };
    let argument = Arg::new(key.path).long(name).value_name(value_name).value_parser(parser);
    let argument = argument.help(key.doc.trim_end_matches('.'));
    match key.default.trim_matches('"') {
        "" | "[]" => argument,
        default => argument.default_value(default),
    }
}

impl clap::Args for Judging {
    fn augment_args(command: clap::Command) -> clap::Command {
        OPTIONS.iter().fold(command, |command, (key, name)| command.arg(argument(key, name)))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Judging {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let is_given = |path: &str| matches.value_source(path) == Some(ValueSource::CommandLine);
        let given = OPTIONS.iter().map(|(key, _)| key).filter(|key| is_given(key.path));
        let given = given.filter_map(|key| Some((key.path, matches.get_one::<Value>(key.path)?.clone())));
        let settings = option::settings(given).map_err(|e| clap::Error::raw(ErrorKind::ValueValidation, e.message))?;
        Ok(Judging { settings: Box::new(settings), named: RENAMED.map(|(path, _)| is_given(path)) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
