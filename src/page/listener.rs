//! A small HTTP/1.1 server: binds an address, hands each GET or HEAD to a handler, and ends within a deadline. Any role can
//! serve its health and metrics with it. Knows nothing of pages, and runs the handler where it may block.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::sync::{Semaphore, oneshot};

use crate::error::{Error, Result};

/// Connections served at once; others wait in the system's queue.
const CONNECTIONS: usize = 256;
/// Handlers that run at once.
const HANDLERS: usize = 32;
/// For the whole head of a request, and for an idle connection.
const HEAD: Duration = Duration::from_secs(10);
/// Longest life of a connection: one whose reader has stalled must not hold its place for ever.
const LIFE: Duration = Duration::from_secs(600);
/// Largest head of a request in bytes.
const HEAD_BYTES: usize = 64 * 1024;
/// Pause after the system refuses a connection (out of descriptors).
const REFUSED: Duration = Duration::from_millis(100);

/// What was asked; the method is GET or HEAD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Still percent-encoded.
    pub path: String,
    /// What follows the question mark; empty when nothing does.
    pub query: String,
}

/// What is answered. For HEAD the body is left out, its length is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header names in lower case, with their values.
    pub headers: Vec<(&'static str, String)>,
    /// Bytes.
    pub body: Bytes,
}

impl Response {
    /// A short answer in plain text.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        let headers = vec![(CONTENT_TYPE_NAME, "text/plain; charset=utf-8".to_owned())];
        Response { status, headers, body: Bytes::from(text.into()) }
    }
}

const CONTENT_TYPE_NAME: &str = "content-type";

/// Answers requests. It runs on a thread where it may block.
pub type Handler = dyn Fn(Request) -> Response + Send + Sync;

/// An address that is ours, before anything is served.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

/// Takes the address.
///
/// # Errors
/// 69 when it is taken or not this machine's; 78 when this user may not have it.
pub fn bind(address: SocketAddr) -> Result<Bound> {
    let listener = TcpListener::bind(address).map_err(|error| refused(address, &error))?;
    listener.set_nonblocking(true).map_err(|error| refused(address, &error))?;
    let address = listener.local_addr().map_err(|error| refused(address, &error))?;
    Ok(Bound { listener, address })
}

fn refused(address: SocketAddr, error: &io::Error) -> Error {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => Error::unavailable(format_args!(
            "cannot listen on {address}: another program has this port; stop it (`ss -ltnp 'sport = :{port}'` names it), or \
             set another `listen` address"
        )),
        io::ErrorKind::AddrNotAvailable => Error::unavailable(format_args!(
            "cannot listen on {address}: this machine has no such address; set `listen` to one of its own"
        )),
        io::ErrorKind::PermissionDenied => Error::config(format_args!(
            "cannot listen on {address}: not permitted; set `listen` to a port from 1024 on"
        )),
        _ => Error::unavailable(format_args!("cannot listen on {address}: {error}")),
    }
}

impl Bound {
    /// The address in use, with its real port if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is sent or dropped, then lets running requests end, for at most `drain`. Blocks the caller, which
    /// must not be inside an async runtime.
    ///
    /// # Errors
    /// 70 when the system gives no threads or no sockets.
    pub fn serve(self, handler: Arc<Handler>, stop: oneshot::Receiver<()>, drain: Duration) -> Result<()> {
        let broken = |e: io::Error| Error::internal(format_args!("cannot serve on {}: {e}", self.address));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(HANDLERS)
            .thread_name("http")
            .enable_all()
            .build()
            .map_err(broken)?;
        let served = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(self.listener)?;
            accept(listener, Arc::clone(&handler), stop, drain).await;
            Ok(())
        });
        // A handler that hangs must not hold up the end of the process.
        runtime.shutdown_background();
        // The handler holds database connections, which cannot be dropped inside a runtime: the last one goes here.
        drop(handler);
        served.map_err(broken)
    }
}

