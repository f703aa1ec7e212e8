//! The dashboard: HTTP pages that show the contents of the database.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};

use super::Supervisor;
use crate::config::Settings;
use crate::config::resolved::base::BasePath;
use crate::config::resolved::network::Network;
use crate::config::resolved::{DashboardSettings, Hsts, PostgresSettings, ReviewSettings};
use crate::error::{Error, Result};
use crate::event::Timestamp;
use crate::health::{Component, ComponentState, ConditionCode, ConditionSeverity};
use crate::http::tls::Tls;
use crate::http::{self, Handler};
use crate::page::auth::Access;
use crate::page::{ArchiveTroubles, ArchiveWatch};
use crate::stop::Stop;
use crate::{page, store};

/// Address of the pages if no setting names another.
pub const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8501);
/// Port that browsers use if an address has none.
const HTTPS: u16 = 443;
/// Maximum number of database connections for pages. A page runs its queries one after the other.
const CONNECTIONS: u32 = 4;
/// Maximum number of database connections for adding reviews, which are rare.
const REVIEWERS: u32 = 2;
/// A certificate that is valid for fewer days causes a notice. Certificates of 90 days are renewed 30 days before their
/// end.
const NOTICE_DAYS: u64 = 14;
/// Interval between two requests to the dashboard itself, which prove that it answers.
const PULSE: Duration = Duration::from_secs(2);

/// Creates the handler of all pages, without connecting to a service. Event streams end with `stop`.
///
/// # Errors
/// 78 when the database's settings cannot be used.
pub fn app(settings: &Settings, stop: &Arc<Stop>) -> Result<Arc<Handler>> {
    watched_app(settings, stop).map(|(handler, _)| handler)
}

/// Creates the handler as [`app`] does, and the watch that reports whether the database answers.
fn watched_app(settings: &Settings, stop: &Arc<Stop>) -> Result<(Arc<Handler>, ArchiveWatch)> {
    let pool = store::pool(&settings.postgres, "postgres", CONNECTIONS)?;
    let reviewing = reviewer(settings);
    let has_review_role = reviewing.is_some();
    let section = if has_review_role { "reviews" } else { "postgres" };
    let reviewer = store::pool(&reviewing.unwrap_or_else(|| settings.postgres.clone()), section, REVIEWERS)?;
    let base = BasePath::parse(&settings.dashboard.path).map_err(Error::config)?;
    let port = settings.dashboard.listen.or(ADDRESS).map_or(0, |address| address.port());
    let is_tls_only = match settings.dashboard.hsts {
        Hsts::Auto => port == HTTPS,
        Hsts::On => true,
        Hsts::Off => false,
    };
    let options = page::SiteOptions {
        base,
        port,
        refresh: settings.dashboard.refresh,
        clock: Timestamp::now,
        proxies: proxies(&settings.dashboard),
        is_tls_only,
        access: access(&settings.dashboard),
        console: settings.dashboard.console.clone(),
        stop: Arc::clone(stop),
    };
    let archive = store::PostgresArchive::new(&settings.postgres, pool, reviewer, has_review_role);
    page::watched_app(Arc::new(archive), options)
}

/// Returns the settings of the connections that add reviews; `None` if no role is named for them.
pub(crate) fn reviewer(settings: &Settings) -> Option<PostgresSettings> {
    let ReviewSettings { user, password, .. } = &settings.reviews;
    let role = || PostgresSettings { user: user.clone(), password: password.clone(), ..settings.postgres.clone() };
    (!user.is_empty()).then(role)
}

/// Parses the addresses of proxies, which were checked with the settings.
fn proxies(dashboard: &DashboardSettings) -> Vec<Network> {
    dashboard.proxy_addresses.iter().filter_map(|address| address.parse().ok()).collect()
}

fn access(dashboard: &DashboardSettings) -> Access {
    if !dashboard.users.is_empty() {
        let (idle, life) = (dashboard.session_idle, dashboard.session_life);
        return Access::Passwords { file: dashboard.users.clone().into(), idle, life };
    }
    if !dashboard.proxy_header.is_empty() {
        return Access::Proxy {
            header: dashboard.proxy_header.clone(),
            operators: dashboard.operators.clone(),
            hosts: dashboard.proxy_hosts.clone(),
            secret: dashboard.proxy_secret.clone(),
        };
    }
    Access::Open { is_anywhere: dashboard.insecure }
}

