//! `anomaly generate`: writes manual pages and completions from the definitions of the command line and of the settings.
//! They therefore agree with `--help` and with the check of the settings.

use std::io::{self, Write};

use clap_mangen::Man;
use roff::{Inline, Roff, bold, italic, roman};

use super::output;
use crate::cli::{self, GeneratedDocument};
use crate::config::schema::{SECTIONS, SettingKey, ShippedFile, TABLES, ValueType};
use crate::error::Result;

/// Writes one document to standard output.
///
/// # Errors
/// As [`output::written`].
pub fn run(document: GeneratedDocument, mut definition: clap::Command) -> Result<()> {
    let mut text = Vec::new();
    let mut complete = |shell| {
        clap_complete::generate(shell, &mut definition, "anomaly", &mut text);
        Ok(())
    };
    let written = match document {
        GeneratedDocument::Bash => complete(clap_complete::Shell::Bash),
        GeneratedDocument::Zsh => complete(clap_complete::Shell::Zsh),
        GeneratedDocument::Fish => complete(clap_complete::Shell::Fish),
        GeneratedDocument::Man => program_page(definition, &mut text),
        GeneratedDocument::ManToml => settings_page(&mut text),
    };
    output::written(written.and_then(|()| output::raw().write_all(&text)))
}

/// Writes the manual page anomaly(8).
fn program_page(mut definition: clap::Command, out: &mut dyn Write) -> io::Result<()> {
    definition.build();
    let man = Man::new(definition.clone()).section("8").manual("System Administration");
    man.render_title(out)?;
    man.render_name_section(out)?;
    let mut page = Roff::new();
    page.control("SH", ["SYNOPSIS"]);
    page.text([bold("anomaly"), roman(" [--config "), italic("DIR"), roman("] "), italic("COMMAND")]);
    page.control("br", []);
    page.text([bold("anomaly"), roman(" [--config "), italic("DIR"), roman("] --role "), italic("ROLE")]);
    page.to_writer(out)?;
    man.render_description_section(out)?;
    man.render_options_section(out)?;
    let mut page = Roff::new();
    page.control("SH", ["COMMANDS"]);
    for command in definition.get_subcommands() {
        describe_command(&mut page, "anomaly", command);
    }
    page.control("SH", ["EXAMPLES"]);
    page.control("nf", []);
    for line in cli::EXAMPLES.lines().filter(|line| line.starts_with("  ")) {
        page.text([roman(line.trim_start())]);
    }
    page.control("fi", []);
    for (title, paragraphs) in PROGRAM {
        page.control("SH", [*title]);
        for (tag, meaning) in *paragraphs {
            page.control("TP", []);
            page.text([bold(*tag)]);
            page.text([roman(*meaning)]);
        }
    }
    see_also(&mut page, "anomaly.toml(5), systemctl(1), journalctl(1), systemd.exec(5)");
    page.to_writer(out)
}

/// Describes a command with its options, then its subcommands.
fn describe_command(page: &mut Roff, parent: &str, command: &clap::Command) {
    if command.is_hide_set() || command.get_name() == "help" {
        return;
    }
    let name = format!("{parent} {}", command.get_name());
    page.control("SS", [name.as_str()]);
    page.text([roman(command.get_about().map(ToString::to_string).unwrap_or_default())]);
    for argument in command.get_arguments().filter(|a| !["help", "config"].contains(&a.get_id().as_str())) {
        page.control("TP", []);
        page.text(head(argument));
        let mut about = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let values = argument.get_possible_values();
        let takes_value = argument.get_action().takes_values();
        if takes_value && !values.is_empty() {
            let names = values.iter().map(|value| value.get_name().to_owned()).collect::<Vec<_>>();
            about += &format!(" (one of: {})", names.join(", "));
        }
        if let (true, Some(default)) = (takes_value, argument.get_default_values().first()) {
            about += &format!(" [default: {}]", default.to_string_lossy());
        }
        page.text([roman(about)]);
    }
    for subcommand in command.get_subcommands() {
        describe_command(page, &name, subcommand);
    }
}

