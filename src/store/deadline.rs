//! A deadline for every answer of PostgreSQL, or of a pooler in between. Without it, a server that accepts a connection
//! and never answers would block its reader for ever, also after the server works again.
//!
//! The crate `postgres` has no such deadline, and hides its sockets. But it lets a TLS connector wrap the socket.
//! [`DeadlineConnector`] is such a connector. It negotiates TLS as libpq does, and returns a stream that derives from
//! the messages whether an answer is due. A stream that waits too long fails, as if the connection were broken.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use postgres::Socket;
use postgres::config::SslMode;
use postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use postgres_openssl::{MakeTlsConnector, TlsConnector};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::config::resolved::PostgresSettings;

/// Time between the deadline and the last check for an answer. The answer may have arrived while this process was
/// stopped or did not read.
const LAST_LOOK: Duration = Duration::from_millis(200);

/// Message `SSLRequest` of the protocol: length and code. From PostgreSQL's manual, at Message Formats.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Longest time without a byte from the server while it owes an answer. It can be changed while the connection is open.
#[derive(Debug, Clone)]
pub struct AnswerLimit {
    millis: Arc<AtomicU64>,
    /// Time that the server needs to cancel a statement, and the network to carry the answer.
    margin: Duration,
}

impl AnswerLimit {
    /// Creates the limit for statements that the server cancels after `statement_timeout`.
    pub(super) fn new(settings: &PostgresSettings) -> AnswerLimit {
        let limit = AnswerLimit { millis: Arc::default(), margin: settings.connect_timeout };
        limit.allow(settings.statement_timeout);
        limit
    }

    /// Changes the limit, for statements that may take this long.
    pub fn allow(&self, statement: Duration) {
        let millis = u64::try_from((statement + self.margin).as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }
}

/// Whether the connection uses TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encryption {
    Never,
    IfOffered,
    Always,
}

impl Encryption {
    /// Returns the mode of a connection that negotiates TLS by itself.
    pub(super) fn mode(self) -> SslMode {
        match self {
            Encryption::Never => SslMode::Disable,
            Encryption::IfOffered => SslMode::Prefer,
            Encryption::Always => SslMode::Require,
        }
    }
}

/// Makes the connectors of one server.
#[derive(Clone)]
pub(super) struct MakeDeadlineConnector {
    pub tls: MakeTlsConnector,
    pub encryption: Encryption,
    /// Longest time of each step of the handshake.
    pub handshake: Duration,
    pub limit: AnswerLimit,
}

/// Negotiates TLS over a new socket, and applies the deadline to it.
pub(super) struct DeadlineConnector {
    tls: TlsConnector,
    encryption: Encryption,
    handshake: Duration,
    limit: AnswerLimit,
}

impl MakeTlsConnect<Socket> for MakeDeadlineConnector {
    type Stream = DeadlineStream<Negotiated>;
    type TlsConnect = DeadlineConnector;
    type Error = openssl::error::ErrorStack;

    fn make_tls_connect(&mut self, domain: &str) -> Result<DeadlineConnector, Self::Error> {
        Ok(DeadlineConnector {
            tls: MakeTlsConnect::<Socket>::make_tls_connect(&mut self.tls, domain)?,
            encryption: self.encryption,
            handshake: self.handshake,
            limit: self.limit.clone(),
        })
    }
}

impl TlsConnect<Socket> for DeadlineConnector {
    type Stream = DeadlineStream<Negotiated>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Stream, Self::Error>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let handshake = self.handshake;
            let negotiated = tokio::time::timeout(handshake, negotiate(socket, self.tls, self.encryption)).await;
            let stream = negotiated.map_err(|_| no_answer(handshake))??;
            Ok(DeadlineStream { stream, wait: Wait::new(handshake, self.limit) })
        })
    }
}

/// Asks the server whether it offers TLS, and performs the TLS handshake if it does.
async fn negotiate(
    mut socket: Socket,
    tls: TlsConnector,
    encryption: Encryption,
) -> Result<Negotiated, Box<dyn Error + Send + Sync>> {
    if encryption == Encryption::Never {
        return Ok(Negotiated::Plain(socket));
    }
    socket.write_all(&SSL_REQUEST).await?;
    // Exactly one byte is read. More bytes could be text that an attacker has sent before the handshake.
    match socket.read_u8().await? {
        b'S' => Ok(Negotiated::Encrypted(Box::new(tls.connect(socket).await?))),
        _ if encryption == Encryption::Always => Err("server does not support TLS".into()),
        _ => Ok(Negotiated::Plain(socket)),
    }
}

