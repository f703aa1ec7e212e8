//! TLS of the database connection, from `postgres.sslmode`, `sslrootcert`, `sslcert` and `sslkey`.

use std::sync::OnceLock;

use openssl::pkey::PKey;
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use postgres_openssl::MakeTlsConnector;

use crate::config::resolved::PostgresSettings;
use crate::error::{Error, Result};
use crate::finding;

/// Creates the TLS connector from the settings.
///
/// # Errors
/// 78 if a file cannot be used.
pub(crate) fn connector(settings: &PostgresSettings) -> Result<MakeTlsConnector> {
    /// Connector that trusts every certificate. It is cached, because reading the system's certificates takes longer
    /// than connecting.
    static TRUSTFUL: OnceLock<MakeTlsConnector> = OnceLock::new();
    let is_plain = settings.sslrootcert.is_empty() && settings.sslcert.is_empty() && settings.sslkey.is_empty();
    let is_trustful = is_plain && !settings.sslmode.starts_with("verify");
    if let Some(known) = TRUSTFUL.get().filter(|_| is_trustful) {
        return Ok(known.clone());
    }
    let connector = read(settings)?;
    if is_trustful {
        // If another thread was faster, its connector is equally good.
        let _ = TRUSTFUL.set(connector.clone());
    }
    Ok(connector)
}

fn read(settings: &PostgresSettings) -> Result<MakeTlsConnector> {
    let broken = |e: openssl::error::ErrorStack| Error::config(format_args!("TLS to PostgreSQL cannot be used: {e}"));
    let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(broken)?;
    if !settings.sslrootcert.is_empty() {
        readable("sslrootcert", &settings.sslrootcert)?;
        builder.set_ca_file(&settings.sslrootcert).map_err(|e| unusable("sslrootcert", &settings.sslrootcert, e))?;
    }
    if !settings.sslcert.is_empty() {
        readable("sslcert", &settings.sslcert)?;
        builder.set_certificate_chain_file(&settings.sslcert).map_err(|e| unusable("sslcert", &settings.sslcert, e))?;
        let key = readable("sslkey", &settings.sslkey)?;
        // Without a callback OpenSSL would ask for a passphrase on the terminal.
        let key = PKey::private_key_from_pem_callback(&key, |_| Ok(0)).map_err(|e| {
            unusable("sslkey", &settings.sslkey, format_args!("{e}; it must be PEM, and have no passphrase"))
        })?;
        // OpenSSL also compares the key with the certificate.
        builder.set_private_key(&key).map_err(|e| {
            unusable("sslkey", &settings.sslkey, format_args!("is it the key of postgres.sslcert? {e}"))
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

/// Reads a file. It is checked before OpenSSL opens it, because OpenSSL would wait for the writer of a named pipe.
fn readable(key: &str, file: &str) -> Result<Vec<u8>> {
    finding::file::read_certificates(file.as_ref()).map_err(|e| unusable(key, file, e))
}

fn unusable(key: &str, file: &str, why: impl std::fmt::Display) -> Error {
    Error::config(format_args!("postgres.{key} `{file}` cannot be used: {why}"))
}

#[cfg(test)]
mod tests {
    use openssl::asn1::Asn1Time;
    use openssl::hash::MessageDigest;
    use openssl::pkey::Private;
    use openssl::rsa::Rsa;
    use openssl::symm::Cipher;
    use openssl::x509::X509Builder;

    use super::*;

    fn key() -> PKey<Private> {
        PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap()
    }

    #[test]
    fn a_key_of_another_certificate_or_with_a_passphrase_is_refused_with_its_setting_and_without_a_prompt() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: Vec<u8>| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path.display().to_string()
        };
        let (own, other) = (key(), key());
        let mut builder = X509Builder::new().unwrap();
        builder.set_pubkey(&own).unwrap();
        builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
        builder.sign(&own, MessageDigest::sha256()).unwrap();
        let certificate = write("own.crt", builder.build().to_pem().unwrap());
        let locked = own.private_key_to_pem_pkcs8_passphrase(Cipher::aes_128_cbc(), b"secret").unwrap();
        let keys = [
            (write("own.key", own.private_key_to_pem_pkcs8().unwrap()), ""),
            (write("other.key", other.private_key_to_pem_pkcs8().unwrap()), "is it the key of postgres.sslcert?"),
            (write("locked.key", locked), "have no passphrase"),
            (dir.path().join("none.key").display().to_string(), "No such file"),
        ];
        for (key, wanted) in keys {
            let mut settings = crate::config::load(&crate::config::SettingFiles::default()).unwrap().settings.postgres;
            (settings.sslcert, settings.sslkey) = (certificate.clone(), key.clone());
            let why = connector(&settings).err().map(|e| e.message).unwrap_or_default();
            assert_eq!(why.is_empty(), wanted.is_empty(), "{key}: {why}");
            assert!(why.contains(wanted) && (why.is_empty() || why.contains("postgres.sslkey")), "{key}: {why}");
        }
    }
}