/// Formats an option as `--name VALUE`, or a positional argument as its name.
fn head(argument: &clap::Arg) -> Vec<Inline> {
    let value = argument
        .get_value_names()
        .and_then(|names| names.first())
        .map_or_else(|| argument.get_id().as_str().to_uppercase(), ToString::to_string);
    match argument.get_long() {
        None => vec![italic(value)],
        Some(long) if argument.get_action().takes_values() => {
            vec![bold(format!("--{long}")), roman(" "), italic(value)]
        }
        Some(long) => vec![bold(format!("--{long}"))],
    }
}

/// Sections of anomaly(8) that do not come from a definition: pairs of tag and meaning.
const PROGRAM: &[(&str, &[(&str, &str)])] = &[
    (
        "SIGNALS",
        &[
            (
                "SIGTERM, SIGINT",
                "Finish and commit the work in progress, and exit with 0, within service.drain_timeout.",
            ),
            (
                "SIGHUP",
                "Read the settings again. If they are wrong, the role reports them and keeps the old ones. log.level takes effect at once, other settings after a restart.",
            ),
        ],
    ),
    (
        "DASHBOARD",
        &[
            (
                "GET /api/v1/anomalies",
                "JSON: `anomalies`, newest event first; `next` and `prev` for before= and after=; `cursor` for /events. limit= sets the number of rows (default 50, at most 500). sort=score|device|metric replaces the order by time.",
            ),
            ("GET /api/v1/anomalies.csv, .jsonl", "All matching anomalies, as a file."),
            (
                "GET /events",
                "Server-sent events: anomaly, batch (rows, more), health, minute, reset (load the page again). Last-Event-ID or cursor= resumes after an id, without gap or repetition.",
            ),
            (
                "span=, from=, to=, device=, metric=, severity=, method=, label=, review=, q=",
                "Filters of pages, API, exports and events. span is 15m, 1h, 6h, 24h, 7d or 30d. Times are RFC 3339. q is a part of a device's name. A repeated key means any of its values. An unknown key is refused with its name.",
            ),
            ("GET /api/openapi.json", "OpenAPI description of the API."),
        ],
    ),
    (
        "EXIT STATUS",
        &[
            ("0", "Success, or stopped on request; also if there were anomalies or rejected records."),
            ("64", "Wrong usage of the command line."),
            (
                "65",
                "Data that cannot be judged: a rejected record with detector.on_reject = \"fail\", a file without an event or with an \
             incomplete end, stored state that is damaged or belongs to another topic, or dead letters that dlq replay could \
             not send.",
            ),
            ("66", "An input file cannot be read."),
            ("69", "A required service is not available."),
            ("70", "An internal error."),
            (
                "74",
                "The output cannot be written, as on a full disk. It is not an error if the reader closes the output.",
            ),
            ("75", "A signal ended dlq replay before all dead letters were sent. The next replay sends the others."),
            (
                "78",
                "Wrong settings, each with its file, line and column; a role that is not configured; or a second detector with \
             the same instance name.",
            ),
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            (
                "ANOMALY__SECTION__KEY",
                "Any setting, such as ANOMALY__KAFKA__BOOTSTRAP_SERVERS. A secret may come from a file: ANOMALY__POSTGRES__PASSWORD_FILE.",
            ),
            ("CREDENTIALS_DIRECTORY", "Set by systemd: directory of secrets. The name of each file is its key."),
            (
                "NOTIFY_SOCKET, WATCHDOG_USEC, JOURNAL_STREAM",
                "Set by systemd: where a role sends its state, watchdog messages and log lines.",
            ),
        ],
    ),
    (
        "FILES",
        &[
            (
                "/etc/anomaly/common.toml",
                "Defaults for all roles: Kafka, topics, PostgreSQL, logging. The file belongs to the package.",
            ),
            ("/etc/anomaly/producer.toml, detector.toml, dashboard.toml", "Defaults for one role."),
            (
                "/etc/anomaly/conf.d/*.toml",
                "Settings of this machine, read in the order of their names. Put settings that differ from the defaults here.",
            ),
            (
                "/etc/anomaly/credentials/",
                "Secrets, one per file with the name of its key: postgres.password, kafka.properties.sasl.password. Only root can read them; systemd passes them to the services.",
            ),
            (
                "/etc/anomaly/tls/",
                "Certificates, keys and the dashboard's users, which may change while a service runs. The group anomaly can read them.",
            ),
            ("/usr/share/doc/anomaly/", "README, changelog, the SQL of the schema, examples of settings and drop-ins."),
        ],
    ),
];

