//! A WebSocket whose outgoing frames are shared, not copied, and go out together.
//!
//! Frames wait in a queue of shared buffers and are written many at a time. The WebSocket
//! library reads, and writes its own control frames into the same queue: so an idle connection
//! holds no write buffer, whatever went through it before.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

/// The number of slices that one write takes; a frame has two.
const SLICES: usize = 128;
/// The longest header of a frame without a mask.
const LONGEST_HEADER: usize = 10;
/// The number of bytes that are read at once.
const READ_BYTES: usize = 4096;
/// The length of the shortest header of a client's frame.
const MASKED_HEADER: usize = 6;
/// The number of bytes that are read before it is counted what they hold.
const TURN_BYTES: usize = 64 << 10;
/// The number of bytes that a frame may be too long and still be read, so that its sender is told.
const MARGIN_BYTES: usize = 64 << 10;
/// The number of bytes that are read and forgotten at once.
const DISCARD_BYTES: usize = 16 << 10;
/// The number of bytes that are read and forgotten of a stranger that goes on to send after the last
/// frame was written.
const DISCARDED_BYTES: usize = 256 << 10;

/// A frame that is longer than the limit.
const TOO_LARGE: Received = Received::Unreadable(1009, "the frame is too large");

/// A server's end of a WebSocket.
pub(crate) struct Socket<S> {
    websocket: WebSocketStream<Transport<S>>,
    /// True once the peer has sent its last frame.
    closed: bool,
    /// The bytes that were forgotten.
    discarded: usize,
}

