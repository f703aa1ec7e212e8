//! The dashboard: pages over what PostgreSQL holds.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::Crew;
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::event::Instant;
use crate::health::State;
use crate::page::listener::{self, Handler};
use crate::{page, store};

/// The address of the pages when no setting says otherwise.
pub const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8501);
/// Connections to the database. A page asks one question after the other.
const CONNECTIONS: u32 = 4;
/// Between two requests to ourselves.
const PULSE: Duration = Duration::from_secs(2);

/// All pages; connects to nothing yet.
///
/// # Errors
/// 78 when the database's settings cannot be used.
pub fn app(settings: &Settings) -> Result<Arc<Handler>> {
    let pool = store::pool(&settings.postgres, CONNECTIONS)?;
    let options = page::Options { refresh: settings.dashboard.refresh, clock: Instant::now };
    page::app(Arc::new(store::Reader::new(pool)), options)
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
    let pages = app(settings)?;
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
    let bound = listener::bind(address)?;
    let address = bound.address();
    crew.serve("pages", bound, Arc::new(handler), settings.service.drain_timeout)?;
    let (part, stop) = (crew.health.part("pages"), crew.stop.clone());
    part.set(State::Running);
    tracing::info!("pages on http://{address}/");
    // The beat of a server is that it answers.
    crew.spawn("pulse", move || {
        while !stop.wait(PULSE) {
            match answers(address) {
                Ok(()) => part.set(State::Running),
                Err(e) => part.set(State::Degraded(format!("{address} does not answer: {e}"))),
            }
        }
        Ok(())
    })
}

fn answers(address: SocketAddr) -> std::io::Result<()> {
    let reach = match address.ip() {
        ip if ip.is_unspecified() => SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())),
        _ => address,
    };
    let mut stream = TcpStream::connect_timeout(&reach, PULSE)?;
    stream.set_read_timeout(Some(PULSE))?;
    stream.write_all(b"HEAD /robots.txt HTTP/1.1\r\nhost: pulse\r\nconnection: close\r\n\r\n")?;
    stream.read_exact(&mut [0; 12])
}
