//! TLS for the dashboard: a certificate chain and its key, which can be reloaded. Open connections keep their
//! certificate. A new pair that cannot be used is refused, and the old pair stays in use.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant as Monotonic};

use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{Ssl, SslAcceptor, SslMethod, SslVersion};
use openssl::x509::X509;
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use crate::error::{Error, Result};
use crate::event::Timestamp;
use crate::finding::{self, Finding, Grade};
use crate::pem::{self, NoKey};

/// The certificate and key for new connections.
#[derive(Clone)]
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: Arc<RwLock<LoadedCertificate>>,
}

struct LoadedCertificate {
    acceptor: SslAcceptor,
    /// When the certificate was read, and how long it was still valid at that time.
    read: Monotonic,
    left: Duration,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads both files in PEM format; the server's certificate must be the first of its chain.
    ///
    /// # Errors
    /// 78 when a file cannot be read or the key does not belong to the certificate.
    pub fn read(certificate: &Path, key: &Path) -> Result<Tls> {
        let current = LoadedCertificate::read(certificate, key)?;
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        Ok(Tls { certificate, key, current: Arc::new(RwLock::new(current)) })
    }

    /// Reads both files again. The old pair stays in use if the new one is not usable, or if only the new one has
    /// expired.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn reload(&self) -> Result<()> {
        let new = LoadedCertificate::read(&self.certificate, &self.key)?;
        if new.left.is_zero() && !self.left().is_zero() {
            return Err(Error::config(format_args!("the certificate in `{}` has expired", self.certificate.display())));
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// Returns how long the certificate in use is still valid; zero when it has expired.
    pub fn left(&self) -> Duration {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.left.saturating_sub(current.read.elapsed())
    }

    /// Performs the handshake; returns `None` when it fails, which concerns only the client.
    pub async fn accept(&self, stream: TcpStream) -> Option<SslStream<TcpStream>> {
        let ssl = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            Ssl::new(current.acceptor.context()).ok()?
        };
        let mut stream = SslStream::new(ssl, stream).ok()?;
        Pin::new(&mut stream).accept().await.ok()?;
        Some(stream)
    }
}

impl LoadedCertificate {
    fn read(certificate: &Path, key: &Path) -> Result<LoadedCertificate> {
        let (chain, secret) = read(certificate, key).map_err(|(_, path, why)| Error::config(unusable(path, &why)))?;
        let acceptor = with(&chain, &secret).map_err(|e| Error::config(unusable(certificate, &e.to_string())))?;
        // The first certificate is the server's; at least one was read.
        let end = chain.first().and_then(|own| pem::end(own));
        let left = end.map_or(0, |end| end.millis() - Timestamp::now().millis());
        let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
        Ok(LoadedCertificate { acceptor, read: Monotonic::now(), left })
    }
}

/// Checks both files for `anomaly check` and at start. It checks everything that serving needs, and reports how long
/// the certificate is valid.
pub fn check(certificate: &Path, key: &Path, now: Timestamp) -> Vec<Finding> {
    let (chain, secret) = match read(certificate, key) {
        Ok(both) => both,
        Err((what, path, why)) => return vec![Finding::new(what, Grade::Unusable, unusable(path, &why))],
    };
    if let Err(why) = with(&chain, &secret) {
        return vec![Finding::new("dashboard.tls_key", Grade::Unusable, unusable(key, &why.to_string()))];
    }
    let (grade, life) = pem::chain_life(&chain, now);
    let of_chain = Finding::new("dashboard.tls_certificate", grade, format!("{}: {life}", certificate.display()));
    let of_key = Finding::new("dashboard.tls_key", Grade::Good, format!("{}: the certificate's key", key.display()));
    vec![of_chain, of_key]
}

type Wrong<'a> = (&'static str, &'a Path, String);

fn read<'a>(certificate: &'a Path, key: &'a Path) -> Result<(Vec<X509>, PKey<Private>), Wrong<'a>> {
    let bytes = |path: &Path| finding::file::read_certificates(path).map_err(|e| finding::unreadable(path, &e));
    let of_chain = |why| ("dashboard.tls_certificate", certificate, why);
    let of_key = |why| ("dashboard.tls_key", key, why);
    let chain = bytes(certificate).and_then(|bytes| pem::certificates(&bytes)).map_err(of_chain)?;
    let secret = pem::key(&bytes(key).map_err(of_key)?, None).map_err(|why| {
        of_key(match why {
            NoKey::Encrypted => format!("{why}: use a key without one (openssl pkey -in OLD -out NEW)"),
            NoKey::Wrong(_) => why.to_string(),
        })
    })?;
    pem::belong(&chain, &secret).map_err(of_key)?;
    Ok((chain, secret))
}

fn unusable(path: &Path, why: &str) -> String {
    format!("`{}` cannot be used for TLS: {why}", path.display())
}

fn with(chain: &[X509], key: &PKey<Private>) -> Result<SslAcceptor, ErrorStack> {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    for (at, certificate) in chain.iter().enumerate() {
        match at {
            0 => builder.set_certificate(certificate)?,
            _ => builder.add_extra_chain_cert(certificate.clone())?,
        }
    }
    builder.set_private_key(key)?;
    builder.check_private_key()?;
    Ok(builder.build())
}
