//! `anomaly migrate`: creates or upgrades the schema.

use super::output;
use crate::config::Settings;
use crate::config::resolved::PostgresSettings;
use crate::error::{Error, Result};
use crate::store::{self, migrate::SchemaState};

/// Connects as the role of `[migrate]`, if there is one, and applies the missing versions.
///
/// # Errors
/// 69 if the database is unavailable or refuses.
pub fn run(settings: &Settings) -> Result<()> {
    let mut postgres = settings.postgres.clone();
    let section = if settings.migrate.user.is_empty() { "postgres" } else { "migrate" };
    if !settings.migrate.user.is_empty() {
        postgres.user.clone_from(&settings.migrate.user);
        postgres.password.clone_from(&settings.migrate.password);
    }
    let (mut client, answers) =
        store::connect_adjustable(&postgres).map_err(|e| unreachable(&postgres, &e.for_section(section)))?;
    let state = store::migrate::state(&mut client).map_err(|e| unreachable(&postgres, &e))?;
    match store::migrate::encoding(&mut client).map_err(|e| unreachable(&postgres, &e))? {
        Err(why) if state == SchemaState::Missing => return Err(Error::config(why)),
        Err(why) => output::note(format_args!("warning: {why}")),
        Ok(_) => {}
    }
    if state == SchemaState::PreRelease {
        output::note("These commands export the tables, drop them and create the new ones:");
        let commands = store::migrate::replacement(&mut client, &postgres);
        for command in commands.map_err(|e| unreachable(&postgres, &store::explain(&e)))? {
            output::note(format_args!("  {command}"));
        }
    }
    let applied = store::migrate::migrate(&mut client, &answers, &postgres)?;
    if postgres.user != settings.postgres.user {
        let adds_reviews = settings.migrate.reviewer.is_empty();
        store::migrate::grant(&mut client, &postgres.schema, &settings.postgres.user, adds_reviews)?;
    }
    for (role, part) in [
        (&settings.migrate.reader, store::migrate::DashboardRole::Reads),
        (&settings.migrate.reviewer, store::migrate::DashboardRole::Reviews),
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

/// Applies the missing versions without printing anything, as one role for all.
///
/// # Errors
/// As [`run`].
pub fn apply(postgres: &PostgresSettings) -> Result<Vec<String>> {
    let (mut client, answers) = store::connect_adjustable(postgres).map_err(|e| unreachable(postgres, &e))?;
    store::migrate::migrate(&mut client, &answers, postgres)
}

/// Creates the error for a database that cannot be used, which names the database.
pub fn unreachable(postgres: &PostgresSettings, why: &impl std::fmt::Display) -> Error {
    Error::unavailable(format_args!(
        "cannot use database {} at {}:{} as {}: {why}",
        postgres.dbname, postgres.host, postgres.port, postgres.user
    ))
}
