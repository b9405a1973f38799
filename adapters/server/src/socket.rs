//! A WebSocket whose outgoing frames are shared, not copied, and go out together.
//!
//! What is sent waits in a queue of shared buffers and is written many at a time. The WebSocket
//! library reads, and writes its own control frames into the same queue: so an idle connection
//! holds no write buffer, whatever went through it before.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

/// How many buffers one write takes.
const SLICES: usize = 64;
/// How much is read at once.
const READ_BYTES: usize = 4096;
/// What may be longer than the longest frame, so that its sender is told.
const MARGIN_BYTES: usize = 64 << 10;

/// A server's end of a WebSocket.
pub(crate) struct Socket<S> {
    websocket: WebSocketStream<Wire<S>>,
}

/// What came through a socket.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Received {
    /// A text, or bytes that should be one.
    Frame(Bytes),
    /// A sign of life.
    Ping,
    /// The peer wants to close, or has.
    Closed,
    /// A frame too large to be read: the connection can't go on.
    TooLarge,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// The server's end, after the handshake.
    pub(crate) async fn new(stream: S, frame_bytes: usize) -> Self {
        let longest = frame_bytes.saturating_add(MARGIN_BYTES);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(MARGIN_BYTES)
            .max_message_size(Some(longest))
            .max_frame_size(Some(longest));
        let wire = Wire { stream, out: Outgoing::default() };
        let websocket = WebSocketStream::from_raw_socket(wire, Role::Server, Some(config)).await;
        Self { websocket }
    }

    /// Queues a text frame.
    pub(crate) fn send(&mut self, text: Bytes) {
        let out = &mut self.websocket.get_mut().out;
        out.push(text_header(text.len()));
        out.push(text);
    }

    /// Queues the last frame.
    pub(crate) fn close(&mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        // it fails only where the connection has ended already
        let _ = Pin::new(&mut self.websocket).start_send(Message::Close(Some(frame)));
    }

    /// How many bytes wait to be written.
    pub(crate) fn waiting(&self) -> usize {
        self.websocket.get_ref().out.bytes
    }

    /// Writes what waits.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.websocket.get_mut().poll_write_out(cx)
    }

    /// The next thing that came, after which `None` for ever once the connection has ended.
    pub(crate) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        let message = ready!(Pin::new(&mut self.websocket).poll_next(cx));
        Poll::Ready(Some(match message {
            Some(Ok(Message::Text(text))) => Received::Frame(text.into()),
            Some(Ok(Message::Binary(bytes))) => Received::Frame(bytes),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Received::Ping,
            Some(Ok(Message::Close(_))) => Received::Closed,
            Some(Err(Error::Capacity(_))) => Received::TooLarge,
            Some(Err(error)) => {
                tracing::debug!(%error, "a connection broke");
                return Poll::Ready(None);
            }
            None => return Poll::Ready(None),
        }))
    }
}

/// A server's frames are whole and without a mask.
fn text_header(len: usize) -> Bytes {
    const FINAL_TEXT: u8 = 0x81;
    match len {
        0..126 => Bytes::copy_from_slice(&[FINAL_TEXT, len.to_be_bytes()[7]]),
        126..0x1_0000 => {
            let [.., high, low] = len.to_be_bytes();
            Bytes::copy_from_slice(&[FINAL_TEXT, 126, high, low])
        }
        _ => {
            let mut header = vec![FINAL_TEXT, 127];
            header.extend_from_slice(&(len as u64).to_be_bytes());
            header.into()
        }
    }
}

/// The stream beneath, and what waits to be written to it.
struct Wire<S> {
    stream: S,
    out: Outgoing,
}

#[derive(Default)]
struct Outgoing {
    buffers: VecDeque<Bytes>,
    bytes: usize,
}

impl Outgoing {
    fn push(&mut self, buffer: Bytes) {
        self.bytes += buffer.len();
        self.buffers.push_back(buffer);
    }

    /// Takes out what was written.
    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(first) = self.buffers.front_mut() {
            if first.len() > written {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.buffers.pop_front();
        }
        // an idle connection holds no buffer
        self.buffers = VecDeque::new();
    }
}

impl<S: AsyncWrite + Unpin> Wire<S> {
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.out.bytes > 0 {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut count = 0;
            for (slice, buffer) in slices.iter_mut().zip(&self.out.buffers) {
                *slice = IoSlice::new(buffer);
                count += 1;
            }
            let stream = Pin::new(&mut self.stream);
            let written = ready!(stream.poll_write_vectored(cx, &slices[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

/// What the library writes goes behind what already waits.
impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.out.push(Bytes::copy_from_slice(bytes));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_as_short_as_they_may_be() {
        assert_eq!(&text_header(0)[..], [0x81, 0]);
        assert_eq!(&text_header(125)[..], [0x81, 125]);
        assert_eq!(&text_header(126)[..], [0x81, 126, 0, 126]);
        assert_eq!(&text_header(0xffff)[..], [0x81, 126, 0xff, 0xff]);
        assert_eq!(&text_header(0x1_0000)[..], [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn what_was_written_is_taken_out_to_the_byte() {
        let mut out = Outgoing::default();
        for buffer in ["abc", "", "de", "f"] {
            out.push(Bytes::from_static(buffer.as_bytes()));
        }
        out.advance(4);
        assert_eq!((out.bytes, out.buffers.len()), (2, 2));
        assert_eq!(&out.buffers[0][..], b"e");
        out.advance(2);
        assert_eq!((out.bytes, out.buffers.capacity()), (0, 0));
    }
}
