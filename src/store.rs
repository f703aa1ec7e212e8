//! PostgreSQL: the pool, the schema's migrations, what the sink and the heartbeat write, what the pages read.
//! Everything here blocks; callers inside an async runtime use a thread of their own or `spawn_blocking`.

mod copy;
mod follower;
pub mod heartbeat;
pub mod maintain;
mod marks;
pub mod migrate;
pub mod query;
mod reader;
pub mod row;
pub mod sink;

use std::error::Error as _;
use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use postgres::config::SslMode;
use postgres_openssl::MakeTlsConnector;
use r2d2_postgres::PostgresConnectionManager;

pub use reader::Reader;

use crate::archive::StatusRow;
use crate::config::resolved::Postgres;
use crate::error::{Error, Result};
use crate::foreign;

/// Connections that are made when they are needed.
pub type Pool = r2d2::Pool<PostgresConnectionManager<MakeTlsConnector>>;
/// One of them; it goes back on drop.
pub type Connection = r2d2::PooledConnection<PostgresConnectionManager<MakeTlsConnector>>;

/// How the database could not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// Not reachable, going down, or out of resources: worth waiting for.
    Away(String),
    /// It answered, and refused.
    Refused(postgres::Error),
}

impl Failure {
    /// Who failed us and, where a person must mend it, how.
    pub fn sentence(&self) -> String {
        match self {
            Failure::Away(why) if why.contains("password missing") => {
                "PostgreSQL wants a password: put it into /etc/anomaly/credentials/postgres.password, then restart"
                    .into()
            }
            Failure::Away(why) => format!("PostgreSQL is away: {why}"),
            Failure::Refused(error) => match error.code().map(|c| c.code()) {
                Some("42P01" | "3F000") => "the tables are missing; run `anomaly migrate`".into(),
                _ => format!("PostgreSQL refuses: {}", explain(error)),
            },
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Away(why) => f.write_str(why),
            Failure::Refused(error) => f.write_str(&explain(error)),
        }
    }
}

impl From<postgres::Error> for Failure {
    /// By SQLSTATE class: 08 connection, 53 resources, 57 operator intervention, 40 rollback, 25006 read-only standby.
    fn from(error: postgres::Error) -> Self {
        match error.code().map(|state| state.code()) {
            Some("25006") => Failure::Away("it is a read-only standby; waiting for a server that takes writes".into()),
            Some(state) if !["08", "53", "57", "40"].contains(&&state[..2]) => Failure::Refused(error),
            _ => Failure::Away(explain(&error)),
        }
    }
}

/// The whole chain of an error: postgres' own text hides the server's message.
pub fn explain(error: &postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        let detail = db.detail().map(|d| format!(" ({})", foreign::text(d))).unwrap_or_default();
        return format!("{}: {}{detail}", db.code().code(), foreign::text(db.message()));
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// A pool of at most `size` connections; connects to nothing yet.
///
/// # Errors
/// 78 when the TLS settings cannot be used.
pub fn pool(settings: &Postgres, size: u32) -> Result<Pool> {
    let manager = PostgresConnectionManager::new(connection(settings), tls(settings)?);
    Ok(r2d2::Pool::builder()
        .max_size(size)
        .min_idle(Some(0))
        .connection_timeout(settings.connect_timeout)
        // A broken connection is noticed when it is used; a round trip before each use would cost more.
        .test_on_check_out(false)
        .error_handler(Box::new(r2d2::NopErrorHandler))
        .build_unchecked(manager))
}

/// One connection outside any pool, with the real reason when it fails (a pool only says that time ran out).
///
/// # Errors
/// As [`Failure`] says.
pub fn connect(settings: &Postgres) -> Result<postgres::Client, Failure> {
    let tls = tls(settings).map_err(|e| Failure::Away(e.message))?;
    connection(settings).connect(tls).map_err(Failure::from)
}

/// The last heartbeat of every partition, over a connection of its own.
///
/// # Errors
/// As [`Failure`] says.
pub fn status(settings: &Postgres) -> Result<Vec<StatusRow>, Failure> {
    query::status(&mut connect(settings)?).map_err(Failure::from)
}

/// A connection for writing; none to the schema of another version: nobody knows what a newer one means, and an older one
/// has not what is written.
///
/// # Errors
/// Why not, as a sentence.
fn open(settings: &Postgres) -> Result<postgres::Client, String> {
    let mut client = connect(settings).map_err(|e| e.sentence())?;
    let wanted = migrate::wanted();
    match migrate::version(&mut client).map_err(|e| e.sentence())? {
        Some(version) if version > wanted => Err(format!(
            "the database's schema is version {version}, newer than this program knows ({wanted}): upgrade anomaly"
        )),
        Some(version) if version < wanted => {
            Err(format!("the database's schema is version {version} of {wanted}: run `anomaly migrate`"))
        }
        _ => Ok(client),
    }
}

/// Between two probes of a silent connection, of which three may fail.
const KEEPALIVE: Duration = Duration::from_secs(1);

fn connection(settings: &Postgres) -> postgres::Config {
    let mut config = postgres::Config::new();
    let timeout = settings.connect_timeout;
    config
        .host(&settings.host)
        .port(settings.port)
        .dbname(&settings.dbname)
        .user(&settings.user)
        .application_name("anomaly")
        .connect_timeout(timeout)
        .tcp_user_timeout(timeout)
        .keepalives_idle(timeout)
        .keepalives_interval(KEEPALIVE)
        .keepalives_retries(3)
        .ssl_mode(match settings.sslmode.as_str() {
            "disable" => SslMode::Disable,
            "prefer" => SslMode::Prefer,
            _ => SslMode::Require,
        });
    if !settings.password.reveal().is_empty() {
        config.password(settings.password.reveal());
    }
    let mut options = format!("-c statement_timeout={} -c timezone=UTC", settings.statement_timeout.as_millis());
    if !settings.schema.is_empty() {
        options += &format!(" -c search_path={}", settings.schema);
    }
    config.options(&options);
    config
}

fn tls(settings: &Postgres) -> Result<MakeTlsConnector> {
    /// Trusts everybody. To read the system's certificates, as each new one does, takes longer than to connect.
    static TRUSTFUL: OnceLock<MakeTlsConnector> = OnceLock::new();
    let is_trustful = settings.sslrootcert.is_empty() && !settings.sslmode.starts_with("verify");
    if let Some(known) = TRUSTFUL.get().filter(|_| is_trustful) {
        return Ok(known.clone());
    }
    let connector = connector_of(settings)?;
    if is_trustful {
        // Another thread may have been quicker; its is as good.
        let _ = TRUSTFUL.set(connector.clone());
    }
    Ok(connector)
}

fn connector_of(settings: &Postgres) -> Result<MakeTlsConnector> {
    let unusable = |e: openssl::error::ErrorStack| {
        Error::config(format_args!("postgres.sslrootcert `{}` cannot be used: {e}", settings.sslrootcert))
    };
    let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(unusable)?;
    if !settings.sslrootcert.is_empty() {
        builder.set_ca_file(&settings.sslrootcert).map_err(unusable)?;
    }
    let (verifies, names) = match settings.sslmode.as_str() {
        "verify-full" => (true, true),
        "verify-ca" => (true, false),
        _ => (false, false),
    };
    builder.set_verify(if verifies { SslVerifyMode::PEER } else { SslVerifyMode::NONE });
    let mut connector = MakeTlsConnector::new(builder.build());
    connector.set_callback(move |ssl, _| {
        ssl.set_verify_hostname(names);
        Ok(())
    });
    Ok(connector)
}
