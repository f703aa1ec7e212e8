//! Errors of the database: it is unreachable, too slow, or refuses. Each error includes what to do.

use std::error::Error as _;
use std::fmt;

use postgres::error::DbError;
use rustix::io::Errno;

use super::deadline::Overdue;
use crate::archive;
use crate::foreign;
use crate::ledger::LedgerError;
use crate::unavailable::Unavailable;

/// Reason why the database did not do what was requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseError {
    /// The database gives no answer, or is starting or stopping. A retry may succeed.
    Unavailable(Unavailable),
    /// The database reports that a time limit was reached, or every connection is in use.
    Slow(String),
    /// This process has too few file descriptors, threads or memory for a connection, with the cause.
    Shortage(String),
    /// The database refused, and a person must act.
    Refused(Refusal),
}

/// An error with which the database refuses a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// SQLSTATE; empty if the connection itself cannot be used.
    pub state: String,
    /// Message of the server, with its detail.
    pub message: String,
    /// Remedy for people; it may be empty.
    pub remedy: String,
    /// Name of the constraint that a row violates, if the server reports it.
    pub constraint: Option<String>,
    /// Name of the table, if the server reports it.
    pub table: Option<String>,
}

/// SQLSTATE of a row that violates a constraint, or that no partition of its table accepts. In the second case the
/// server names no constraint.
const CHECK_VIOLATION: &str = "23514";

/// The partitioned table, which the server names if it has no partition for a row.
const PARTITIONED: &str = "anomalies";

impl Refusal {
    /// Returns whether no partition of the table accepts a row.
    pub(super) fn is_without_partition(&self) -> bool {
        self.state == CHECK_VIOLATION && self.constraint.is_none()
    }

    /// Returns whether a partition was created for a row while the row waited for the default partition. A retry then
    /// succeeds. In this case the server names the default partition, otherwise the table itself.
    pub(super) fn is_late_partition(&self) -> bool {
        self.is_without_partition() && self.table.as_deref().is_some_and(|table| table != PARTITIONED)
    }
}

impl DatabaseError {
    /// Creates the error for a connection that this program considers unusable.
    pub fn unusable(message: impl fmt::Display, remedy: impl fmt::Display) -> DatabaseError {
        let (message, remedy) = (message.to_string(), remedy.to_string());
        DatabaseError::Refused(Refusal { state: String::new(), message, remedy, constraint: None, table: None })
    }

    /// Converts to the error of the pages' queries.
    pub fn for_archive(self) -> archive::NoAnswer {
        match self {
            DatabaseError::Unavailable(unavailable) => archive::NoAnswer::Unavailable(unavailable),
            DatabaseError::Slow(_) => archive::NoAnswer::Slow,
            DatabaseError::Shortage(_) => archive::NoAnswer::Refused(self.sentence()),
            DatabaseError::Refused(refusal) => archive::NoAnswer::Refused(refusal.to_string()),
        }
    }

    /// Converts to the error of the sink.
    pub fn for_ledger(self) -> LedgerError {
        match self {
            DatabaseError::Unavailable(unavailable) => LedgerError::Unavailable(unavailable),
            DatabaseError::Slow(_) => LedgerError::Slow(self.sentence()),
            DatabaseError::Shortage(_) | DatabaseError::Refused(_) => LedgerError::Failed(self.sentence()),
        }
    }

    /// Names the user and the password of another section than `[postgres]` in the remedy, such as those of `[migrate]`.
    pub fn for_section(self, section: &str) -> DatabaseError {
        match self {
            DatabaseError::Refused(refusal) => {
                let remedy = ["user", "password"].iter().fold(refusal.remedy, |remedy, key| {
                    remedy.replace(&format!("postgres.{key}"), &format!("{section}.{key}"))
                });
                DatabaseError::Refused(Refusal { remedy, ..refusal })
            }
            other => other,
        }
    }