/// Binds the address and serves the pages in the supervisor.
///
/// # Errors
/// As [`app`]; 69 when the address is taken.
pub fn start(supervisor: &mut Supervisor, settings: &Settings) -> Result<()> {
    let Some(address) = settings.dashboard.listen.or(ADDRESS) else {
        return Err(Error::config("dashboard.listen is \"off\": the dashboard has nothing to do"));
    };
    let meter = supervisor.meter.clone();
    let (pages, watch) = watched_app(settings, &supervisor.stop)?;
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
    let mut bound = http::bind(address)?;
    let (certificate, key) = (&settings.dashboard.tls_certificate, &settings.dashboard.tls_key);
    let mut tls = None;
    if !certificate.is_empty() {
        let read = Tls::read(certificate.as_ref(), key.as_ref())?;
        bound = bound.over(read.clone());
        tls = Some(read.clone());
        supervisor.reloads.push(Box::new(move || match read.reload() {
            Ok(()) => tracing::info!("certificate read again"),
            Err(error) => tracing::error!("cannot use the new certificate, so the old one stays in use: {error}"),
        }));
    }
    let address = bound.address();
    supervisor.serve("pages", bound, Arc::new(handler), settings.service.drain_timeout)?;
    let (component, stop) = (supervisor.health.component("pages"), supervisor.stop.clone());
    component.set(ComponentState::Running);
    tracing::info!("pages on {}://{address}/", if tls.is_some() { "https" } else { "http" });
    watch_archive(supervisor, component.clone(), watch)?;
    // A server has no working loop: it beats by answering.
    supervisor.spawn("pulse", move || {
        while !stop.wait(PULSE) {
            if let Some(tls) = &tls {
                watch_certificate(&component, tls.left());
            }
            match answers(address, tls.is_some()) {
                Ok(()) => component.set(ComponentState::Running),
                Err(e) => component.set(ComponentState::Degraded(format!("{address} does not answer: {e}"))),
            }
        }
        Ok(())
    })
}

/// Starts a thread that raises a condition while the database does not answer the pages or takes no reviews. Its first
/// check comes after the pages are ready, so that a start does not wait for the database.
fn watch_archive(supervisor: &mut Supervisor, component: Arc<Component>, mut watch: ArchiveWatch) -> Result<()> {
    let stop = supervisor.stop.clone();
    supervisor.spawn("archive-watch", move || {
        while !stop.wait(PULSE) {
            let ArchiveTroubles { pages, reviews } = watch.check();
            for (code, trouble) in [(ConditionCode::NoDatabaseAnswer, pages), (ConditionCode::NoReviews, reviews)] {
                component.set_condition(code, trouble.map(|sentence| (ConditionSeverity::Degraded, sentence)));
            }
        }
        Ok(())
    })
}

/// Raises a condition before the certificate expires, and another one afterwards, when browsers refuse the pages.
fn watch_certificate(component: &Component, left: Duration) {
    const RENEW: &str = "renew it, then `systemctl reload anomaly-dashboard`";
    match left.as_secs() / 86_400 {
        _ if left.is_zero() => {
            let message = format!("the certificate of the pages has expired: browsers refuse them; {RENEW}");
            component.raise(ConditionCode::CertificateExpires, ConditionSeverity::Degraded, message);
        }
        days @ ..NOTICE_DAYS => {
            let message = format!("the certificate of the pages expires in {days} days; {RENEW}");
            component.raise(ConditionCode::CertificateExpires, ConditionSeverity::Notice, message);
        }
        _ => component.clear(ConditionCode::CertificateExpires),
    }
}

/// Connects to the address that was bound, or to loopback if every address was bound.
fn reach(address: SocketAddr) -> std::io::Result<TcpStream> {
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, address.port()));
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => TcpStream::connect_timeout(&v4, PULSE),
        // A host may have either family; where it has both, an IPv6 socket may accept only IPv6.
        IpAddr::V6(ip) if ip.is_unspecified() => {
            TcpStream::connect_timeout(&v6, PULSE).or_else(|_| TcpStream::connect_timeout(&v4, PULSE))
        }
        _ => TcpStream::connect_timeout(&address, PULSE),
    }
}

fn answers(address: SocketAddr, is_tls: bool) -> std::io::Result<()> {
    let mut stream = reach(address)?;
    stream.set_read_timeout(Some(PULSE))?;
    if !is_tls {
        return ask(&mut stream);
    }
    // The peer is this process, so its certificate need not be verified.
    let mut builder = SslConnector::builder(SslMethod::tls_client())?;
    builder.set_verify(SslVerifyMode::NONE);
    let mut stream = builder.build().connect("pulse", stream).map_err(std::io::Error::other)?;
    ask(&mut stream)
}

fn ask(stream: &mut (impl Read + Write)) -> std::io::Result<()> {
    stream.write_all(b"HEAD /robots.txt HTTP/1.1\r\nhost: pulse\r\nconnection: close\r\n\r\n")?;
    stream.read_exact(&mut [0; 12])
}
