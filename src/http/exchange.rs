//! Requests and responses as types that need no socket.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Bytes, Frame, SizeHint};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use tokio::sync::mpsc;

use super::host::HostName;
use super::pieces::Pieces;

/// A request whose method is GET, HEAD or POST.
#[derive(Debug, Clone)]
pub struct Request {
    /// Method of the request: GET, HEAD or POST.
    pub method: Method,
    /// Path of the URL, still percent-encoded.
    pub path: String,
    /// Query of the URL without the question mark; empty if there is none.
    pub query: String,
    /// Headers as the client sent them.
    pub headers: HeaderMap,
    /// The whole body; empty unless the method is POST.
    pub body: Bytes,
    /// Address of the client's end of the connection; with a proxy, the proxy's address.
    pub peer: IpAddr,
    /// Whether the connection is encrypted.
    pub is_tls: bool,
}

impl Request {
    /// Makes a GET request without headers, from this machine.
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

    /// Returns a header's value; `None` when the header is absent or not text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns a header's value; `None` when the header is absent, given twice or not text.
    pub fn single(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none())?.to_str().ok()
    }

    /// Returns the host that the client named; `None` if it named none or the name is not valid.
    pub fn host(&self) -> Option<HostName> {
        self.single("host").and_then(HostName::parse)
    }

    /// Returns a header that is a list: all its lines, joined by commas. A line that is not text counts as an empty
    /// member.
    pub fn list(&self, name: &str) -> String {
        let lines = self.headers.get_all(name).iter().map(|line| line.to_str().unwrap_or_default());
        lines.collect::<Vec<_>>().join(",")
    }
}

/// A response. An answer to HEAD contains the length of the body but not the body.
#[derive(Debug)]
pub struct Response {
    /// HTTP status code of the response.
    pub status: u16,
    /// Header names in lower case, with their values.
    pub headers: Vec<(&'static str, String)>,
    /// Body of the response, complete or in pieces.
    pub body: ResponseBody,
}

/// Body of a response, complete or in pieces.
#[derive(Debug)]
pub enum ResponseBody {
    /// A complete body with known length.
    Whole(Bytes),
    /// A body sent in pieces until the sender is dropped. An HTTP/1.1 client can tell whether it has received all of
    /// it; see [`pieces`](super::pieces::pieces).
    Stream(Pieces),
    /// The body behind the head of an event stream, for hyper. It ends at once, which hyper does not know.
    Head,
    /// A body without a known end, sent as HTTP/1.0. A waiting client uses little memory. It ends with the connection,
    /// or when the client sends data.
    Events(mpsc::Receiver<Bytes>),
}

impl From<Bytes> for ResponseBody {
    fn from(bytes: Bytes) -> ResponseBody {
        ResponseBody::Whole(bytes)
    }
}

impl ResponseBody {
    /// Returns the bytes of a complete body; `None` for a stream.
    pub fn whole(&self) -> Option<&Bytes> {
        match self {
            ResponseBody::Whole(bytes) => Some(bytes),
            ResponseBody::Stream(_) | ResponseBody::Head | ResponseBody::Events(_) => None,
        }
    }
}

impl hyper::body::Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            ResponseBody::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            ResponseBody::Head => Poll::Ready(None),
            ResponseBody::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            ResponseBody::Stream(pieces) => pieces.poll(context).map(|piece| piece.map(|piece| piece.map(Frame::data))),
            ResponseBody::Events(pieces) => {
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
            ResponseBody::Stream(_) | ResponseBody::Head | ResponseBody::Events(_) => SizeHint::default(),
        }
    }
}

impl Response {
    /// Makes a short response in plain text.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        let headers = vec![("content-type", "text/plain; charset=utf-8".to_owned())];
        Response { status, headers, body: Bytes::from(text.into()).into() }
    }

    /// Returns the first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// Converts the response to hyper's type, and returns the events to send after it.
    pub(super) fn encode(self) -> (hyper::Response<ResponseBody>, Option<mpsc::Receiver<Bytes>>) {
        let (body, events) = match self.body {
            ResponseBody::Events(events) => (ResponseBody::Head, Some(events)),
            body => (body, None),
        };
        let mut response = hyper::Response::new(body);
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        for (name, value) in self.headers {
            // A value that is not valid in a header is left out; the rest of the response is still sent.
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().append(HeaderName::from_static(name), value);
            }
        }
        (response, events)
    }
}
