//! A small HTTP/1.1 server. It binds an address, passes each request to a handler, and stops within a deadline. The
//! dashboard and the health endpoint of every role use it. It does not know any page.

mod connection;
mod exchange;
mod heads;
mod host;
mod pieces;
pub mod tls;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot, watch};

pub use exchange::{Request, Response, ResponseBody};
pub use host::HostName;
pub use pieces::{NotSent, PieceSender, Pieces, pieces};

use crate::error::{Error, Result};
use tls::Tls;

/// Maximum number of connections served at the same time; further ones wait in the kernel's queue.
const CONNECTIONS: usize = 12_000;
/// Maximum number of handlers that run at the same time.
const HANDLERS: usize = 16;
/// Longest lifetime of a connection. Afterwards the client connects again.
const LIFE: Duration = Duration::from_secs(3600);
/// Pause after the system refuses to accept a connection (no file descriptors left).
const REFUSED: Duration = Duration::from_millis(100);

/// Answers requests. It runs on a thread that may block.
pub type Handler = dyn Fn(Request) -> Response + Send + Sync;

/// A bound address that is not served yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Tls>,
}

/// Binds an address. If this machine lacks the given loopback address, the one of the other IP family is bound: both
/// mean "this machine only".
///
/// # Errors
/// 69 when the address is in use or does not belong to this machine; 78 when this user may not bind it.
pub fn bind(address: SocketAddr) -> Result<Bound> {
    let listener = match TcpListener::bind(address) {
        Err(error) if is_absent(&error) => {
            let other = other_loopback(address).and_then(|other| Some((other, TcpListener::bind(other).ok()?)));
            let (other, listener) = other.ok_or_else(|| refused(address, &error))?;
            tracing::info!("this machine has no {}: listening on {other} instead of {address}", address.ip());
            Ok(listener)
        }
        bound => bound,
    };
    let listener = listener.map_err(|error| refused(address, &error))?;
    listener.set_nonblocking(true).map_err(|error| refused(address, &error))?;
    let address = listener.local_addr().map_err(|error| refused(address, &error))?;
    Ok(Bound { listener, address, tls: None })
}

/// Whether the address, or its whole IP family, does not exist on this machine.
fn is_absent(error: &io::Error) -> bool {
    const NO_FAMILY: i32 = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(NO_FAMILY)
}

fn other_loopback(address: SocketAddr) -> Option<SocketAddr> {
    let other = match address.ip() {
        IpAddr::V4(Ipv4Addr::LOCALHOST) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        _ => return None,
    };
    Some(SocketAddr::new(other, address.port()))
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
            "cannot listen on {address}: not permitted. Set `listen` to a port from 1024 on; or, for this one, copy \
             /usr/share/doc/anomaly/examples/low-port.conf to /etc/systemd/system/anomaly-dashboard.service.d/, then: systemctl \
             daemon-reload; systemctl restart anomaly-dashboard"
        )),
        _ => Error::unavailable(format_args!("cannot listen on {address}: {error}")),
    }
}

impl Bound {
    /// Returns the bound address; it contains the real port when port 0 was requested.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes the server use TLS.
    pub fn over(self, tls: Tls) -> Bound {
        Bound { tls: Some(tls), ..self }
    }

    /// Serves until `stop` is sent or dropped, then waits at most `drain` for running requests. It blocks the caller,
    /// which must not be inside an async runtime.
    ///
    /// # Errors
    /// 70 when the system provides no threads or no sockets.
    pub fn serve(self, handler: Arc<Handler>, stop: oneshot::Receiver<()>, drain: Duration) -> Result<()> {
        let broken = |e: io::Error| Error::internal(format_args!("cannot serve on {}: {e}", self.address));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(HANDLERS)
            // A burst of requests needs many threads at once, and each thread uses memory of its own.
            .thread_keep_alive(Duration::from_secs(1))
            .thread_name("http")
            .enable_all()
            .build()
            .map_err(broken)?;
        let served = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(self.listener)?;
            accept(listener, self.tls, Arc::clone(&handler), stop, drain).await;
            Ok(())
        });
        // A handler that hangs must not delay the end of the process.
        runtime.shutdown_background();
        // The handler owns database connections, which must not be dropped inside a runtime. The last reference is
        // dropped at this point.
        drop(handler);
        served.map_err(broken)
    }
}

