//! How the database could not do what was asked: it is unreachable, it is too slow, or it refuses. Each says what to do.

use std::error::Error as _;
use std::fmt;

use postgres::error::DbError;

use crate::archive;
use crate::foreign;
use crate::ledger::LedgerError;
use crate::unavailable::Unavailable;

/// Why the database did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseError {
    /// It gives no answer, or it is starting or stopping: worth waiting for.
    Unavailable(Unavailable),
    /// It answered that a limit of time was reached, or every connection is in use.
    Slow(String),
    /// It answered, and refused: a person must act.
    Refused(Refusal),
}

/// The answer with which the database refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// SQLSTATE; empty where the connection itself cannot be used.
    pub state: String,
    /// What the server says, with its detail.
    pub message: String,
    /// What to do; may be empty.
    pub remedy: String,
    /// The constraint that a row violates, where the server names one.
    pub constraint: Option<String>,
}

impl DatabaseError {
    /// A connection that cannot be used, found by this program.
    pub fn unusable(message: impl fmt::Display, remedy: impl fmt::Display) -> DatabaseError {
        let (message, remedy) = (message.to_string(), remedy.to_string());
        DatabaseError::Refused(Refusal { state: String::new(), message, remedy, constraint: None })
    }

    /// As the pages' questions know it.
    pub fn for_archive(self) -> archive::NoAnswer {
        match self {
            DatabaseError::Unavailable(unavailable) => archive::NoAnswer::Unavailable(unavailable),
            DatabaseError::Slow(_) => archive::NoAnswer::Slow,
            DatabaseError::Refused(refusal) => archive::NoAnswer::Refused(refusal.to_string()),
        }
    }

    /// As the sink knows it.
    pub fn for_ledger(self) -> LedgerError {
        match self {
            DatabaseError::Unavailable(unavailable) => LedgerError::Unavailable(unavailable),
            other => LedgerError::Failed(other.sentence()),
        }
    }

    /// Who failed us and, where a person must mend it, how.
    pub fn sentence(&self) -> String {
        match self {
            DatabaseError::Unavailable(unavailable) => unavailable.to_string(),
            DatabaseError::Slow(why) => format!("PostgreSQL is too slow: {why}"),
            DatabaseError::Refused(refusal) => format!("PostgreSQL refuses: {refusal}"),
        }
    }
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence())
    }
}

impl std::error::Error for DatabaseError {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal { state, message, remedy, .. } = self;
        if !state.is_empty() {
            write!(f, "{state}: ")?;
        }
        f.write_str(message)?;
        if !remedy.is_empty() {
            write!(f, ". {remedy}")?;
        }
        Ok(())
    }
}

impl From<postgres::Error> for DatabaseError {
    /// By SQLSTATE where the server answered; else a broken connection is an absence, and anything else (a certificate that is
    /// not trusted, a password that is missing) is a refusal.
    fn from(error: postgres::Error) -> Self {
        let message = explain(&error);
        let Some(answer) = error.as_db_error() else {
            return match connection_error(&error) {
                _ if is_alert(&error) => DatabaseError::unusable(message, ALERT),
                Some(std::io::ErrorKind::PermissionDenied) => DatabaseError::unusable(message, STANDBY),
                Some(_) => DatabaseError::Unavailable(Unavailable::postgresql(message)),
                None if error.is_closed() => DatabaseError::Unavailable(Unavailable::postgresql(message)),
                None => DatabaseError::unusable(
                    message,
                    "Look at postgres.sslmode and postgres.sslrootcert; a missing password belongs into \
                     /etc/anomaly/credentials/postgres.password, followed by a restart",
                ),
            };
        };
        let state = answer.code().code();
        match state {
            // Stopped by an administrator or a crash, starting, idle for too long; a deadlock or a conflict on a standby.
            "57P01" | "57P02" | "57P03" | "57P05" => DatabaseError::Unavailable(Unavailable::postgresql(message)),
            _ if state.starts_with("40") => DatabaseError::Unavailable(Unavailable::postgresql(message)),
            // Statement timeout or cancelled; lock timeout.
            "57014" | "55P03" => DatabaseError::Slow(message),
            _ => DatabaseError::Refused(Refusal {
                state: state.to_owned(),
                message: said(answer),
                remedy: remedy(state, answer.constraint()).to_owned(),
                constraint: answer.constraint().map(str::to_owned),
            }),
        }
    }
}

