//! What is asked and what is answered, apart from any socket.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Bytes, Frame, SizeHint};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use tokio::sync::mpsc;

/// What was asked; the method is GET, HEAD or POST.
#[derive(Debug, Clone)]
pub struct Request {
    /// One of three.
    pub method: Method,
    /// Still percent-encoded.
    pub path: String,
    /// What follows the question mark; empty when nothing does.
    pub query: String,
    /// As they came.
    pub headers: HeaderMap,
    /// Whole; empty but for POST.
    pub body: Bytes,
    /// Who asks: the other end of the connection.
    pub peer: IpAddr,
    /// Whether the connection is encrypted.
    pub is_tls: bool,
}

impl Request {
    /// A GET without headers, from this machine.
    pub fn get(path: &str, query: &str) -> Request {
        Request {
            method: Method::GET,
            path: path.to_owned(),
            query: query.to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            is_tls: false,
        }
    }

    /// A header's text; `None` when it is absent or no text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// A header that is a list, all its lines joined by commas; a line that is no text counts as an empty member.
    pub fn list(&self, name: &str) -> String {
        let lines = self.headers.get_all(name).iter().map(|line| line.to_str().unwrap_or_default());
        lines.collect::<Vec<_>>().join(",")
    }
}

/// What is answered. For HEAD the body is left out, its length is not.
#[derive(Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header names in lower case, with their values.
    pub headers: Vec<(&'static str, String)>,
    /// What follows.
    pub body: ResponseBody,
}

/// What follows the head.
#[derive(Debug)]
pub enum ResponseBody {
    /// All of it.
    Whole(Bytes),
    /// Piece by piece, until the sender is dropped; a reader of HTTP/1.1 sees whether it has all.
    Stream(mpsc::Receiver<Bytes>),
    /// The same for what has no end of its own: cheap to wait for, of HTTP/1.0, and over when the connection is or its reader
    /// speaks.
    Events(mpsc::Receiver<Bytes>),
}

impl From<Bytes> for ResponseBody {
    fn from(bytes: Bytes) -> ResponseBody {
        ResponseBody::Whole(bytes)
    }
}

impl ResponseBody {
    /// The bytes, of a body that is no stream.
    pub fn whole(&self) -> Option<&Bytes> {
        match self {
            ResponseBody::Whole(bytes) => Some(bytes),
            ResponseBody::Stream(_) | ResponseBody::Events(_) => None,
        }
    }
}

impl hyper::body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            ResponseBody::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            ResponseBody::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            ResponseBody::Stream(pieces) | ResponseBody::Events(pieces) => {
                pieces.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, ResponseBody::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            ResponseBody::Stream(_) | ResponseBody::Events(_) => SizeHint::default(),
        }
    }
}

impl Response {
    /// A short answer in plain text.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        let headers = vec![("content-type", "text/plain; charset=utf-8".to_owned())];
        Response { status, headers, body: Bytes::from(text.into()).into() }
    }

    /// A header's first value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// As hyper sends it, and the events that follow.
    pub(super) fn encode(self) -> (hyper::Response<ResponseBody>, Option<mpsc::Receiver<Bytes>>) {
        let (body, events) = match self.body {
            // Empty, though hyper must not know it: it would send a length.
            ResponseBody::Events(events) => (ResponseBody::Stream(mpsc::channel(1).1), Some(events)),
            body => (body, None),
        };
        let mut response = hyper::Response::new(body);
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        for (name, value) in self.headers {
            // A value that is no header is left out, rather than the whole answer.
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().append(HeaderName::from_static(name), value);
            }
        }
        (response, events)
    }
}