async fn accept(
    listener: tokio::net::TcpListener,
    tls: Option<Tls>,
    handler: Arc<Handler>,
    mut stop: oneshot::Receiver<()>,
    drain: Duration,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // Each connection owns a receiver, so the channel is closed once all connections have ended.
    let (ending, ended) = watch::channel(());
    loop {
        let next = async {
            // The semaphore is never closed: it lives as long as this loop.
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let Some((place, accepted)) = unless(&mut stop, next).await else { break };
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(REFUSED).await;
            continue;
        };
        let (handler, tls, ended) = (Arc::clone(&handler), tls.clone(), ended.clone());
        tokio::spawn(async move {
            let _ = tokio::time::timeout(LIFE, connection::serve(stream, peer.ip(), tls, handler, ended)).await;
            drop(place);
        });
    }
    drop((listener, ended));
    let _ = ending.send(());
    let _ = tokio::time::timeout(drain, ending.closed()).await;
}

/// Waits for `next`; returns `None` once a stop is requested. (`tokio::select!` would need a Cargo feature that no
/// other code needs.)
async fn unless<T>(stop: &mut oneshot::Receiver<()>, next: impl Future<Output = T>) -> Option<T> {
    let mut next = std::pin::pin!(next);
    std::future::poll_fn(|context| match Pin::new(&mut *stop).poll(context) {
        Poll::Ready(_) => Poll::Ready(None),
        Poll::Pending => next.as_mut().poll(context).map(Some),
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Instant;

    use hyper::body::Bytes;
    use tokio::sync::mpsc;

    use super::connection::{BODY_BYTES, HEAD_BYTES};
    use super::*;
    use crate::error::ExitKind;

    /// Starts a server on a free port; dropping the sender stops it.
    fn start(handler: Arc<Handler>) -> (SocketAddr, oneshot::Sender<()>, std::thread::JoinHandle<Result<()>>) {
        start_for(handler, Duration::from_millis(300))
    }

    fn start_for(
        handler: Arc<Handler>,
        drain: Duration,
    ) -> (SocketAddr, oneshot::Sender<()>, std::thread::JoinHandle<Result<()>>) {
        let bound = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = bound.address();
        let (sender, stop) = oneshot::channel();
        let thread = std::thread::spawn(move || bound.serve(handler, stop, drain));
        (address, sender, thread)
    }

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
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
    fn get_is_answered_head_has_no_body_and_delete_is_refused() {
        let (address, _stop, _) = start(echo());
        let get = ask(address, "GET /a%2Fb?x=1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        assert!(get.starts_with("HTTP/1.1 200") && get.ends_with("/a%2Fb x=1"), "{get}");
        let head = ask(address, "HEAD /abc HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        assert!(head.contains("content-length: 5\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        let other = ask(address, "DELETE / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        assert!(other.starts_with("HTTP/1.1 405") && other.contains("allow: GET, HEAD, POST"), "{other}");
    }

    #[test]
    fn a_request_without_one_valid_host_is_refused() {
        let (address, _stop, _) = start(echo());
        let status = |head: &str| ask(address, &format!("{head}connection: close\r\n\r\n"))[9..12].to_owned();
        for (head, expected) in [
            ("GET / HTTP/1.1\r\nhost: localhost:80\r\n", "200"),
            ("GET / HTTP/1.1\r\nhost: [::1]\r\n", "200"),
            ("GET / HTTP/1.1\r\nhost:\r\n", "200"),
            ("GET / HTTP/1.0\r\n", "200"),
            ("GET http://localhost/ HTTP/1.1\r\nhost: a\r\n", "200"),
            ("GET / HTTP/1.1\r\n", "400"),
            ("GET / HTTP/1.1\r\nhost: [::1]evil.com\r\n", "400"),
            ("GET / HTTP/1.1\r\nhost: localhost:80@evil.com\r\n", "400"),
            ("GET / HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n", "400"),
            ("GET / HTTP/1.1\r\nhost: localhost, evil.com\r\n", "400"),
            ("GET http://localhost:80@evil.com/ HTTP/1.1\r\nhost: localhost\r\n", "400"),
            ("GET http://localhost/ HTTP/1.1\r\nhost: a\r\nhost: b\r\n", "400"),
        ] {
            assert_eq!(status(head), expected, "{head}");
        }
    }

    #[test]
    fn a_line_feed_alone_in_a_head_is_refused_also_in_a_later_request() {
        let (address, _stop, _) = start(echo());
        let good = "GET /good HTTP/1.1\r\nhost: a\r\n\r\n";
        let last = "GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let both = ask(address, &format!("{good}{last}"));
        assert!(both.matches("HTTP/1.1 200").count() == 2 && both.ends_with("/last "), "{both}");
        for bad in [
            "GET /bad HTTP/1.1\nhost: a\r\n\r\n",
            "GET /bad HTTP/1.1\r\nhost: a\nx: y\r\n\r\n",
            "GET /bad HTTP/1.1\r\nhost: a\r\n\n",
            "GET /bad HTTP/1.1\r\nhost: a\r\nx: y\n\n",
            "\nGET /bad HTTP/1.1\r\nhost: a\r\n\r\n",
        ] {
            for (before, answered) in [("", 0), (good, 1)] {
                let answer = ask(address, &format!("{before}{bad}{last}"));
                assert_eq!(answer.matches("HTTP/1.1 200").count(), answered, "{bad:?}: {answer}");
                assert!(answer.contains("HTTP/1.1 400") && !answer.contains("/bad"), "{bad:?}: {answer}");
            }
        }
    }

    #[test]
    fn a_body_may_contain_line_feeds_and_nothing_behind_it_is_a_request() {
        let (address, _stop, _) = start(Arc::new(|request: Request| {
            Response::text(200, format!("[{}]", String::from_utf8_lossy(&request.body)))
        }));
        let body = "a\n\nb\r\n\r\nGET /c HTTP/1.1\nhost: a\n\n";
        let next = "GET /next HTTP/1.1\r\nhost: a\r\n\r\n";
        let (length, size) = (body.len(), format!("{:x}", body.len()));
        for (fields, sent) in [
            (format!("content-length: {length}"), body.to_owned()),
            ("transfer-encoding: chunked".to_owned(), format!("{size}\r\n{body}\r\n0\r\n\r\n")),
        ] {
            let answer = ask(address, &format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n{sent}{next}"));
            assert!(answer.ends_with(&format!("[{body}]")), "{fields}: {answer}");
            assert!(answer.contains("connection: close") && answer.matches("HTTP/1.1 200").count() == 1, "{answer}");
        }
        let empty = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
        let answer = ask(address, &format!("{empty}GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"));
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
    }

    #[test]
    fn a_body_is_read_completely_and_one_that_is_too_large_is_refused() {
        let (address, _stop, _) = start(Arc::new(|request: Request| {
            Response::text(200, format!("{} {}", request.method, String::from_utf8_lossy(&request.body)))
        }));
        let post = |length: usize, body: &str| {
            ask(
                address,
                &format!("POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"),
            )
        };
        assert!(post(7, "note=ok").ends_with("POST note=ok"));
        let large = post(BODY_BYTES + 1, &"x".repeat(BODY_BYTES + 1));
        assert!(large.starts_with("HTTP/1.1 413"), "{large}");
    }

    #[test]
    fn a_head_that_is_too_large_is_refused() {
        let (address, _stop, _) = start(echo());
        let mut stream = TcpStream::connect(address).unwrap();
        let _ = stream
            .write_all(format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(8 * HEAD_BYTES)).as_bytes());
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }

    #[test]
    fn a_stream_is_sent_as_it_comes_and_ends_with_its_sender() {
        let (address, _stop, _) = start(Arc::new(|_| {
            let (sender, body) = pieces(Duration::from_secs(60));
            std::thread::spawn(move || {
                for piece in ["one ", "two"] {
                    sender.send(piece).unwrap();
                }
            });
            Response { status: 200, headers: vec![], body: ResponseBody::Stream(body) }
        }));
        let answer = ask(address, "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        assert!(
            answer.contains("transfer-encoding: chunked") && answer.contains("one ") && answer.contains("two"),
            "{answer}"
        );
    }

    /// Returns a handler that answers with an event stream, and a receiver for the senders of these streams.
    fn eventful() -> (Arc<Handler>, std::sync::mpsc::Receiver<mpsc::Sender<Bytes>>) {
        let (opened, senders) = std::sync::mpsc::channel();
        let handler = Arc::new(move |_: Request| {
            let (sender, events) = mpsc::channel(1);
            opened.send(sender).unwrap();
            Response { status: 200, headers: vec![("x-kind", "events".to_owned())], body: ResponseBody::Events(events) }
        });
        (handler, senders)
    }

    #[test]
    fn events_are_sent_as_they_come_and_end_with_their_sender() {
        let (handler, senders) = eventful();
        let (address, _stop, _) = start(handler);
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        let sender = senders.recv().unwrap();
        let mut seen = String::new();
        let large = "y".repeat(5_000_000);
        for piece in ["one ", "two ", large.as_str()] {
            sender.blocking_send(Bytes::from(piece.to_owned())).unwrap();
            while !seen.ends_with(piece) {
                let mut part = [0; 65_536];
                let length = stream.read(&mut part).unwrap();
                assert!(length > 0, "it ended");
                seen += std::str::from_utf8(&part[..length]).unwrap();
            }
        }
        drop(sender);
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "it goes on");
        let (head, body) = seen.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200 OK\r\n") && head.contains("x-kind: events"), "{head}");
        assert!(!head.contains("-length") && !head.contains("-encoding") && head.contains("date: "), "{head}");
        assert_eq!(body.len(), 8 + large.len());
    }

    #[test]
    fn events_end_when_the_client_disconnects_or_sends_data_and_are_not_sent_to_head() {
        let (handler, senders) = eventful();
        let (address, _stop, _) = start(handler);
        let ends = |sender: &mpsc::Sender<Bytes>| {
            let begin = Instant::now();
            while !sender.is_closed() {
                assert!(begin.elapsed() < Duration::from_secs(5), "still open");
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        let open = || {
            let mut reader = TcpStream::connect(address).unwrap();
            reader.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
            let sender = senders.recv().unwrap();
            sender.blocking_send(Bytes::from("one")).unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"one") {
                let mut part = [0; 1_024];
                let length = reader.read(&mut part).unwrap();
                seen.extend_from_slice(&part[..length]);
            }
            assert!(!sender.is_closed());
            (reader, sender)
        };
        let (reader, sender) = open();
        drop(reader);
        ends(&sender);
        let (mut reader, sender) = open();
        reader.write_all(b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        ends(&sender);
        let head = ask(address, "HEAD / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("x-kind: events"), "{head}");
        assert!(head.ends_with("\r\n\r\n"), "{head}");
        ends(&senders.recv().unwrap());
    }

    #[test]
    fn a_large_answer_is_whole_though_the_server_stops_or_a_body_never_comes() {
        const LARGE: usize = 8_000_000;
        for (request, stops) in [
            ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", true),
            ("GET / HTTP/1.0\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 10\r\n\r\n", false),
        ] {
            let (answering, answered) = std::sync::mpsc::channel();
            let (address, stop, _) = start_for(
                Arc::new(move |_| {
                    answering.send(()).unwrap();
                    Response::text(200, "x".repeat(LARGE))
                }),
                Duration::from_secs(20),
            );
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            answered.recv().unwrap();
            // The answer fills the socket buffers, and the server waits.
            std::thread::sleep(Duration::from_millis(300));
            let held = (!stops).then_some(stop);
            std::thread::sleep(Duration::from_millis(100));
            let mut answer = Vec::new();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let _ = stream.read_to_end(&mut answer);
            let head = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
            assert_eq!(answer.len() - head - 4, LARGE, "{request:?}");
            drop(held);
        }
    }

    #[test]
    fn events_to_a_client_that_accepts_no_data_end_within_a_minute() {
        let (handler, senders) = eventful();
        let (address, _stop, _) = start(handler);
        let mut reader = TcpStream::connect(address).unwrap();
        reader.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        let sender = senders.recv().unwrap();
        let begin = Instant::now();
        while !sender.is_closed() {
            assert!(begin.elapsed() < Duration::from_secs(60), "still open");
            let _ = sender.try_send(Bytes::from(vec![b'x'; 1_000_000]));
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(reader);
    }

    #[test]
    fn a_panic_is_one_answer_without_internal_details() {
        let (address, _stop, _) = start(echo());
        let answer = ask(address, "GET /panic HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 500") && !answer.contains("on purpose"), "{answer}");
        assert!(ask(address, "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").starts_with("HTTP/1.1 200"));
    }

    #[test]
    fn a_port_in_use_is_reported_with_the_address_and_the_remedy() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = bind(first.address()).unwrap_err();
        assert_eq!(error.kind, ExitKind::Unavailable);
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