const STANDBY: &str =
    "It is a read-only standby: name the primary in postgres.host, or all hosts with commas between them";

const ALERT: &str = "The server has ended the TLS session: postgres.sslcert must be valid now, and signed by an authority of the \
                     server's ssl_ca_file";

/// What to do about a refusal, by SQLSTATE.
fn remedy(state: &str, constraint: Option<&str>) -> &'static str {
    match state {
        "28P01" => {
            "Correct postgres.user and the password in /etc/anomaly/credentials/postgres.password (or \
             postgres.password_file), then restart"
        }
        "28000" => {
            "The role must exist and may log in (alter role ... login), and pg_hba.conf must have a line for it, this \
             database, this address and postgres.sslmode. Where that line asks for a certificate, set postgres.sslcert and \
             postgres.sslkey; its common name must be the role's, or pg_ident.conf must map it"
        }
        "3D000" => "Create the database, or correct postgres.dbname",
        "53300" => "Raise max_connections or the connection limit of the role or the database, or end other sessions",
        "53100" => "Free space on the database's disk",
        "53200" | "53000" => "Raise max_locks_per_transaction, or give the server more memory",
        "25006" => STANDBY,
        "42P01" | "42703" | "42883" | "3F000" => {
            "The tables are missing or older than this program: run `anomaly migrate`"
        }
        "42501" => "Run `anomaly migrate` as the owner of the tables, which grants the rights, or grant them",
        "23514" if constraint.is_none() => {
            "The table has no partition for this row: attach anomalies_rest again as the default partition of anomalies"
        }
        "26000" | "42P05" => POOLING,
        "08P01" => "A connection pooler such as PgBouncer may be in between: its log says more",
        _ => "",
    }
}

/// What a pooler must be for this program.
pub(super) const POOLING: &str =
    "Transaction pooling is not supported: use pool_mode = session for this database, or connect to PostgreSQL itself";

/// The kind of the first I/O error in the chain.
fn connection_error(error: &postgres::Error) -> Option<std::io::ErrorKind> {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        source = inner.source();
    }
    None
}

/// Whether the server answered with an alert of TLS. From version 1.3 on it judges our certificate after the handshake, so that the
/// alert comes as an error of reading.
fn is_alert(error: &postgres::Error) -> bool {
    /// OpenSSL's `SSL_AD_REASON_OFFSET`: the reason for an alert is its number added to this.
    const OFFSET: i32 = 1000;
    let Some(io) = error.source().and_then(|source| source.downcast_ref::<std::io::Error>()) else { return false };
    let inner = io.get_ref().and_then(|inner| inner.downcast_ref::<openssl::ssl::Error>());
    let reasons = inner.and_then(openssl::ssl::Error::ssl_error).map(openssl::error::ErrorStack::errors);
    // An end without a farewell is an error of the session too, and no alert.
    reasons.unwrap_or_default().iter().any(|one| (OFFSET..OFFSET + 256).contains(&one.reason_code()))
}

/// The server's message with its detail, which may hold text of others.
fn said(answer: &DbError) -> String {
    let detail = answer.detail().map(|detail| format!(" ({})", foreign::text(detail))).unwrap_or_default();
    format!("{}{detail}", foreign::text(answer.message()))
}

/// The whole chain of an error: postgres' own text hides the server's message.
pub fn explain(error: &postgres::Error) -> String {
    if let Some(answer) = error.as_db_error() {
        return format!("{}: {}", answer.code().code(), said(answer));
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
