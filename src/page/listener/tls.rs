//! TLS for the pages: a certificate chain and its key, read again when told so. Connections that are open keep what they
//! have; a new pair that cannot serve is refused, and the old one goes on.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{Ssl, SslAcceptor, SslMethod, SslVersion};
use openssl::x509::X509;
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use crate::error::{Error, Result};

/// What new connections are encrypted with.
#[derive(Clone)]
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: Arc<RwLock<Current>>,
}

struct Current {
    acceptor: SslAcceptor,
    /// When it was read, and for how long it was valid then.
    read: Instant,
    left: Duration,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads both files: PEM, the certificate first in its chain.
    ///
    /// # Errors
    /// 78 when they cannot be read or do not belong together.
    pub fn read(certificate: &Path, key: &Path) -> Result<Tls> {
        let current = Current::read(certificate, key)?;
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        Ok(Tls { certificate, key, current: Arc::new(RwLock::new(current)) })
    }

    /// Reads them again; the old ones hold if the new are wrong, or have expired while the old have not.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn reload(&self) -> Result<()> {
        let new = Current::read(&self.certificate, &self.key)?;
        if new.left.is_zero() && !self.left().is_zero() {
            return Err(Error::config(format_args!("the certificate in `{}` has expired", self.certificate.display())));
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// How long the certificate in use is still valid; nothing when it has expired.
    pub fn left(&self) -> Duration {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.left.saturating_sub(current.read.elapsed())
    }

    /// The handshake; `None` when it fails, which is the client's affair.
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

impl Current {
    fn read(certificate: &Path, key: &Path) -> Result<Current> {
        let (acceptor, left) = acceptor(certificate, key)?;
        Ok(Current { acceptor, read: Instant::now(), left })
    }
}

fn acceptor(certificate: &Path, key: &Path) -> Result<(SslAcceptor, Duration)> {
    let unusable = |path: &Path, e: &dyn std::fmt::Display| {
        Error::config(format_args!("`{}` cannot be used for TLS: {e}", path.display()))
    };
    let read = |path: &Path| std::fs::read(path).map_err(|e| unusable(path, &e));
    let chain = X509::stack_from_pem(&read(certificate)?).map_err(|e| unusable(certificate, &e))?;
    let mut chain = chain.into_iter();
    let leaf = chain.next().ok_or_else(|| unusable(certificate, &"it holds no certificate in PEM"))?;
    let key_of = private_key(&read(key)?).map_err(|e| unusable(key, &e))?;
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).map_err(|e| unusable(key, &e))?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2)).map_err(|e| unusable(certificate, &e))?;
    builder.set_certificate(&leaf).map_err(|e| unusable(certificate, &e))?;
    for issuer in chain {
        builder.add_extra_chain_cert(issuer).map_err(|e| unusable(certificate, &e))?;
    }
    if !leaf.public_key().map_err(|e| unusable(certificate, &e))?.public_eq(&key_of) {
        let certificate = certificate.display();
        return Err(unusable(key, &format_args!("it does not belong to the certificate in `{certificate}`")));
    }
    builder.set_private_key(&key_of).map_err(|e| unusable(key, &e))?;
    let rest = left(&leaf).map_err(|e| unusable(certificate, &e))?;
    Ok((builder.build(), rest))
}

/// A key that has a passphrase is refused: a service has nobody to ask, and OpenSSL would ask the terminal.
fn private_key(pem: &[u8]) -> std::result::Result<PKey<Private>, String> {
    let mut is_asked = false;
    let key = PKey::private_key_from_pem_callback(pem, |_| {
        is_asked = true;
        Ok(0)
    });
    match key {
        Err(_) if is_asked => {
            Err("it has a passphrase; write it without one: openssl pkey -in OLD -out NEW".to_owned())
        }
        Err(_) if !pem.windows(10).any(|text| text == b"-----BEGIN") => Err("it is not in PEM".to_owned()),
        key => key.map_err(|e| e.to_string()),
    }
}

/// How long a certificate is still valid; nothing when it has expired.
fn left(certificate: &X509) -> std::result::Result<Duration, ErrorStack> {
    let left = Asn1Time::days_from_now(0)?.diff(certificate.not_after())?;
    let seconds = i64::from(left.days) * 86_400 + i64::from(left.secs);
    Ok(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}