/// The server owed an answer for longer than this limit.
#[derive(Debug)]
pub(super) struct Overdue(Duration);

impl std::fmt::Display for Overdue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no answer for {:.1} s, so the connection was closed", self.0.as_secs_f64())
    }
}

impl Error for Overdue {}

fn no_answer(limit: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, Overdue(limit))
}

/// A connection with or without TLS.
pub(super) enum Negotiated {
    Plain(Socket),
    Encrypted(Box<postgres_openssl::TlsStream<Socket>>),
}

/// Calls a method of whichever stream there is.
macro_rules! either {
    ($stream:expr, $method:ident ( $($argument:expr),* )) => {
        match $stream {
            Negotiated::Plain(stream) => Pin::new(stream).$method($($argument),*),
            Negotiated::Encrypted(stream) => Pin::new(stream.as_mut()).$method($($argument),*),
        }
    };
}

impl AsyncRead for Negotiated {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), poll_read(cx, buf))
    }
}

impl AsyncWrite for Negotiated {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), poll_shutdown(cx))
    }
}

/// A stream of the protocol's messages that fails if an answer is due and nothing arrives.
pub(super) struct DeadlineStream<S> {
    stream: S,
    wait: Wait,
}

impl TlsStream for DeadlineStream<Negotiated> {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.stream {
            Negotiated::Plain(_) => ChannelBinding::none(),
            Negotiated::Encrypted(stream) => stream.channel_binding(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for DeadlineStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Pending => this.wait.poll_answer(cx).map(Err),
            ready => {
                this.wait.received(&buf.filled()[before..]);
                ready
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for DeadlineStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_write(cx, bytes) {
            Poll::Pending => this.wait.poll_room(cx).map(Err),
            Poll::Ready(Ok(count)) => {
                this.wait.sent(&bytes[..count]);
                // The reader may have looked before this request was written. The timer must wake it again.
                match this.wait.poll_answer(cx) {
                    Poll::Ready(error) => Poll::Ready(Err(error)),
                    Poll::Pending => Poll::Ready(Ok(count)),
                }
            }
            failed @ Poll::Ready(Err(_)) => failed,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_flush(cx) {
            Poll::Pending => this.wait.poll_room(cx).map(Err),
            ready => {
                this.wait.flushed();
                ready
            }
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_shutdown(cx) {
            Poll::Pending => this.wait.poll_room(cx).map(Err),
            ready => ready,
        }
    }
}

/// Determines whether the server owes an answer, and until when it must give it.
struct Wait {
    handshake: Duration,
    limit: AnswerLimit,
    requests: Messages,
    answers: Messages,
    /// Number of requests that the server has not finished.
    unfinished: u32,
    is_logged_in: bool,
    /// Whether the server owes an answer, or does not accept what is written.
    is_waiting: bool,
    deadline: Instant,
    timer: Pin<Box<Sleep>>,
    is_last_look: bool,
}

impl Wait {
    /// Creates the state of a new connection, within a runtime.
    fn new(handshake: Duration, limit: AnswerLimit) -> Wait {
        let deadline = Instant::now() + handshake;
        Wait {
            handshake,
            limit,
            requests: Messages { head: [STARTUP, 0, 0, 0, 0], known: 1, rest: 0 },
            answers: Messages { head: [0; 5], known: 0, rest: 0 },
            unfinished: 0,
            is_logged_in: false,
            is_waiting: false,
            deadline,
            timer: Box::pin(tokio::time::sleep_until(deadline)),
            is_last_look: false,
        }
    }

    fn patience(&self) -> Duration {
        if self.is_logged_in { self.limit.get() } else { self.handshake }
    }

    fn progress(&mut self) {
        self.deadline = Instant::now() + self.patience();
        self.is_waiting = self.unfinished > 0;
        self.is_last_look = false;
        // The limit may be lower than when the timer was set.
        if self.deadline < self.timer.deadline() {
            self.timer.as_mut().reset(self.deadline);
        }
    }

    /// Notes that the server has accepted what was written. This does not count as an answer.
    fn flushed(&mut self) {
        self.is_waiting = self.unfinished > 0;
    }

    fn sent(&mut self, bytes: &[u8]) {
        // The startup, a simple query and `Sync` end in `ReadyForQuery`.
        let unfinished = &mut self.unfinished;
        self.requests.each(bytes, |kind| *unfinished += u32::from([STARTUP, b'Q', b'S'].contains(&kind)));
        self.progress();
    }

    fn received(&mut self, bytes: &[u8]) {
        let (unfinished, is_logged_in) = (&mut self.unfinished, &mut self.is_logged_in);
        self.answers.each(bytes, |kind| {
            *is_logged_in |= kind == b'Z';
            // After `CopyInResponse` the server ignores the `Sync` that came with the request.
            *unfinished = unfinished.saturating_sub(u32::from([b'Z', b'G'].contains(&kind)));
        });
        self.progress();
    }

    /// Returns the error if an answer has been due for too long.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        while self.is_waiting && self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            // The timer is not set again for each message, which would cost more.
            let next = match now < self.deadline {
                true => self.deadline,
                false if self.is_last_look => return Poll::Ready(no_answer(self.patience())),
                false => {
                    self.is_last_look = true;
                    now + LAST_LOOK
                }
            };
            self.timer.as_mut().reset(next);
        }
        Poll::Pending
    }

    /// Returns the error if the server has accepted no bytes for too long.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if !self.is_waiting {
            self.progress();
            self.is_waiting = true;
        }
        self.poll_answer(cx)
    }
}

