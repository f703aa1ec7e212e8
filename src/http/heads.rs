//! Passes the heads of requests to hyper one by one, and refuses line feeds without a carriage return in them. Hyper
//! accepts such lines, but a proxy may not. The proxy could then see one request where hyper sees two.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose heads are checked. Hyper flushes it at the end but does not shut it down. (Hyper's
/// `poll_without_shutdown` does neither.)
pub(super) struct CheckedHeads<'a, S> {
    stream: &'a mut S,
    line: HeadLine,
    /// Bytes after the last head that was passed on. They are checked when hyper reads again. Only then is it known
    /// whether they are a body.
    held: Vec<u8>,
    has_body: &'a AtomicBool,
}

impl<'a, S> CheckedHeads<'a, S> {
    /// Creates the stream. From the moment at which `has_body` is set, all bytes are passed on unchecked. The connection
    /// must end after that request, because the end of its body is not known here.
    pub(super) fn new(stream: &'a mut S, has_body: &'a AtomicBool) -> Self {
        CheckedHeads { stream, line: HeadLine::default(), held: Vec::new(), has_body }
    }
}

/// Position within the head of a request.
#[derive(Debug, Default)]
struct HeadLine {
    /// Whether a line with text has come. Empty lines before it do not count (RFC 9112, 2.2).
    is_begun: bool,
    /// Whether the current line has text.
    has_text: bool,
    /// Whether the last byte was a carriage return.
    is_return: bool,
}

impl HeadLine {
    /// Checks bytes up to the end of a head; returns their number. A line feed without a carriage return becomes NUL,
    /// which no part of a head may contain, so that hyper answers with 400.
    fn check(&mut self, bytes: &mut [u8]) -> usize {
        for (at, byte) in bytes.iter_mut().enumerate() {
            match *byte {
                b'\n' if !self.is_return => *byte = 0,
                b'\n' if self.is_begun && !self.has_text => {
                    *self = HeadLine::default();
                    return at + 1;
                }
                b'\n' => *self = HeadLine { is_begun: self.is_begun || self.has_text, ..HeadLine::default() },
                b'\r' => self.is_return = true,
                _ => (self.has_text, self.is_return) = (true, false),
            }
        }
        bytes.len()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CheckedHeads<'_, S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let start = buffer.filled().len();
        if this.held.is_empty() {
            std::task::ready!(Pin::new(&mut *this.stream).poll_read(context, buffer))?;
        } else {
            let count = this.held.len().min(buffer.remaining());
            buffer.put_slice(&this.held[..count]);
            this.held.drain(..count);
        }
        if !this.has_body.load(Ordering::Relaxed) {
            let new = &mut buffer.filled_mut()[start..];
            let count = this.line.check(new);
            // The bytes after the head come before those that are still held.
            this.held.splice(..0, new[count..].iter().copied());
            buffer.set_filled(start + count);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CheckedHeads<'_, S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.get_mut().stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::HeadLine;

    /// Returns the bytes up to the end of the first head, checked in pieces of this size.
    fn checked(text: &str, size: usize) -> String {
        let (mut line, mut checked) = (HeadLine::default(), Vec::new());
        for piece in text.as_bytes().chunks(size) {
            let mut piece = piece.to_vec();
            let count = line.check(&mut piece);
            checked.extend_from_slice(&piece[..count]);
            if count < piece.len() {
                break;
            }
        }
        String::from_utf8(checked).unwrap()
    }

    #[test]
    fn a_head_ends_with_its_empty_line_wherever_the_pieces_are_divided() {
        let head = "\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n";
        for size in 1..head.len() {
            assert_eq!(checked(head, size), head, "{size}");
        }
        assert_eq!(checked(&format!("{head}GET /next"), 1_000), head);
    }

    #[test]
    fn a_line_feed_alone_becomes_a_byte_that_no_head_may_contain() {
        for (head, refused) in [
            ("GET / HTTP/1.1\nhost: a\r\n\r\n", "GET / HTTP/1.1\0host: a\r\n\r\n"),
            ("GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n", "GET / HTTP/1.1\r\nhost: a\0x: y\r\n\r\n"),
            ("GET / HTTP/1.1\r\nhost: a\r\n\nGET", "GET / HTTP/1.1\r\nhost: a\r\n\0GET"),
            ("\nGET / HTTP/1.1\r\n", "\0GET / HTTP/1.1\r\n"),
        ] {
            for size in 1..head.len() {
                assert_eq!(checked(head, size), refused, "{head:?} {size}");
            }
        }
    }
}
