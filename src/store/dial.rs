//! Dials the hosts of the settings, with deadlines and TLS.

use std::time::Duration;

use postgres::config::{SslMode, SslNegotiation, TargetSessionAttrs};

use super::deadline::{AnswerLimit, Encryption, MakeDeadlineConnector};
use super::failure::DatabaseError;
use super::{shortage, tls};
use crate::config::resolved::PostgresSettings;
use crate::unavailable::Unavailable;

/// Interval between two probes of a silent connection, of which three may fail.
const KEEPALIVE: Duration = Duration::from_secs(1);

/// Opens a connection on which nothing is set, to the first host that accepts one. Every connection is opened here.
/// Each step and each answer has a deadline, except over a Unix socket.
pub(super) fn dial(settings: &PostgresSettings) -> Result<(postgres::Client, AnswerLimit), DatabaseError> {
    let tls = tls::connector(settings).map_err(|e| DatabaseError::unusable(e.message, ""))?;
    let limit = AnswerLimit::new(settings);
    let encryption = match settings.sslmode.as_str() {
        "disable" => Encryption::Never,
        "prefer" => Encryption::IfOffered,
        _ => Encryption::Always,
    };
    let connector =
        MakeDeadlineConnector { tls, encryption, handshake: settings.connect_timeout, limit: limit.clone() };
    let mut failure = DatabaseError::unusable("no host is named", "Set postgres.host");
    for host in hosts(settings) {
        match dial_host(settings, host, connector.clone()) {
            Ok(client) => return Ok((client, limit)),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn dial_host(
    settings: &PostgresSettings,
    host: &str,
    connector: MakeDeadlineConnector,
) -> Result<postgres::Client, DatabaseError> {
    let mut config = connection(settings, host);
    let connected = match host.starts_with('/') {
        // The crate `postgres` does not let a connector wrap a Unix socket, and there is no TLS over it.
        true => {
            config.ssl_mode(connector.encryption.mode());
            shortage::open(|| config.connect(connector.tls))
        }
        false => {
            config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
            shortage::open(|| config.connect(connector))
        }
    };
    connected.map_err(|error| match error {
        // In TLS 1.3 the server checks the client's certificate after the handshake. Its alert may be lost with the
        // connection.
        DatabaseError::Unavailable(Unavailable { cause, .. }) if !settings.sslcert.is_empty() => {
            DatabaseError::Unavailable(Unavailable::postgresql(format!(
                "{cause}; perhaps it refuses the certificate in postgres.sslcert: its log says so"
            )))
        }
        other => other,
    })
}

fn hosts(settings: &PostgresSettings) -> impl Iterator<Item = &str> {
    settings.host.split(',').map(str::trim).filter(|host| !host.is_empty())
}

fn connection(settings: &PostgresSettings, host: &str) -> postgres::Config {
    let mut config = postgres::Config::new();
    let timeout = settings.connect_timeout;
    config.host(host);
    if hosts(settings).count() > 1 {
        // Of a primary and its standbys, only the primary accepts writes.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    config
        .port(settings.port)
        .dbname(&settings.dbname)
        .user(&settings.user)
        .application_name("anomaly")
        .connect_timeout(timeout)
        .tcp_user_timeout(timeout)
        // The operating system takes whole seconds.
        .keepalives_idle(timeout.max(KEEPALIVE))
        .keepalives_interval(KEEPALIVE)
        .keepalives_retries(3);
    if !settings.password.reveal().is_empty() {
        config.password(settings.password.reveal());
    }
    config
}