/// Writes the manual page anomaly.toml(5).
fn settings_page(out: &mut dyn Write) -> io::Result<()> {
    let mut page = Roff::new();
    let version = concat!("anomaly ", env!("CARGO_PKG_VERSION"));
    page.control("TH", ["anomaly.toml", "5", "", version, "File Formats"]);
    page.control("SH", ["NAME"]);
    page.text([roman("anomaly.toml - settings of anomaly")]);
    page.control("SH", ["SYNOPSIS"]);
    page.text([italic("/etc/anomaly/common.toml")]);
    page.control("br", []);
    page.text([
        italic("/etc/anomaly/producer.toml"),
        roman(", "),
        italic("detector.toml"),
        roman(", "),
        italic("dashboard.toml"),
    ]);
    page.control("br", []);
    page.text([italic("/etc/anomaly/conf.d/*.toml")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman(
        "The files are TOML. A role reads common.toml, its own file, and the files of conf.d in the order of their names; then \
         the environment (ANOMALY__SECTION__KEY), then credentials. A later value overrides an earlier one. Any file may set \
         any key. An unknown key, a wrong type or a value out of range stops the start with exit code 78. All problems are \
         reported at once, each with its place. `anomaly check` prints each value and where it comes from.",
    )]);
    for section in SECTIONS {
        page.control("SH", [format!("[{}]", section.name).as_str()]);
        page.text([roman(section.doc)]);
        for key in section.keys {
            page.control("TP", []);
            page.text([bold(key.name), roman(format!(" = {}", key.default))]);
            page.text([roman(format!("{}{}{}", key.doc, expects(key), place(key)))]);
        }
    }
    for table in TABLES {
        page.control("SH", [format!("[[{}]]", table.path).as_str()]);
        page.text([roman(table.doc)]);
        for key in table.keys {
            page.control("TP", []);
            page.text([bold(key.name)]);
            page.text([roman(format!("{}{}{}", key.doc, expects(key), place(key)))]);
        }
    }
    see_also(&mut page, "anomaly(8)");
    page.to_writer(out)
}

fn expects(key: &SettingKey) -> String {
    match key.kind {
        ValueType::Text | ValueType::Path => String::new(),
        ValueType::Secret => " A string that is never printed.".into(),
        ValueType::OneOf(words) => format!(" One of: {}.", words.join(", ")),
        ValueType::Integer(least, i64::MAX) => format!(" A whole number of at least {least}."),
        ValueType::Integer(least, most) => format!(" A whole number from {least} to {most}."),
        ValueType::Float(least, f64::MAX) => format!(" A number of at least {least}."),
        ValueType::Float(least, most) => format!(" A number from {least} to {most}."),
        ValueType::Bool => " true or false.".into(),
        ValueType::Duration(least, most) => format!(" A time from {} to {}.", duration(least), duration(most)),
        ValueType::Listen => " An IP address with a port, or \"off\".".into(),
        ValueType::Time => " A time as in RFC 3339.".into(),
        ValueType::Step => " A time such as \"10ms\".".into(),
        ValueType::List => " A list of strings. In an environment variable: one string, separated by commas.".into(),
    }
}

/// Formats milliseconds in the largest unit that divides them, such as `3650d`.
fn duration(millis: u64) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    match units.into_iter().find(|(_, unit)| millis > 0 && millis.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", millis / unit),
        None if millis == 0 => "0s".into(),
        None => format!("{millis}ms"),
    }
}

fn place(key: &SettingKey) -> String {
    if key.file == ShippedFile::Common { String::new() } else { format!(" Shown in {}.", key.file.name()) }
}

fn see_also(page: &mut Roff, pages: &str) {
    page.control("SH", ["SEE ALSO"]);
    page.text([roman(pages)]);
}
