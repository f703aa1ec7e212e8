//! The dashboard: pages over what PostgreSQL holds.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};

use super::Crew;
use crate::config::Settings;
use crate::config::resolved::Dashboard;
use crate::config::resolved::base::BasePath;
use crate::error::{Error, Result};
use crate::event::Instant;
use crate::health::State;
use crate::page::door::Access;
use crate::page::listener::tls::Tls;
use crate::page::listener::{self, Handler};
use crate::stop::Stop;
use crate::{page, store};

/// The address of the pages when no setting says otherwise.
pub const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8501);
/// Connections to the database. A page asks one question after the other.
const CONNECTIONS: u32 = 4;
/// For marks, which are few.
const MARKERS: u32 = 2;
/// Between two requests to ourselves.
const PULSE: Duration = Duration::from_secs(2);

/// All pages; connects to nothing yet. Event streams end with `stop`.
///
/// # Errors
/// 78 when the database's settings cannot be used.
pub fn app(settings: &Settings, stop: &Arc<Stop>) -> Result<Arc<Handler>> {
    let pool = store::pool(&settings.postgres, CONNECTIONS)?;
    let mut marks = settings.postgres.clone();
    if !settings.marks.user.is_empty() {
        marks.user.clone_from(&settings.marks.user);
        marks.password.clone_from(&settings.marks.password);
    }
    let marker = store::pool(&marks, MARKERS)?;
    let base = BasePath::parse(&settings.dashboard.path).map_err(Error::config)?;
    let options = page::Options {
        base,
        port: settings.dashboard.listen.or(ADDRESS).map_or(0, |address| address.port()),
        refresh: settings.dashboard.refresh,
        clock: Instant::now,
        access: access(&settings.dashboard),
        console: settings.dashboard.console.clone(),
        stop: Arc::clone(stop),
    };
    page::app(Arc::new(store::Reader::new(&settings.postgres, pool, marker)), options)
}

fn access(dashboard: &Dashboard) -> Access {
    if !dashboard.users.is_empty() {
        let (idle, life) = (dashboard.session_idle, dashboard.session_life);
        return Access::Passwords { file: dashboard.users.clone().into(), idle, life };
    }
    if !dashboard.proxy_header.is_empty() {
        // Checked with the settings.
        let from = dashboard.proxy_addresses.iter().filter_map(|address| address.parse().ok()).collect();
        let operators = dashboard.operators.clone();
        return Access::Proxy { header: dashboard.proxy_header.clone(), from, operators };
    }
    Access::Open { is_anywhere: dashboard.insecure }
}

/// Binds the address and serves the pages in the crew.
///
/// # Errors
/// As [`app`]; 69 when the address is taken.
pub fn start(crew: &mut Crew, settings: &Settings) -> Result<()> {
    let Some(address) = settings.dashboard.listen.or(ADDRESS) else {
        return Err(Error::config("dashboard.listen is \"off\": the dashboard has nothing to do"));
    };
    let meter = crew.meter.clone();
    let pages = app(settings, &crew.stop)?;
    let handler = move |request| {
        let answer = pages(request);
        let outcome = match answer.status {
            _ if answer.headers.iter().any(|(name, _)| *name == "x-stale") => "stale",
            200..400 => "ok",
            400..500 => "refused",
            _ => "failed",
        };
        meter.requests.add(outcome, 1);
        answer
    };
    let mut bound = listener::bind(address)?;
    let (certificate, key) = (&settings.dashboard.tls_certificate, &settings.dashboard.tls_key);
    let is_tls = !certificate.is_empty();
    if is_tls {
        let tls = Tls::read(certificate.as_ref(), key.as_ref())?;
        bound = bound.over(tls.clone());
        crew.reloads.push(Box::new(move || match tls.reload() {
            Ok(()) => tracing::info!("certificate read again"),
            Err(error) => tracing::error!("the old certificate holds: {error}"),
        }));
    }
    let address = bound.address();
    crew.serve("pages", bound, Arc::new(handler), settings.service.drain_timeout)?;
    let (part, stop) = (crew.health.part("pages"), crew.stop.clone());
    part.set(State::Running);
    tracing::info!("pages on {}://{address}/", if is_tls { "https" } else { "http" });
    // The beat of a server is that it answers.
    crew.spawn("pulse", move || {
        while !stop.wait(PULSE) {
            match answers(address, is_tls) {
                Ok(()) => part.set(State::Running),
                Err(e) => part.set(State::Degraded(format!("{address} does not answer: {e}"))),
            }
        }
        Ok(())
    })
}

fn answers(address: SocketAddr, is_tls: bool) -> std::io::Result<()> {
    let reach = match address.ip() {
        ip if ip.is_unspecified() => SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())),
        _ => address,
    };
    let mut stream = TcpStream::connect_timeout(&reach, PULSE)?;
    stream.set_read_timeout(Some(PULSE))?;
    if !is_tls {
        return ask(&mut stream);
    }
    // Whose certificate it is does not matter here.
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    builder.set_verify(SslVerifyMode::NONE);
    let mut stream = builder.build().connect("pulse", stream).map_err(std::io::Error::other)?;
    ask(&mut stream)
}

fn ask(stream: &mut (impl Read + Write)) -> std::io::Result<()> {
    stream.write_all(b"HEAD /robots.txt HTTP/1.1\r\nhost: pulse\r\nconnection: close\r\n\r\n")?;
    stream.read_exact(&mut [0; 12])
}
