//! `anomaly check`: prints the settings and where each came from. With `--connect` it also checks that the services
//! that they name work.

mod kafka;
mod records;

use std::path::Path;

use super::output;
use crate::config::account::{self, Account};
use crate::config::schema::ShippedFile;
use crate::config::{self, Loaded, SettingFiles, Settings};
use crate::error::{Error, Result};
use crate::event::Timestamp;
use crate::finding::{Finding, Grade};
use crate::foreign;
use crate::role::{Role, dashboard, files};
use crate::store;

/// Largest difference between the clocks, in milliseconds. Beyond it, "now" on the pages would be misleading.
const CLOCK_MILLIS: i64 = 5_000;

/// Options of `anomaly check`: what is checked, and as which user.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckCommand {
    /// Read this role's file too, and check and print only what it uses
    #[arg(long, value_enum)]
    pub role: Option<Role>,
    /// Try the brokers, topics, transactions, the database with its permissions, and the clock as well; show how the newest
    /// records are understood
    #[arg(long)]
    pub connect: bool,
    /// Print only, in one line, what the role still needs before it can start; exit code 78 then
    #[arg(long, requires = "role", conflicts_with = "connect")]
    pub configured: bool,
    /// Print only the method and the limits that apply to this series, and where each comes from; the last slash separates the metric
    #[arg(long, value_name = "DEVICE/METRIC", conflicts_with_all = ["connect", "configured"])]
    pub series: Option<String>,
    /// Read the files as this user, which only root may ask for; root's default is the services' user, anomaly
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
}

/// Prints the settings and checks the files that they name. With `connect`, prints one line for each check.
///
/// # Errors
/// 78 if the settings or their files are wrong, 69 if another check fails.
pub fn run(check: &CheckCommand, places: &SettingFiles) -> Result<()> {
    let account = reader(check.user.as_deref())?;
    let loaded = &config::load_as(places, account.as_ref()).map_err(|e| read_as(e, account.as_ref()))?;
    if let (true, Some(role)) = (check.configured, check.role) {
        crate::role::configured(role, loaded, places)?;
        return output::line(format_args!("anomaly-{} is configured", role.name()));
    }
    let other_files = if places.file.is_none() { of_roles(loaded, places, account.as_ref())? } else { Vec::new() };
    loaded.notices.iter().chain(&other_files).for_each(|notice| output::note(format_args!("note: {notice}")));
    if let Some(account) = &account {
        output::note(format_args!("note: files were read as user {}, credentials as root", account.name));
    }
    if let Some(series) = &check.series {
        let (device, metric) = series.rsplit_once('/').unwrap_or((series, ""));
        return output::lines(loaded.describe_policy(device, metric));
    }
    let file = check.role.map(Role::file);
    let mut report = CheckReport { failed: 0, unusable: 0, written: output::lines(loaded.describe(file)) };
    let settings = &loaded.settings;
    // The packaged services read only the packaged directory.
    let is_packaged = places.dir == Path::new(config::DIR);
    let paths = if is_packaged { loaded.paths(file) } else { Vec::new() };
    let check_files = || [files::check(settings, file), files::unseen(settings, &paths)].concat();
    let found = account::acting(account.as_ref(), check_files);
    let found = found.map_err(|e| Error::internal(format_args!("cannot read as another user: {e}")))?;
    if check.connect || !found.is_empty() {
        report.line("");
    }
    found.into_iter().for_each(|finding| report.add(finding));
    if check.connect {
        kafka::try_all(settings, file, &mut report);
        if file != Some(ShippedFile::Producer) {
            try_postgres(settings, file, &mut report);
        }
    }
    report.result()
}

/// Reads the file of each role. Returns a sentence for each that changes settings, which are not printed.
///
/// # Errors
/// 78 with the problems of all these files.
fn of_roles(loaded: &Loaded, places: &SettingFiles, account: Option<&Account>) -> Result<Vec<String>> {
    let (mut notes, mut errors) = (Vec::new(), Vec::<Error>::new());
    for role in [Role::Producer, Role::Detector, Role::Dashboard] {
        let file = role.file();
        match config::load_as(&SettingFiles { file: Some(file), ..places.clone() }, account) {
            Ok(with) => {
                let changed = loaded.changed(&with);
                if !changed.is_empty() {
                    notes.push(format!(
                        "{} sets {}, which only its role uses: `anomaly check --role {}` checks and prints them",
                        foreign::path(&places.dir.join(file.name())),
                        changed.join(", "),
                        role.name()
                    ));
                }
            }
            Err(error) => errors.push(error),
        }
    }
    let messages = errors.iter().map(|error| error.message.as_str()).collect::<Vec<_>>().join("\n\n");
    match errors.pop() {
        Some(error) => Err(read_as(Error { message: messages, ..error }, account)),
        None => Ok(notes),
    }
}