async fn accept(
    listener: tokio::net::TcpListener,
    handler: Arc<Handler>,
    mut stop: oneshot::Receiver<()>,
    drain: Duration,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES);
    loop {
        let next = async {
            // Closed never: the semaphore lives as long as this loop.
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let Some((place, accepted)) = unless(&mut stop, next).await else { break };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(REFUSED).await;
            continue;
        };
        let handler = Arc::clone(&handler);
        let service = service_fn(move |request| respond(Arc::clone(&handler), request));
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            // A connection that breaks is its client's affair.
            let _ = tokio::time::timeout(LIFE, connection).await;
            drop(place);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(drain, graceful.shutdown()).await;
}

/// What comes next, or `None` once it is time to stop. (`tokio::select!` needs a feature that nothing else does.)
async fn unless<T>(stop: &mut oneshot::Receiver<()>, next: impl Future<Output = T>) -> Option<T> {
    let mut next = std::pin::pin!(next);
    std::future::poll_fn(|context| match Pin::new(&mut *stop).poll(context) {
        Poll::Ready(_) => Poll::Ready(None),
        Poll::Pending => next.as_mut().poll(context).map(Some),
    })
    .await
}

async fn respond(
    handler: Arc<Handler>,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = hyper::Response::new(Full::new(Bytes::from_static(b"only GET and HEAD are answered\n")));
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        return Ok(response);
    }
    let uri = request.uri();
    let request = Request { path: uri.path().to_owned(), query: uri.query().unwrap_or_default().to_owned() };
    let path = request.path.clone();
    let answer = tokio::task::spawn_blocking(move || handler(request)).await.unwrap_or_else(|error| {
        tracing::error!(%error, path, "a page could not be made");
        Response::text(500, "this page could not be made; the log says why\n")
    });
    Ok(encode(answer))
}

fn encode(answer: Response) -> hyper::Response<Full<Bytes>> {
    let mut response = hyper::Response::new(Full::new(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in answer.headers {
        // A value that is no header is left out, rather than the whole answer.
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Instant;

    use super::*;
    use crate::error::Kind;

    /// A server on a free port; dropping the sender stops it.
    fn start(handler: Arc<Handler>) -> (SocketAddr, oneshot::Sender<()>, std::thread::JoinHandle<Result<()>>) {
        let bound = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = bound.address();
        let (sender, stop) = oneshot::channel();
        let thread = std::thread::spawn(move || bound.serve(handler, stop, Duration::from_millis(300)));
        (address, sender, thread)
    }

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn echo() -> Arc<Handler> {
        Arc::new(|request: Request| match request.path.as_str() {
            "/panic" => panic!("on purpose"),
            _ => Response::text(200, format!("{} {}", request.path, request.query)),
        })
    }

    #[test]
    fn get_is_answered_head_has_no_body_and_post_is_refused() {
        let (address, _stop, _) = start(echo());
        let get = ask(address, "GET /a%2Fb?x=1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        assert!(get.starts_with("HTTP/1.1 200") && get.ends_with("/a%2Fb x=1"), "{get}");
        let head = ask(address, "HEAD /abc HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        assert!(head.contains("content-length: 5\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        let post = ask(address, "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        assert!(post.starts_with("HTTP/1.1 405") && post.contains("allow: GET, HEAD"), "{post}");
    }

    #[test]
    fn a_panic_is_one_answer_and_says_nothing_of_its_inside() {
        let (address, _stop, _) = start(echo());
        let answer = ask(address, "GET /panic HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 500") && !answer.contains("on purpose"), "{answer}");
        assert!(ask(address, "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").starts_with("HTTP/1.1 200"));
    }

    #[test]
    fn a_taken_port_names_the_address_and_the_remedy() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = bind(first.address()).unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable);
        assert!(error.message.contains(&first.address().to_string()) && error.message.contains("listen"), "{error}");
    }

    #[test]
    fn stopping_ends_within_the_deadline_though_a_handler_hangs_and_a_client_idles() {
        let (address, stop, thread) = start(Arc::new(|_| {
            std::thread::sleep(Duration::from_secs(20));
            Response::text(200, "late")
        }));
        let idle = TcpStream::connect(address).unwrap();
        let mut waiting = TcpStream::connect(address).unwrap();
        waiting.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let start = Instant::now();
        drop(stop);
        thread.join().unwrap().unwrap();
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        drop(idle);
    }
}