/// Something that came through a socket.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Received {
    /// A text, or bytes that should be one.
    Frame(Bytes),
    /// A sign of life.
    Ping,
    /// The peer wants to close, or has.
    Closed,
    /// A frame that can't be read, after which the connection can't go on: the code and reason to
    /// close it with.
    Unreadable(u16, &'static str),
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
        let transport = Transport {
            stream,
            out: Outgoing::default(),
            unflushed: false,
            partial: 0,
            blocked: false,
            moved: false,
            limit: usize::MAX,
            turn: 0,
        };
        let websocket =
            WebSocketStream::from_raw_socket(transport, Role::Server, Some(config)).await;
        Self { websocket, closed: false, discarded: 0 }
    }

    /// Limits the bytes of a frame that are kept, lower than those of which the sender is told.
    pub(crate) fn set_limit(&mut self, bytes: usize) {
        self.websocket.get_mut().limit = bytes;
    }

    /// The approximate number of bytes that are kept of a frame that is not whole.
    pub(crate) fn partial(&self) -> usize {
        self.websocket.get_ref().partial
    }

    /// Returns `true` if bytes of a frame that is not whole have come, or bytes that had to wait for room
    /// have gone out, since this was last asked.
    pub(crate) fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.websocket.get_mut().moved)
    }

    /// Queues a text frame.
    pub(crate) fn send(&mut self, text: Bytes) {
        self.websocket.get_mut().out.push(Piece::text(text));
    }

    /// Queues the last frame.
    pub(crate) fn close(&mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        // it fails only where the connection has ended already
        let _ = Pin::new(&mut self.websocket).start_send(Message::Close(Some(frame)));
    }

    /// The approximate number of bytes that are kept of what waits to be written.
    pub(crate) fn waiting(&self) -> usize {
        self.websocket.get_ref().out.kept()
    }

    /// Returns `true` while something has to be written, here or in the stream beneath.
    pub(crate) fn wants_flush(&self) -> bool {
        let transport = self.websocket.get_ref();
        transport.out.bytes > 0 || transport.unflushed
    }

    /// Writes what waits.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.websocket.get_mut().poll_write_out(cx)
    }

    /// The next thing that came, after which `None` for ever once the connection has ended.
    pub(crate) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        self.websocket.get_mut().turn = TURN_BYTES;
        let message = ready!(Pin::new(&mut self.websocket).poll_next(cx));
        let transport = self.websocket.get_mut();
        // what came is a sign of life as it is
        transport.moved = false;
        Poll::Ready(Some(match message {
            Some(Ok(Message::Text(text))) => {
                transport.end_frame(text.len());
                Received::Frame(text.into())
            }
            Some(Ok(Message::Binary(bytes))) => {
                transport.end_frame(bytes.len());
                Received::Frame(bytes)
            }
            Some(Ok(Message::Ping(bytes) | Message::Pong(bytes))) => {
                // it may stand between the parts of another frame, of which the rest is kept
                transport.partial = transport.partial.saturating_sub(bytes.len() + MASKED_HEADER);
                Received::Ping
            }
            Some(Ok(Message::Frame(_))) => Received::Ping,
            Some(Ok(Message::Close(_))) => {
                self.closed = true;
                Received::Closed
            }
            Some(Err(Error::Io(_))) if transport.partial >= transport.limit => TOO_LARGE,
            Some(Err(error)) => {
                tracing::debug!(%error, "a connection broke");
                match unreadable(&error) {
                    Some(unreadable) => unreadable,
                    None => return Poll::Ready(None),
                }
            }
            None => return Poll::Ready(None),
        }))
    }

    /// Parts with the peer: writes what waits, and waits until the peer has closed too.
    pub(crate) fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let flushed = self.poll_flush(cx);
            match self.poll_receive(cx) {
                Poll::Ready(Some(_)) => {}
                // reading has queued the answer to the peer's close
                Poll::Ready(None) => return self.poll_end(cx).map(drop),
                Poll::Pending if matches!(flushed, Poll::Ready(Err(_))) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Ends the stream: what waits is written. What comes from a peer that has not closed is read
    /// and forgotten, until it ends the stream too: a stream that is dropped with bytes unread is
    /// reset, and its peer may not get what was written last. A stranger that sends much has no more
    /// than that to fear.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let transport = self.websocket.get_mut();
        ready!(transport.poll_write_out(cx))?;
        ready!(Pin::new(&mut transport.stream).poll_shutdown(cx))?;
        let mut bytes = [MaybeUninit::uninit(); DISCARD_BYTES];
        let most = if transport.limit < usize::MAX { DISCARDED_BYTES } else { usize::MAX };
        while !self.closed && self.discarded < most {
            let mut unwanted = ReadBuf::uninit(&mut bytes);
            ready!(Pin::new(&mut transport.stream).poll_read(cx, &mut unwanted))?;
            self.closed = unwanted.filled().is_empty();
            self.discarded += unwanted.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}

/// The frame that an error of the library is about; `None` if the stream itself has ended.
fn unreadable(error: &Error) -> Option<Received> {
    match error {
        Error::Capacity(_) => Some(TOO_LARGE),
        Error::Utf8(_) => Some(Received::Unreadable(1007, "the text is not UTF-8")),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => {
            Some(Received::Unreadable(1002, "the frame breaks the WebSocket protocol"))
        }
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Io(_)
        | Error::Tls(_)
        | Error::WriteBufferFull(_)
        | Error::AttackAttempt
        | Error::Url(_)
        | Error::Http(_)
        | Error::HttpFormat(_) => None,
    }
}

/// The stream beneath, and what waits to be written to it.
struct Transport<S> {
    stream: S,
    out: Outgoing,
    /// The stream may keep bytes that were written to it, as TLS does where the socket is full.
    unflushed: bool,
    /// The bytes that were read since the last frame that was whole.
    partial: usize,
    /// The stream had no room when it was last written to.
    blocked: bool,
    /// Bytes of a frame that is not whole were read, or bytes were written that had to wait.
    moved: bool,
    /// The bytes that may be.
    limit: usize,
    /// The bytes that may be read before others have their turn.
    turn: usize,
}

impl<S> Transport<S> {
    /// Takes note of a whole frame. Of the next one there is no more than one reading.
    fn end_frame(&mut self, bytes: usize) {
        self.partial = self.partial.saturating_sub(bytes + MASKED_HEADER).min(READ_BYTES);
    }
}

#[derive(Default)]
struct Outgoing {
    pieces: VecDeque<Piece>,
    bytes: usize,
}

/// A frame, or what is left of one.
struct Piece {
    header: [u8; LONGEST_HEADER],
    /// Which bytes of the header are left.
    left: Range<usize>,
    payload: Bytes,
}

impl Piece {
    /// A server's frames are whole and without a mask.
    fn text(payload: Bytes) -> Self {
        const FINAL_TEXT: u8 = 0x81;
        let mut header = [FINAL_TEXT, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let length = (payload.len() as u64).to_be_bytes();
        let end = match payload.len() {
            0..126 => {
                header[1] = length[7];
                2
            }
            126..0x1_0000 => {
                header[1] = 126;
                header[2..4].copy_from_slice(&length[6..]);
                4
            }
            _ => {
                header[1] = 127;
                header[2..].copy_from_slice(&length);
                10
            }
        };
        Self { header, left: 0..end, payload }
    }

    /// Bytes that have their header already.
    fn ready(payload: Bytes) -> Self {
        Self { header: [0; LONGEST_HEADER], left: 0..0, payload }
    }

    fn header(&self) -> &[u8] {
        &self.header[self.left.clone()]
    }

    fn len(&self) -> usize {
        self.left.len() + self.payload.len()
    }

    fn advance(&mut self, written: usize) {
        let of_header = written.min(self.left.len());
        self.left.start += of_header;
        self.payload.advance(written - of_header);
    }
}

impl Outgoing {
    fn push(&mut self, piece: Piece) {
        self.bytes += piece.len();
        self.pieces.push_back(piece);
    }

    /// Counts the pieces too: an answer to an empty ping has two bytes, and takes fifty times as many.
    fn kept(&self) -> usize {
        self.bytes + self.pieces.len() * size_of::<Piece>()
    }

    /// Takes out what was written.
    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(first) = self.pieces.front_mut() {
            if first.len() > written {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.pieces.pop_front();
        }
        // an idle connection holds no buffer
        self.pieces = VecDeque::new();
    }
}

impl<S: AsyncWrite + Unpin> Transport<S> {
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.out.bytes > 0 {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut count = 0;
            for (pair, piece) in slices.chunks_exact_mut(2).zip(&self.out.pieces) {
                pair[0] = IoSlice::new(piece.header());
                pair[1] = IoSlice::new(&piece.payload);
                count += 2;
            }
            let stream = Pin::new(&mut self.stream);
            let written = stream.poll_write_vectored(cx, &slices[..count]);
            let waited = std::mem::replace(&mut self.blocked, written.is_pending());
            let written = ready!(written)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
            self.moved |= waited;
            self.unflushed = true;
        }
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Transport<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.partial >= self.limit {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        if self.turn == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        self.partial += read;
        self.moved |= read > 0;
        self.turn = self.turn.saturating_sub(read);
        Poll::Ready(Ok(()))
    }
}

/// Queues what the library writes behind what already waits.
impl<S: AsyncWrite + Unpin> AsyncWrite for Transport<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.out.push(Piece::ready(Bytes::copy_from_slice(bytes)));
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
        for (len, header) in [
            (0, &[0x81, 0][..]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (0xffff, &[0x81, 126, 0xff, 0xff]),
            (0x1_0000, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            assert_eq!(Piece::text(vec![b' '; len].into()).header(), header);
        }
    }

    #[test]
    fn what_was_written_is_taken_out_to_the_byte() {
        let mut out = Outgoing::default();
        for text in ["abc", "", "de"] {
            out.push(Piece::text(Bytes::from_static(text.as_bytes())));
        }
        out.push(Piece::ready(Bytes::from_static(b"f")));
        let rest = |out: &Outgoing| {
            let bytes = |piece: &Piece| [piece.header(), &piece.payload].concat();
            out.pieces.iter().map(bytes).collect::<Vec<_>>()
        };
        out.advance(1);
        assert_eq!(rest(&out), [&b"\x03abc"[..], b"\x81\x00", b"\x81\x02de", b"f"]);
        out.advance(9);
        assert_eq!((out.bytes, rest(&out)), (2, vec![b"e".to_vec(), b"f".to_vec()]));
        out.advance(2);
        assert_eq!((out.bytes, out.pieces.capacity()), (0, 0));
    }

    #[tokio::test]
    async fn answers_to_many_empty_pings_count_as_what_they_take() {
        const PINGS: usize = 10_000;
        // a ping of a client with a mask that changes nothing
        let pings = b"\x89\x80\0\0\0\0".repeat(PINGS);
        let (mut peer, stream) = tokio::io::duplex(pings.len());
        tokio::io::AsyncWriteExt::write_all(&mut peer, &pings).await.unwrap();
        let mut socket = Socket::new(stream, 4 << 10).await;
        for _ in 0..PINGS {
            let received = std::future::poll_fn(|cx| socket.poll_receive(cx)).await;
            assert_eq!(received, Some(Received::Ping));
        }
        assert!(socket.waiting() > PINGS * size_of::<Piece>() / 2, "{} bytes", socket.waiting());
    }
}
