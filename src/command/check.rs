//! `anomaly check`: the settings in force and where each came from; with `--connect`, whether what they name is there.

mod kafka;

use super::output;
use crate::cli::Role;
use crate::config::schema::File;
use crate::config::{Loaded, Settings};
use crate::error::{Error, Result};
use crate::event::Instant;
use crate::store;

/// A clock that is further off than this makes "now" on the pages misleading.
const CLOCK_MILLIS: i64 = 5_000;

/// Prints the settings; with `connect`, one line for each thing that was tried.
///
/// # Errors
/// 69 when something that was tried is not in order.
pub fn run(loaded: &Loaded, file: Option<File>, connect: bool) -> Result<()> {
    let mut written = output::lines(loaded.describe(file));
    if !connect {
        return written;
    }
    written = written.and_then(|()| output::line(""));
    let mut failed = 0;
    let mut tried = |what: &str, result: Result<String, String>| {
        let line = match result {
            Ok(note) => format!("ok      {what}: {note}"),
            Err(why) => {
                failed += 1;
                format!("FAILED  {what}: {why}")
            }
        };
        // The rest is tried all the same: the exit code is that of all checks, whoever reads the lines.
        if written.is_ok() {
            written = output::line(line);
        }
    };
    kafka::try_all(&loaded.settings, file, &mut tried);
    if file != Some(File::Producer) {
        try_postgres(&loaded.settings, file, &mut tried);
    }
    match failed {
        0 => written,
        1 => Err(Error::unavailable("1 check failed")),
        n => Err(Error::unavailable(format_args!("{n} checks failed"))),
    }
}

/// Says in one line what a role still needs to be told; what is told already may be wrong all the same.
///
/// # Errors
/// 78 when something is missing.
pub fn configured(loaded: &Loaded, role: Role) -> Result<()> {
    let (needs, unit) = (loaded.untold(role.file()), role.name());
    if needs.is_empty() {
        return output::line(format_args!("anomaly-{unit} is configured"));
    }
    let needs = needs.join(", and ");
    Err(Error::config(format_args!("anomaly-{unit} needs {needs}; then: systemctl enable --now anomaly-{unit}")))
}

type Tried<'a> = dyn FnMut(&str, Result<String, String>) + 'a;

fn try_postgres(settings: &Settings, file: Option<File>, tried: &mut Tried<'_>) {
    let postgres = &settings.postgres;
    let place = format!("{} at {}:{} as {}", postgres.dbname, postgres.host, postgres.port, postgres.user);
    let mut client = match store::connect(postgres) {
        Ok(client) => client,
        Err(e) => return tried("PostgreSQL", Err(format!("{place}: {e}"))),
    };
    tried("PostgreSQL", Ok(place));
    let (wanted, found) = (store::migrate::wanted(), store::migrate::version(&mut client));
    let schema = match found {
        Err(e) => Err(e.to_string()),
        Ok(Some(version)) if version == wanted => Ok(format!("version {version}")),
        Ok(None) => Err("there are no tables; run `anomaly migrate`".into()),
        Ok(Some(version)) if version < wanted => Err(format!("version {version} of {wanted}; run `anomaly migrate`")),
        Ok(Some(version)) => {
            Err(format!("version {version}, newer than this program knows ({wanted}); upgrade anomaly"))
        }
    };
    let has_tables = schema.is_ok();
    tried("schema", schema);
    if has_tables {
        let wanted: &[&str] = if file == Some(File::Dashboard) { &["select"] } else { &["select", "insert", "update"] };
        let rights = match store::migrate::missing_right(&mut client, wanted) {
            Ok(None) => Ok(wanted.join(", ")),
            Ok(Some(missing)) => Err(format!("no {missing}; grant it to {}", postgres.user)),
            Err(e) => Err(e.to_string()),
        };
        tried("rights", rights);
    }
    let clock = store::migrate::clock(&mut client).map_err(|e| e.to_string()).and_then(|theirs| {
        let off = theirs.millis() - Instant::now().millis();
        if off.abs() > CLOCK_MILLIS {
            Err(format!("the database's clock is {off} ms ahead of ours; is time synchronised?"))
        } else {
            Ok(format!("{off} ms apart"))
        }
    });
    tried("clock", clock);
}