    /// Returns who failed and, if a person must act, how.
    pub fn sentence(&self) -> String {
        match self {
            DatabaseError::Unavailable(unavailable) => unavailable.to_string(),
            DatabaseError::Slow(why) => format!("PostgreSQL is too slow: {why}"),
            DatabaseError::Shortage(cause) => format!(
                "this process has too few file descriptors or threads for a connection to PostgreSQL: {cause}. Raise \
                 LimitNOFILE and TasksMax of its unit"
            ),
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
    /// Classifies the error by SQLSTATE if the server answered. Otherwise a broken connection is unavailability.
    /// Anything else, such as an untrusted certificate or a missing password, is a refusal.
    fn from(error: postgres::Error) -> Self {
        DatabaseError::of(&error)
    }
}

impl DatabaseError {
    /// Classifies the error as the conversion does.
    pub fn of(error: &postgres::Error) -> Self {
        let message = explain(error);
        let Some(answer) = error.as_db_error() else {
            if let Some(cause) = connection_error(error).filter(|cause| is_shortage(cause)) {
                return DatabaseError::Shortage(cause.to_string());
            }
            return match connection_error(error).map(std::io::Error::kind) {
                _ if is_alert(error) => DatabaseError::unusable(message, ALERT),
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
            // The server was stopped by an administrator or a crash, is starting, or was idle for too long. Or there is
            // a deadlock, or a conflict on a standby.
            "57P01" | "57P02" | "57P03" | "57P05" => DatabaseError::Unavailable(Unavailable::postgresql(message)),
            _ if state.starts_with("40") => DatabaseError::Unavailable(Unavailable::postgresql(message)),
            // Statement timeout or cancellation; lock timeout.
            "57014" | "55P03" => DatabaseError::Slow(message),
            _ => {
                let mut refusal = Refusal {
                    state: state.to_owned(),
                    message: said(answer),
                    remedy: String::new(),
                    constraint: answer.constraint().map(str::to_owned),
                    table: answer.table().map(str::to_owned),
                };
                refusal.remedy = remedy(&refusal).to_owned();
                DatabaseError::Refused(refusal)
            }
        }
    }
}

const STANDBY: &str =
    "It is a read-only standby: name the primary in postgres.host, or all hosts with commas between them";

const ALERT: &str = "The server has ended the TLS session: postgres.sslcert must be valid now, and signed by an authority of the \
                     server's ssl_ca_file";

/// Returns the remedy for a refusal, by SQLSTATE.
fn remedy(refusal: &Refusal) -> &'static str {
    match refusal.state.as_str() {
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
        "42501" => "Run `anomaly migrate` as the owner of the tables, which grants the permissions, or grant them",
        _ if refusal.is_late_partition() => "Partitions of the table are being created; the next attempt finds them",
        _ if refusal.is_without_partition() => {
            "The table has no partition for this row: attach anomalies_rest again as the default partition of anomalies"
        }
        "26000" | "42P05" => POOLING,
        "08P01" => "A connection pooler such as PgBouncer may be in between: its log says more",
        _ => "",
    }
}

/// Requirement for a pooler, for the remedy of an error.
pub(super) const POOLING: &str =
    "Transaction pooling is not supported: use pool_mode = session for this database, or connect to PostgreSQL itself";

/// Returns whether the system refused a resource to this process: file descriptors, memory or threads.
fn is_shortage(error: &std::io::Error) -> bool {
    let codes = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS];
    codes.iter().any(|code| error.raw_os_error() == Some(code.raw_os_error()))
}

/// Returns the first I/O error in the chain.
fn connection_error(error: &postgres::Error) -> Option<&std::io::Error> {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return Some(io);
        }
        source = inner.source();
    }
    None
}

/// Returns whether this program closed the connection because no answer came in time. `false` for a connection that the
/// operating system closed while it was idle.
pub(super) fn is_overdue(error: &postgres::Error) -> bool {
    connection_error(error).and_then(std::io::Error::get_ref).is_some_and(|inner| inner.is::<Overdue>())
}

/// Returns whether the server answered with a TLS alert. From TLS 1.3 on the server checks the client's certificate
/// after the handshake. The alert therefore appears as an error of reading.
fn is_alert(error: &postgres::Error) -> bool {
    /// OpenSSL's `SSL_AD_REASON_OFFSET`, which is added to the number of an alert to give its reason code.
    const OFFSET: i32 = 1000;
    let Some(io) = error.source().and_then(|source| source.downcast_ref::<std::io::Error>()) else { return false };
    let inner = io.get_ref().and_then(|inner| inner.downcast_ref::<openssl::ssl::Error>());
    let reasons = inner.and_then(openssl::ssl::Error::ssl_error).map(openssl::error::ErrorStack::errors);
    // A connection that ends without a TLS close is an error of the session too, but not an alert.
    reasons.unwrap_or_default().iter().any(|one| (OFFSET..OFFSET + 256).contains(&one.reason_code()))
}

/// Returns the server's message with its detail, which may contain text of others.
fn said(answer: &DbError) -> String {
    let detail = answer.detail().map(|detail| format!(" ({})", foreign::text(detail))).unwrap_or_default();
    format!("{}{detail}", foreign::text(answer.message()))
}

/// Returns the messages of the whole chain of an error, because the crate's own text lacks the server's message.
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