/// Type of the first message, which is sent without one.
const STARTUP: u8 = 0;

/// Follows the messages of one direction: each has a type of one byte and a length of four, which counts itself.
struct Messages {
    head: [u8; 5],
    /// Number of bytes in `head`.
    known: usize,
    /// Number of bytes of the message that are still to come.
    rest: usize,
}

impl Messages {
    /// Calls `see` with the type of each message that begins in these bytes.
    fn each(&mut self, mut bytes: &[u8], mut see: impl FnMut(u8)) {
        while let Some((first, after)) = bytes.split_first() {
            if self.rest > 0 {
                let skipped = self.rest.min(bytes.len());
                self.rest -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            self.head[self.known] = *first;
            self.known += 1;
            bytes = after;
            if let (true, [kind, length @ ..]) = (self.known == self.head.len(), self.head) {
                see(kind);
                (self.known, self.rest) = (0, (u32::from_be_bytes(length) as usize).saturating_sub(length.len()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::store::{DatabaseError, connect};
    use crate::unavailable::Unavailable;

    /// Answer of a server that accepts every login: `AuthenticationOk`, `ReadyForQuery`.
    const WELCOME: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";

    /// Reads a message without a type, and writes the answer.
    fn answer(stream: &mut TcpStream, bytes: &[u8]) {
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut rest = vec![0; u32::from_be_bytes(length) as usize - length.len()];
        stream.read_exact(&mut rest).unwrap();
        stream.write_all(bytes).unwrap();
    }

    /// Starts a server that gives each connection these answers, then keeps it open in silence.
    fn frozen(sslmode: &str, answers: &'static [&'static [u8]]) -> PostgresSettings {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut settings = crate::config::load(&crate::config::SettingFiles::default()).unwrap().settings.postgres;
        (settings.host, settings.port) = ("127.0.0.1".into(), listener.local_addr().unwrap().port());
        settings.sslmode = sslmode.into();
        (settings.connect_timeout, settings.statement_timeout) =
            (Duration::from_millis(400), Duration::from_millis(600));
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for mut stream in listener.incoming().flatten() {
                answers.iter().for_each(|bytes| answer(&mut stream, bytes));
                open.push(stream);
            }
        });
        settings
    }

    #[test]
    fn a_server_that_stops_answering_at_any_step_is_unavailable_after_the_limit() {
        const STEPS: [(&str, &[&[u8]], &str); 7] = [
            ("disable", &[], "0.4 s"),
            ("prefer", &[], "0.4 s"),
            ("prefer", &[b"N"], "0.4 s"),
            ("require", &[b"S"], "0.4 s"),
            ("disable", &[b"R\0\0"], "0.4 s"),
            // The first statement is not answered.
            ("disable", &[WELCOME], "1.0 s"),
            ("prefer", &[b"N", WELCOME], "1.0 s"),
        ];
        for (sslmode, answers, limit) in STEPS {
            let settings = frozen(sslmode, answers);
            let (sender, receiver) = std::sync::mpsc::channel();
            std::thread::spawn(move || sender.send(connect(&settings).err()));
            let error = receiver.recv_timeout(Duration::from_secs(60));
            let Ok(Some(DatabaseError::Unavailable(Unavailable { cause, .. }))) = error else {
                panic!("{sslmode}, {answers:?}: {error:?}")
            };
            assert!(cause.contains(&format!("no answer for {limit}")), "{sslmode}, {answers:?}: {cause}");
        }
    }

    #[test]
    fn a_server_without_tls_is_refused_where_tls_is_required() {
        let error = connect(&frozen("require", &[b"N"])).err();
        let Some(DatabaseError::Refused(refusal)) = error else { panic!("{error:?}") };
        assert!(refusal.message.contains("server does not support TLS"), "{}", refusal.message);
    }

    #[test]
    fn messages_are_found_however_their_bytes_are_divided() {
        let bytes = b"R\0\0\0\x08\0\0\0\0G\0\0\0\x04D\0\0\0\x07abcZ\0\0\0\x05I";
        for size in 1..=bytes.len() {
            let (mut messages, mut kinds) = (Messages { head: [0; 5], known: 0, rest: 0 }, Vec::new());
            bytes.chunks(size).for_each(|part| messages.each(part, |kind| kinds.push(kind)));
            assert_eq!(kinds, b"RGDZ", "pieces of {size}");
        }
    }

    /// Returns whether a server in silence fails the connection within a minute of the runtime's own clock.
    async fn is_due(wait: &mut Wait) -> bool {
        let answer = std::future::poll_fn(|cx| wait.poll_answer(cx));
        tokio::time::timeout(Duration::from_secs(60), answer).await.is_ok()
    }

    #[test]
    fn an_answer_is_due_from_the_request_to_its_end_and_not_while_the_connection_is_idle() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let millis = |n| Arc::new(AtomicU64::new(n));
            let limit = AnswerLimit { millis: millis(300), margin: Duration::ZERO };
            let wait = || {
                let mut wait = Wait::new(Duration::from_millis(300), limit.clone());
                wait.sent(b"\0\0\0\x08\0\x03\0\0");
                wait
            };
            let is_idle = async |wait: &mut Wait| {
                let answer = std::future::poll_fn(|cx| wait.poll_answer(cx));
                tokio::time::timeout(Duration::from_millis(1_000), answer).await.is_err()
            };
            assert!(is_due(&mut wait()).await, "a login");
            let mut logged_in = wait();
            logged_in.received(WELCOME);
            assert!(is_idle(&mut logged_in).await, "a login that is answered");
            // Two requests, of which one is answered.
            logged_in.sent(b"S\0\0\0\x04Q\0\0\0\x05\0");
            logged_in.received(b"Z\0\0\0\x05I");
            assert!(is_due(&mut logged_in).await, "the second request");
            // The server ignores the first `Sync` of a COPY.
            let mut copy = wait();
            copy.received(WELCOME);
            copy.sent(b"E\0\0\0\x04S\0\0\0\x04");
            copy.received(b"G\0\0\0\x04");
            assert!(is_idle(&mut copy).await, "the client's turn");
            copy.sent(b"c\0\0\0\x04S\0\0\0\x04");
            copy.received(b"C\0\0\0\x04Z\0\0\0\x05I");
            assert!(is_idle(&mut copy).await, "a COPY that is finished");
            // A statement that may take an hour, then one with the usual limit.
            let mut long = wait();
            long.received(WELCOME);
            limit.allow(Duration::from_secs(3_600));
            long.sent(b"Q\0\0\0\x05\0");
            assert!(is_idle(&mut long).await, "a long statement");
            long.received(b"Z\0\0\0\x05I");
            limit.allow(Duration::from_millis(300));
            long.sent(b"Q\0\0\0\x05\0");
            assert!(is_due(&mut long).await, "the statement after it");
        });
    }
}
