//! Prepares connections. Time zone, search path and timeout are set on each new connection and read back. A pooler that
//! changes the session between transactions is detected, because these settings do not last.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant as Monotonic};

use postgres::{Client, SimpleQueryMessage};

use super::dial::dial;
use super::failure::{DatabaseError, POOLING};
use crate::archive::NoAnswer;
use crate::config::resolved::PostgresSettings;

/// Sets what this program needs on a connection, and reads it back.
///
/// # Errors
/// Refuses a connection that does not keep its settings.
pub(crate) fn prepare(client: &mut Client, settings: &PostgresSettings) -> Result<(), DatabaseError> {
    let timeout = settings.statement_timeout.as_millis().to_string();
    let schema = &settings.schema;
    let path = if schema.is_empty() { String::new() } else { format!("; set search_path to {schema}") };
    client.batch_execute(&format!("set timezone to 'UTC'; set statement_timeout to {timeout}{path}"))?;
    let found = values(
        client,
        "select current_setting('timezone'), (select setting from pg_settings where name = 'statement_timeout'),
                trim(both '\"' from current_setting('search_path'))",
    )?;
    let wanted =
        [("timezone", "UTC"), ("statement_timeout", timeout.as_str()), ("search_path", schema.trim_matches('"'))];
    for ((name, wanted), found) in wanted.into_iter().zip(found) {
        if found != wanted && !(name == "search_path" && schema.is_empty()) {
            return Err(DatabaseError::unusable(
                format_args!("the connection does not keep its settings: {name} was set to {wanted} and is {found}"),
                POOLING,
            ));
        }
    }
    Ok(())
}

/// Result of the probe of a server and a role.
enum SessionProbe {
    /// Each connection has a session of its own.
    Sessions,
    /// At that time no second connection was available.
    Alone(Monotonic),
}

/// Results of probes, by server and role.
static KNOWN: Mutex<BTreeMap<String, SessionProbe>> = Mutex::new(BTreeMap::new());

/// Time until the next probe if no second connection was available. Each attempt may take the whole `connect_timeout`.
const TRY_AGAIN: Duration = Duration::from_secs(60);

fn known() -> MutexGuard<'static, BTreeMap<String, SessionProbe>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Checks once for each server and role whether a second connection shares the session of this one. If no second
/// connection is available, the check is repeated a minute later.
///
/// # Errors
/// Refuses a session that is shared.
pub(crate) fn probe(client: &mut Client, settings: &PostgresSettings) -> Result<(), DatabaseError> {
    let PostgresSettings { host, port, dbname, user, .. } = settings;
    let place = format!("{user}@{host}:{port}/{dbname}");
    match known().get(&place) {
        Some(SessionProbe::Sessions) => return Ok(()),
        Some(SessionProbe::Alone(at)) if at.elapsed() < TRY_AGAIN => return Ok(()),
        Some(SessionProbe::Alone(_)) | None => {}
    }
    let Some(mut other) = second(settings) else {
        known().insert(place, SessionProbe::Alone(Monotonic::now()));
        return Ok(());
    };
    // A pooler may assign its sessions in turn: one of the two connections then sees another session.
    for turn in 0..3 {
        let token = format!("{}-{turn}", std::process::id());
        values(client, &format!("select set_config('anomaly.session', '{token}', false)"))?;
        let others = values(&mut other, "select coalesce(current_setting('anomaly.session', true), '')")?;
        let own = values(client, "select coalesce(current_setting('anomaly.session', true), '')")?;
        if others == [token.as_str()] || own != [token.as_str()] {
            return Err(DatabaseError::unusable(
                "two connections share one session, or one connection changes its session: a pooler in between gives each \
                 transaction another one",
                POOLING,
            ));
        }
    }
    known().insert(place, SessionProbe::Sessions);
    Ok(())
}

/// Discards the results, so that the next connection is probed again. The pooler's settings may have changed.
fn forget() {
    known().clear();
}

/// Converts an error to a [`NoAnswer`] with the remedy, as [`noted`] does.
pub(crate) fn failure(error: postgres::Error) -> NoAnswer {
    noted(error).for_archive()
}

/// Classifies an error. If a pooler changed the session of a transaction, the next connection is probed again.
pub(crate) fn noted(error: postgres::Error) -> DatabaseError {
    let failure = DatabaseError::from(error);
    if let DatabaseError::Refused(refusal) = &failure
        && ["26000", "42P05"].contains(&refusal.state.as_str())
    {
        forget();
    }
    failure
}

/// Opens a second connection with a session. It uses a thread, because a pooler may let it wait for minutes.
fn second(settings: &PostgresSettings) -> Option<Client> {
    let (sender, receiver) = mpsc::channel();
    let (own, timeout) = (settings.clone(), settings.connect_timeout);
    let probe = move || {
        let ready = dial(&own).and_then(|(mut client, _)| {
            values(&mut client, "select set_config('anomaly.session', '', false)")?;
            Ok(client)
        });
        let _ = sender.send(ready);
    };
    std::thread::Builder::new().name("probe".into()).spawn(probe).ok()?;
    receiver.recv_timeout(timeout).ok()?.ok()
}

/// Returns the first row of a statement as texts. The statement is not prepared.
fn values(client: &mut Client, sql: &str) -> Result<Vec<String>, DatabaseError> {
    let messages = client.simple_query(sql)?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(row.map_or_else(Vec::new, |row| (0..row.len()).map(|at| row.get(at).unwrap_or_default().to_owned()).collect()))
}
