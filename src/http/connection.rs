//! Serves one connection: hyper answers one request after another, until the connection ends or an answer is an event
//! stream. For an event stream hyper sends only the head. Hyper's two buffers of at least 8 KiB, most of the memory of
//! a waiting client, are freed then.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::Handler;
use super::exchange::{Request, Response, ResponseBody};
use super::heads::CheckedHeads;
use super::host::HostName;
use super::tls::Tls;

/// Time limit for a TLS handshake, for the head of a request, for its body, and for an idle connection.
const HEAD: Duration = Duration::from_secs(10);
/// Largest head of a request in bytes.
pub(super) const HEAD_BYTES: usize = 64 * 1024;
/// Largest body of a request in bytes.
pub(super) const BODY_BYTES: usize = 64 * 1024;
/// Time after which a client that accepts no data is disconnected.
const STALL: Duration = Duration::from_secs(30);

/// Events that are sent after hyper has sent the head.
type Events = mpsc::Receiver<Bytes>;

/// Serves until the client closes the connection, or until `ending` changes and the running request is answered. Errors
/// of a connection are ignored: they concern only its client.
pub(crate) async fn serve(
    stream: TcpStream,
    peer: IpAddr,
    tls: Option<Tls>,
    handler: Arc<Handler>,
    ending: watch::Receiver<()>,
) {
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, STALL.as_millis() as u32);
    let _ = stream.set_nodelay(true);
    match tls {
        None => converse(stream, peer, false, handler, ending).await,
        Some(tls) => {
            if let Ok(Some(stream)) = timeout(HEAD, tls.accept(stream)).await {
                converse(stream, peer, true, handler, ending).await;
            }
        }
    }
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: IpAddr,
    is_tls: bool,
    handler: Arc<Handler>,
    mut ending: watch::Receiver<()>,
) {
    // The future is on the heap, so its memory is freed before the events are sent.
    if let Some(events) = Box::pin(answer(&mut stream, peer, is_tls, handler, &mut ending)).await {
        let _ = send(&mut stream, events).await;
    }
    let _ = stream.shutdown().await;
}

/// Serves HTTP over a plain or encrypted stream. The stream stays open for the events that are returned.
async fn answer(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    peer: IpAddr,
    is_tls: bool,
    handler: Arc<Handler>,
    ending: &mut watch::Receiver<()>,
) -> Option<Events> {
    let events = OnceLock::new();
    let has_body = AtomicBool::new(false);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        // Hyper calls this before it reads the body.
        has_body.fetch_or(!request.body().is_end_stream(), Ordering::Relaxed);
        respond(Arc::clone(&handler), request, peer, is_tls, &events)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES);
    let mut connection = http.serve_connection(TokioIo::new(CheckedHeads::new(stream, &has_body)), service);
    let mut end = pin!(ending.changed());
    let mut is_ending = false;
    let done = poll_fn(|context| {
        if !is_ending && end.as_mut().poll(context).is_ready() {
            is_ending = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        Pin::new(&mut connection).poll(context)
    });
    done.await.ok()?;
    drop(connection);
    events.into_inner()
}

async fn respond(
    handler: Arc<Handler>,
    request: hyper::Request<Incoming>,
    peer: IpAddr,
    is_tls: bool,
    events: &OnceLock<Events>,
) -> Result<hyper::Response<ResponseBody>, Infallible> {
    let (is_head, has_body) = (request.method() == Method::HEAD, !request.body().is_end_stream());
    let mut response = match take(request, peer, is_tls).await {
        Err(refusal) => refusal,
        Ok(request) => {
            let path = request.path.clone();
            let answer = tokio::task::spawn_blocking(move || handler(request)).await;
            answer.unwrap_or_else(|error| {
                tracing::error!(%error, path, "cannot render a page");
                Response::text(500, "this page could not be rendered; see the log\n")
            })
        }
    };
    // The bytes after a body are not checked, so hyper must not read them as a request.
    if has_body && response.header("connection").is_none() {
        response.headers.push(("connection", "close".to_owned()));
    }
    let (mut response, rest) = response.encode();
    if let Some(rest) = rest
        && !is_head
    {
        // The body has no length and no chunks: the end of the connection is its end.
        *response.version_mut() = Version::HTTP_10;
        let _ = events.set(rest);
    }
    Ok(response)
}

/// Reads the whole request. The error is the answer to a request that is too large, too slow, or has another method or
/// no valid host.
async fn take(request: hyper::Request<Incoming>, peer: IpAddr, is_tls: bool) -> Result<Request, Response> {
    let (mut head, body) = request.into_parts();
    check_host(&head).map_err(|why| closing(400, format!("{why}\n")))?;
    if !matches!(head.method, Method::GET | Method::HEAD | Method::POST) {
        let mut response = Response::text(405, "only GET, HEAD and POST are answered\n");
        response.headers.push(("allow", "GET, HEAD, POST".to_owned()));
        return Err(response);
    }
    let body = match head.method {
        Method::POST => match timeout(HEAD, Limited::new(body, BODY_BYTES).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => return Err(closing(413, format!("a body may have {BODY_BYTES} bytes\n"))),
            Err(_) => return Err(closing(408, "the body did not come in time\n".to_owned())),
        },
        _ => Bytes::new(),
    };
    // In a request with an absolute URL, its host replaces the header `host` (RFC 9112, 3.2.2).
    if let Some(host) = head.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok()) {
        head.headers.insert("host", host);
    }
    let (path, query) = (head.uri.path().to_owned(), head.uri.query().unwrap_or_default().to_owned());
    Ok(Request { method: head.method, path, query, headers: head.headers, body, peer, is_tls })
}

/// Checks that the request names one host, and that it is valid. A request of HTTP/1.0 may name none. The header may be
/// empty, which names no host (RFC 9112, 3.2).
fn check_host(head: &hyper::http::request::Parts) -> Result<(), &'static str> {
    let mut hosts = head.headers.get_all("host").iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().map_err(|_| "the header Host is not valid")?,
        (None, None) if head.version == Version::HTTP_11 => return Err("the header Host is missing"),
        (None, None) => "",
        _ => return Err("the header Host is given twice"),
    };
    let is_valid = |host: &str| host.is_empty() || HostName::parse(host).is_some();
    match head.uri.authority() {
        _ if !is_valid(host) => Err("the header Host is not valid"),
        Some(authority) if !is_valid(authority.as_str()) => Err("the host in the URL is not valid"),
        _ => Ok(()),
    }
}

/// Makes a response that closes the connection, because the rest of the request is not read.
fn closing(status: u16, text: String) -> Response {
    let mut response = Response::text(status, text);
    response.headers.push(("connection", "close".to_owned()));
    response
}

/// Sends events until their sender ends or the client disconnects or sends data.
async fn send(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), mut events: Events) -> io::Result<()> {
    while let Some(event) = next(stream, &mut events).await {
        stream.write_all(&event).await?;
    }
    Ok(())
}

/// Waits for the next event; returns `None` also when the client has disconnected or sends data. A client that sends
/// data wants another answer and has to connect again. (Bytes that hyper has already read are lost.)
async fn next(stream: &mut (impl AsyncRead + Unpin), events: &mut Events) -> Option<Bytes> {
    poll_fn(|context| {
        if let Poll::Ready(event) = events.poll_recv(context) {
            return Poll::Ready(event);
        }
        Pin::new(&mut *stream).poll_read(context, &mut ReadBuf::new(&mut [0])).map(|_| None)
    })
    .await
}
