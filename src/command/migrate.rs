//! `anomaly migrate`: the schema.

use super::output;
use crate::config::Settings;
use crate::config::resolved::PostgresSettings;
use crate::error::{Error, Result};
use crate::store;

/// Connects as the role of `[migrate]`, if there is one, and applies what is missing.
///
/// # Errors
/// 69 when the database is away or refuses.
pub fn run(settings: &Settings) -> Result<()> {
    let mut postgres = settings.postgres.clone();
    if !settings.migrate.user.is_empty() {
        postgres.user.clone_from(&settings.migrate.user);
        postgres.password.clone_from(&settings.migrate.password);
    }
    let mut client = store::connect(&postgres).map_err(|e| unreachable(&postgres, &e))?;
    match store::migrate::unsuitable_encoding(&mut client).map_err(|e| unreachable(&postgres, &e))? {
        Some(why) if store::migrate::version(&mut client).map_err(|e| unreachable(&postgres, &e))?.is_none() => {
            return Err(Error::config(why));
        }
        Some(why) => output::note(format_args!("warning: {why}")),
        None => {}
    }
    let applied = store::migrate::migrate(&mut client, &postgres.schema)?;
    if postgres.user != settings.postgres.user {
        store::migrate::grant(&mut client, &postgres.schema, &settings.postgres.user)?;
    }
    for (role, part) in [
        (&settings.migrate.reader, store::migrate::DashboardRole::Reads),
        (&settings.migrate.marker, store::migrate::DashboardRole::Marks),
    ] {
        if !role.is_empty() {
            store::migrate::grant_page(&mut client, &postgres.schema, role, part)?;
        }
    }
    for name in &applied {
        output::line(format_args!("applied {name}"))?;
    }
    if applied.is_empty() {
        output::line(format_args!("the schema is up to date (version {})", store::migrate::wanted()))?;
    }
    Ok(())
}

/// The same without a word, as one role for all.
///
/// # Errors
/// As [`run`].
pub fn apply(postgres: &PostgresSettings) -> Result<Vec<String>> {
    let mut client = store::connect(postgres).map_err(|e| unreachable(postgres, &e))?;
    store::migrate::migrate(&mut client, &postgres.schema)
}

/// The database cannot be used; says which one.
pub fn unreachable(postgres: &PostgresSettings, why: &impl std::fmt::Display) -> Error {
    Error::unavailable(format_args!(
        "cannot use database {} at {}:{} as {}: {why}",
        postgres.dbname, postgres.host, postgres.port, postgres.user
    ))
}