/// Returns the user that reads the files: the given one. Without it, root reads as the services' user, if that exists.
fn reader(user: Option<&str>) -> Result<Option<Account>> {
    let unreadable = |e| Error::no_input(format_args!("cannot read the users of this machine: {e}"));
    match user {
        None if !account::is_root() => Ok(None),
        None => Account::find(account::SERVICE).map_err(unreadable),
        Some("root") if account::is_root() => Ok(None),
        Some(name) if !account::is_root() && name != account::reader(None) => {
            Err(Error::usage("--user: only root may read as another user"))
        }
        Some(_) if !account::is_root() => Ok(None),
        Some(name) => match Account::find(name).map_err(unreadable)? {
            Some(account) => Ok(Some(account)),
            None => Err(Error::usage(format_args!("--user: this machine has no user {name}"))),
        },
    }
}

/// Adds the user that read the files to an error, because root could read all of them.
fn read_as(error: Error, account: Option<&Account>) -> Error {
    match account {
        Some(account) => {
            let message =
                format!("{}\n\nnote: read as user {}; `--user root` reads as root", error.message, account.name);
            Error { message, ..error }
        }
        None => error,
    }
}

/// Prints findings and counts the bad ones.
struct CheckReport {
    failed: usize,
    unusable: usize,
    /// Result of printing. The other checks still run, so that the exit code does not depend on the reader of the
    /// lines.
    written: Result<()>,
}

impl CheckReport {
    fn add(&mut self, finding: Finding) {
        let word = match finding.grade {
            Grade::Good => "ok     ",
            Grade::Doubtful => "warning",
            Grade::Wrong | Grade::Unusable => "FAILED ",
        };
        self.failed += usize::from(finding.grade >= Grade::Wrong);
        self.unusable += usize::from(finding.grade == Grade::Unusable);
        self.line(&format!("{word} {}: {}", finding.what, finding.text));
    }

    fn tried(&mut self, what: &str, result: Result<String, String>) {
        self.add(Finding::of(what, result));
    }

    fn line(&mut self, text: &str) {
        if self.written.is_ok() {
            self.written = output::line(text);
        }
    }

    fn result(self) -> Result<()> {
        let text = match self.failed {
            0 => return self.written,
            1 => "1 check failed".to_owned(),
            n => format!("{n} checks failed"),
        };
        Err(if self.unusable > 0 { Error::config(text) } else { Error::unavailable(text) })
    }
}

fn try_postgres(settings: &Settings, file: Option<ShippedFile>, report: &mut CheckReport) {
    let postgres = &settings.postgres;
    let place = format!("{} at {}:{} as {}", postgres.dbname, postgres.host, postgres.port, postgres.user);
    let mut client = match store::connect(postgres) {
        Ok(client) => client,
        Err(e) => return report.tried("PostgreSQL", Err(format!("{place}: {e}"))),
    };
    report.tried("PostgreSQL", Ok(place));
    report.tried("encoding", store::migrate::encoding(&mut client).unwrap_or_else(|e| Err(e.to_string())));
    let schema = match store::migrate::state(&mut client) {
        Err(e) => Err(e.to_string()),
        Ok(state) => state.problem().map_or_else(|| Ok(format!("version {}", store::migrate::wanted())), Err),
    };
    let has_tables = schema.is_ok();
    report.tried("schema", schema);
    if has_tables {
        let only_reads = file == Some(ShippedFile::Dashboard);
        let permissions = match store::migrate::missing_permission(&mut client, only_reads) {
            Ok(None) => Ok(if only_reads { "select" } else { "select, insert, update, delete" }.to_owned()),
            Ok(Some(missing)) => Err(format!("no {missing}; grant it to {}", postgres.user)),
            Err(e) => Err(e.to_string()),
        };
        report.tried("permissions", permissions);
    }
    let clock = store::migrate::clock(&mut client).map_err(|e| e.to_string()).and_then(|theirs| {
        let off = theirs.millis() - Timestamp::now().millis();
        if off.abs() > CLOCK_MILLIS {
            Err(format!("the database's clock is {off} ms ahead of this machine's; is time synchronised?"))
        } else {
            Ok(format!("{off} ms apart"))
        }
    });
    report.tried("clock", clock);
    if let (true, Some(reviewer)) = (has_tables && file != Some(ShippedFile::Detector), dashboard::reviewer(settings)) {
        let added = store::connect(&reviewer).and_then(|mut client| Ok(store::query::try_review(&mut client)?));
        let added = added.map_err(|e| e.for_section("reviews").to_string());
        report.tried("reviews", added.map(|()| format!("{} may add them", reviewer.user)));
    }
}
