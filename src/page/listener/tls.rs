//! TLS for the pages: a certificate chain and its key, read again when told so. Connections that are open keep what they
//! have.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

use openssl::ssl::{Ssl, SslAcceptor, SslFiletype, SslMethod, SslVersion};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

use crate::error::{Error, Result};

/// What new connections are encrypted with.
#[derive(Clone)]
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    acceptor: Arc<RwLock<SslAcceptor>>,
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
        let acceptor = acceptor(certificate, key)?;
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        Ok(Tls { certificate, key, acceptor: Arc::new(RwLock::new(acceptor)) })
    }

    /// Reads them again; the old ones hold if the new are wrong.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn reload(&self) -> Result<()> {
        let new = acceptor(&self.certificate, &self.key)?;
        *self.acceptor.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// The handshake; `None` when it fails, which is the client's affair.
    pub async fn accept(&self, stream: TcpStream) -> Option<SslStream<TcpStream>> {
        let ssl = {
            let acceptor = self.acceptor.read().unwrap_or_else(PoisonError::into_inner);
            Ssl::new(acceptor.context()).ok()?
        };
        let mut stream = SslStream::new(ssl, stream).ok()?;
        Pin::new(&mut stream).accept().await.ok()?;
        Some(stream)
    }
}

fn acceptor(certificate: &Path, key: &Path) -> Result<SslAcceptor> {
    let unusable = |path: &Path, e: &dyn std::fmt::Display| {
        Error::config(format_args!("`{}` cannot be used for TLS: {e}", path.display()))
    };
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).map_err(|e| unusable(key, &e))?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2)).map_err(|e| unusable(certificate, &e))?;
    // OpenSSL's own errors hide that a file is not there.
    for path in [certificate, key] {
        std::fs::File::open(path).map_err(|e| unusable(path, &e))?;
    }
    builder.set_certificate_chain_file(certificate).map_err(|e| unusable(certificate, &e))?;
    builder.set_private_key_file(key, SslFiletype::PEM).map_err(|e| unusable(key, &e))?;
    builder.check_private_key().map_err(|e| unusable(key, &e))?;
    Ok(builder.build())
}
