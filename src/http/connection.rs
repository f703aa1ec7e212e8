//! Serves one connection: hyper answers one request after another, until the connection ends or an answer is an event
//! stream. For an event stream hyper sends only the head. Hyper's two buffers of at least 8 KiB, most of the memory of
//! a waiting client, are freed then.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
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
    let service = service_fn(|request| respond(Arc::clone(&handler), request, peer, is_tls, &events));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES);
    let mut connection = http.serve_connection(TokioIo::new(UnclosedStream(stream)), service);
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

/// A stream that hyper flushes at the end but does not shut down. (Hyper's `poll_without_shutdown` does neither.)
struct UnclosedStream<'a, S>(&'a mut S);

impl<S: AsyncRead + Unpin> AsyncRead for UnclosedStream<'_, S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for UnclosedStream<'_, S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

async fn respond(
    handler: Arc<Handler>,
    request: hyper::Request<Incoming>,
    peer: IpAddr,
    is_tls: bool,
    events: &OnceLock<Events>,
) -> Result<hyper::Response<ResponseBody>, Infallible> {
    let is_head = request.method() == Method::HEAD;
    let response = match take(request, peer, is_tls).await {
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

/// Reads the whole request. The error is the answer to a request that is too large, too slow, or has another method.
async fn take(request: hyper::Request<Incoming>, peer: IpAddr, is_tls: bool) -> Result<Request, Response> {
    let (mut head, body) = request.into_parts();
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
