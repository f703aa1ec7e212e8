//! TLS to the database, as `postgres.sslmode`, `sslrootcert`, `sslcert` and `sslkey` say.

use std::sync::OnceLock;

use openssl::pkey::PKey;
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use postgres_openssl::MakeTlsConnector;

use crate::config::resolved::Postgres;
use crate::error::{Error, Result};

/// What makes connections secure.
///
/// # Errors
/// 78 when a file cannot be used.
pub fn connector(settings: &Postgres) -> Result<MakeTlsConnector> {
    /// Trusts everybody. To read the system's certificates, as each new one does, takes longer than to connect.
    static TRUSTFUL: OnceLock<MakeTlsConnector> = OnceLock::new();
    let is_plain = settings.sslrootcert.is_empty() && settings.sslcert.is_empty() && settings.sslkey.is_empty();
    let is_trustful = is_plain && !settings.sslmode.starts_with("verify");
    if let Some(known) = TRUSTFUL.get().filter(|_| is_trustful) {
        return Ok(known.clone());
    }
    let connector = read(settings)?;
    if is_trustful {
        // Another thread may have been quicker; its is as good.
        let _ = TRUSTFUL.set(connector.clone());
    }
    Ok(connector)
}

fn read(settings: &Postgres) -> Result<MakeTlsConnector> {
    let broken = |e: openssl::error::ErrorStack| Error::config(format_args!("TLS to PostgreSQL cannot be used: {e}"));
    let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(broken)?;
    if !settings.sslrootcert.is_empty() {
        builder.set_ca_file(&settings.sslrootcert).map_err(|e| unusable("sslrootcert", &settings.sslrootcert, e))?;
    }
    if !settings.sslcert.is_empty() {
        builder.set_certificate_chain_file(&settings.sslcert).map_err(|e| unusable("sslcert", &settings.sslcert, e))?;
        let key = std::fs::read(&settings.sslkey).map_err(|e| unusable("sslkey", &settings.sslkey, e))?;
        // OpenSSL would ask the terminal for a passphrase.
        let key = PKey::private_key_from_pem_callback(&key, |_| Ok(0)).map_err(|e| {
            unusable("sslkey", &settings.sslkey, format_args!("{e}; it must be PEM, and have no passphrase"))
        })?;
        builder.set_private_key(&key).map_err(|e| unusable("sslkey", &settings.sslkey, e))?;
        builder.check_private_key().map_err(|e| {
            unusable("sslkey", &settings.sslkey, format_args!("it does not belong to postgres.sslcert: {e}"))
        })?;
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

fn unusable(key: &str, file: &str, why: impl std::fmt::Display) -> Error {
    Error::config(format_args!("postgres.{key} `{file}` cannot be used: {why}"))
}
