//! A connection between two nodes: frames over TLS records, one stream at a time.
//!
//! In:  a TCP connection and a TLS session on it.
//! Out: [`Wire`], of which the two directions work independently.
//! Invariant: payload is sealed and opened in the buffers it is read into and written from.
//! Invariant: a connection on which anything failed is never used again.
//! Cancel: dropping a half-done send leaves the connection unusable; dropping a receive loses nothing.
//! Source: RFC 8446, sections 4.6.3 (key update) and 6 (alerts).

use super::buffer::{Buffer, Buffers, RECORDS};
use super::frame::{ACCEPT, Control, DATA, FIN, Frame, FrameError};
use super::io;
use super::tls::handshake::{Keys, Session};
use super::tls::record::{
    self, Content, HEADER, MAX_PAYLOAD, MAX_PEER_RECORD, MAX_RECORD, Opener, RecordError, Sealer, TAIL,
};
use std::cell::{Cell, RefCell};
use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;
use tokio::net::TcpStream;

/// The most of an application's bytes that one frame carries.
pub(crate) const MAX_DATA: usize = MAX_PAYLOAD - 1;
/// DATA frames handed on in one write.
const BATCH: usize = 2 * RECORDS;
/// Bytes in the record of a frame without content.
const BARE: usize = HEADER + 1 + TAIL;
pub(crate) const CLOSE_NOTIFY: [u8; 2] = [1, 0];
/// `KeyUpdate`, without and with the request that the peer does the same.
pub(crate) const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// Why a connection between nodes can no longer be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The TCP connection broke.
    #[error("the connection between the nodes broke")]
    Io(#[from] std::io::Error),
    /// The TCP connection ended without the peer's farewell.
    #[error("the connection between the nodes was cut off")]
    CutOff,
    /// The peer said farewell.
    #[error("the peer node closed the connection")]
    Closed,
    /// A record is malformed or forged.
    #[error("TLS failed between the nodes")]
    Record(#[from] RecordError),
    /// A frame is malformed.
    #[error("the peer node broke the protocol")]
    Frame(#[from] FrameError),
    /// The peer refused us by a TLS alert.
    #[error("the peer node refused the connection by TLS alert {0}")]
    Alert(u8),
    /// A frame at the wrong time, or a handshake message that is no key update.
    #[error("the peer node sent a message out of order")]
    OutOfOrder,
    /// New keys could not be made.
    #[error("no new keys could be made")]
    Keys(#[source] rustls::Error),
}

/// A connection between two nodes.
pub(crate) struct Wire {
    stream: TcpStream,
    sealer: Sealer,
    opener: Opener,
    shared: Shared,
    held: Held,
}

/// What a wire is made of.
pub(crate) struct Parts {
    /// The socket.
    pub(crate) stream: TcpStream,
    /// Seals what we send.
    pub(crate) sealer: Sealer,
    /// Opens what the peer sends.
    pub(crate) opener: Opener,
    /// Makes new keys.
    pub(crate) keys: Keys,
    /// Did the peer ask for new keys of ours?
    pub(crate) answer_update: bool,
    /// Bytes received and not yet opened.
    pub(crate) rest: Vec<u8>,
}

/// What both directions need when keys change.
struct Shared {
    keys: RefCell<Keys>,
    /// The peer asked for new keys of ours.
    answer_update: Cell<bool>,
    /// A write is under way; if it is dropped, the peer has half a record and nothing more can be said.
    sending: Cell<bool>,
    /// ACCEPT is to go out with the next frame.
    owes_accept: Cell<bool>,
}

/// Received bytes: `start..end` of the buffer are not yet opened.
#[derive(Default)]
struct Held {
    buffer: Option<Buffer>,
    start: usize,
    end: usize,
}

impl Wire {
    /// A connection on which the handshake is done.
    pub(crate) fn new(stream: TcpStream, session: Session, buffers: &Buffers) -> Self {
        let mut held = Held::default();
        if !session.rest.is_empty() {
            let small = session.rest.len() <= MAX_PEER_RECORD;
            let mut buffer = if small { buffers.take() } else { buffers.take_large() };
            let length = session.rest.len().min(buffer.len());
            buffer[..length].copy_from_slice(&session.rest[..length]);
            held = Held { buffer: Some(buffer), start: 0, end: length };
        }
        let shared = Shared {
            keys: RefCell::new(session.keys),
            answer_update: Cell::new(false),
            sending: Cell::new(false),
            owes_accept: Cell::new(false),
        };
        Self { stream, sealer: session.sealer, opener: session.opener, shared, held }
    }

    /// Was a send dropped half-way?
    pub(crate) const fn is_torn(&self) -> bool {
        self.shared.sending.get()
    }

    /// Answers OPEN by ACCEPT: in one write with the next frame, or alone at [`Sender::settle`].
    pub(crate) fn accept(&self) {
        self.shared.owes_accept.set(true);
    }

    /// Gives the connection to whoever carries one stream on it to its end: the socket, the keys, and what was
    /// received and not yet opened.
    pub(crate) fn into_parts(self) -> Parts {
        let rest = self.held.buffer.as_ref().map_or(&[][..], |buffer| &buffer[self.held.start..self.held.end]).to_vec();
        Parts {
            stream: self.stream,
            sealer: self.sealer,
            opener: self.opener,
            keys: self.shared.keys.into_inner(),
            answer_update: self.shared.answer_update.get(),
            rest,
        }
    }

    /// The two directions.
    pub(crate) fn split(&mut self) -> (Sender<'_>, Receiver<'_>) {
        (
            Sender { stream: &self.stream, sealer: &mut self.sealer, shared: &self.shared },
            Receiver { stream: &self.stream, opener: &mut self.opener, shared: &self.shared, held: &mut self.held },
        )
    }

    /// Has the peer been silent since the last stream? Anything it says between streams means that the
    /// connection is over.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut byte = [0_u8; 1];
        self.held.buffer.is_none()
            && matches!(io::read_now(&self.stream, &mut [IoSliceMut::new(&mut byte)], 1), Ok(None))
    }

    /// Says farewell, so that the peer knows that nothing was cut off and, if an OPEN is on its way, that it
    /// was not acted on.
    pub(crate) async fn close(mut self) {
        let (mut sender, _) = self.split();
        // The peer may be gone already; then there is no one to tell.
        if sender.record(Content::Alert, &CLOSE_NOTIFY).await.is_ok() && io::finish(&self.stream).is_ok() {
            self.linger().await;
        }
    }

    /// Reads away what is on its way, since closing over unread bytes resets the connection and destroys
    /// the farewell. Bounded in time and bytes.
    async fn linger(&self) {
        let drain = async {
            for _ in 0..64 {
                if self.stream.readable().await.is_err() {
                    return;
                }
                // Not while waiting: what lives then is memory of every wire that closes.
                let mut scratch = [0_u8; 4096];
                match self.stream.try_read(&mut scratch) {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        };
        let _gave_up = tokio::time::timeout(std::time::Duration::from_secs(1), drain).await;
    }
}

/// The direction to the peer.
pub(crate) struct Sender<'a> {
    stream: &'a TcpStream,
    sealer: &'a mut Sealer,
    shared: &'a Shared,
}

impl Sender<'_> {
    /// Sends one control frame.
    pub(crate) async fn control(&mut self, control: &Control) -> Result<(), WireError> {
        self.renew_keys().await?;
        self.record(Content::Application, &control.encode()).await
    }

    /// Sends one control frame and, in the same write, an application's first bytes.
    pub(crate) async fn control_with_data(&mut self, control: &Control, data: &[u8]) -> Result<(), WireError> {
        self.renew_keys().await?;
        let mut out = Vec::with_capacity(2 * (HEADER + TAIL) + 64 + data.len());
        self.sealer.append(&mut out, Content::Application, &control.encode())?;
        for chunk in data.chunks(MAX_DATA) {
            let framed = [&[DATA], chunk].concat();
            self.sealer.append(&mut out, Content::Application, &framed)?;
        }
        self.write(&out).await
    }

    /// Sends the first `length` bytes that [`read_application`] put into `buffer`; in the same write FIN, if they
    /// are the `last`.
    pub(crate) async fn data(&mut self, buffer: &mut Buffer, length: usize, last: bool) -> Result<(), WireError> {
        self.renew_keys().await?;
        let first = if self.shared.owes_accept.take() { Some(self.bare(ACCEPT)?) } else { None };
        let mut left = length;
        let mut sealed = 0;
        for slot in buffer.as_chunks_mut::<MAX_RECORD>().0 {
            let size = left.min(MAX_DATA);
            slot[HEADER] = DATA;
            sealed += self.sealer.seal(Content::Application, slot, 1 + size)?;
            left -= size;
            if left == 0 {
                break;
            }
        }
        let fin = if last { Some(self.bare(FIN)?) } else { None };
        let data = &buffer[..sealed];
        if first.is_none() && fin.is_none() {
            return self.write(data).await;
        }
        let bare = |record| -> &[u8] { Option::as_ref(record).map_or(&[], |record: &[u8; BARE]| record) };
        self.write_parts(&mut [bare(&first), data, bare(&fin)].map(IoSlice::new)).await
    }

    /// Does the peer still wait for ACCEPT?
    pub(crate) const fn owes_accept(&self) -> bool {
        self.shared.owes_accept.get()
    }

    /// Sends what is owed.
    pub(crate) async fn settle(&mut self) -> Result<(), WireError> {
        if self.shared.owes_accept.take() {
            self.control(&Control::Accept).await?;
        }
        Ok(())
    }

    /// The record of a frame without content.
    fn bare(&mut self, kind: u8) -> Result<[u8; BARE], WireError> {
        let mut record = [0; BARE];
        record[HEADER] = kind;
        self.sealer.seal(Content::Application, &mut record, 1)?;
        Ok(record)
    }

    async fn record(&mut self, content: Content, payload: &[u8]) -> Result<(), WireError> {
        let mut out = Vec::with_capacity(BARE + HEADER + payload.len() + TAIL);
        if content == Content::Application && self.shared.owes_accept.take() {
            out.extend_from_slice(&self.bare(ACCEPT)?);
        }
        self.sealer.append(&mut out, content, payload)?;
        self.write(&out).await
    }

    async fn write(&self, records: &[u8]) -> Result<(), WireError> {
        self.shared.sending.set(true);
        io::write_all(self.stream, records).await?;
        self.shared.sending.set(false);
        Ok(())
    }

    async fn write_parts(&self, parts: &mut [IoSlice<'_>]) -> Result<(), WireError> {
        self.shared.sending.set(true);
        io::write_all_vectored(self.stream, parts).await?;
        self.shared.sending.set(false);
        Ok(())
    }

    async fn renew_keys(&mut self) -> Result<(), WireError> {
        if !self.sealer.is_worn() && !self.shared.answer_update.get() {
            return Ok(());
        }
        self.record(Content::Handshake, &KEY_UPDATE).await?;
        self.shared.answer_update.set(false);
        let secrets = self.shared.keys.borrow_mut().next_tx().map_err(WireError::Keys)?;
        *self.sealer = Sealer::new(secrets)?;
        Ok(())
    }
}

/// Reads an application's bytes to where [`Sender::data`] seals them. `None`: nothing is there now;
/// `Some(0)`: the application has no more to send.
///
/// **Errors**: the application's connection broke.
pub(crate) fn read_application(stream: &TcpStream, buffer: &mut Buffer) -> std::io::Result<Option<usize>> {
    let mut slots = buffer
        .as_chunks_mut::<MAX_RECORD>()
        .0
        .iter_mut()
        .map(|slot| IoSliceMut::new(&mut slot[HEADER + 1..][..MAX_DATA]));
    let mut slices: [IoSliceMut<'_>; RECORDS] =
        std::array::from_fn(|_| slots.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
    let room = slices.iter().map(|slice| slice.len()).sum();
    io::read_now(stream, &mut slices, room)
}

/// What came from the peer at once: an application's bytes, then perhaps a control frame.
pub(crate) struct Batch {
    data: [Range<usize>; BATCH],
    count: usize,
    /// What follows the data.
    pub(crate) then: Option<Event>,
}

impl Batch {
    /// Does the batch carry none of the application's bytes?
    pub(crate) const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// What ends a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A control frame.
    Control(Control),
    /// The peer said farewell.
    Closed,
}

/// What a record says.
pub(crate) enum Said {
    /// An application's bytes: all but the first of the payload.
    Data,
    /// A control frame.
    Control(Control),
    /// Farewell.
    Closed,
    /// What follows is sealed by the next keys.
    NewKeys {
        /// The same is asked of us.
        asked: bool,
    },
}

impl Said {
    /// What a record with this payload says.
    ///
    /// **Errors**: nothing that may be said; or the peer refuses us.
    pub(crate) fn by(content: Content, payload: &[u8]) -> Result<Self, WireError> {
        Ok(match (content, payload) {
            (Content::Application, payload) => match Frame::decode(payload)? {
                Frame::Data => Self::Data,
                Frame::Control(control) => Self::Control(control),
            },
            (Content::Alert, [_, 0]) => Self::Closed,
            (Content::Alert, [_, code]) => return Err(WireError::Alert(*code)),
            // A key update is the one message of a handshake that may come.
            (Content::Handshake, [24, 0, 0, 1, asked @ (0 | 1)]) => Self::NewKeys { asked: *asked == 1 },
            (Content::Alert | Content::Handshake, _) => return Err(WireError::OutOfOrder),
        })
    }
}

/// The direction from the peer.
pub(crate) struct Receiver<'a> {
    stream: &'a TcpStream,
    opener: &'a mut Opener,
    shared: &'a Shared,
    held: &'a mut Held,
}

impl Receiver<'_> {
    /// What comes next, waiting for it. The bytes stay valid until [`Receiver::release`].
    pub(crate) async fn next(&mut self, buffers: &Buffers) -> Result<Batch, WireError> {
        loop {
            if let Some(batch) = self.open_held()? {
                return Ok(batch);
            }
            self.read(buffers).await?;
        }
    }

    /// Writes a batch's bytes to an application; returns their number.
    pub(crate) async fn deliver(&self, batch: &Batch, to: &TcpStream) -> std::io::Result<usize> {
        let Some(buffer) = &self.held.buffer else { return Ok(0) };
        let ranges = &batch.data[..batch.count];
        let mut slices: [IoSlice<'_>; BATCH] =
            std::array::from_fn(|at| IoSlice::new(ranges.get(at).map_or(&[], |range| &buffer[range.clone()])));
        if batch.count > 0 {
            io::write_all_vectored(to, &mut slices[..batch.count]).await?;
        }
        Ok(ranges.iter().map(Range::len).sum())
    }

    /// A batch's bytes.
    pub(crate) fn bytes(&self, batch: &Batch) -> Vec<u8> {
        let Some(buffer) = &self.held.buffer else { return Vec::new() };
        batch.data[..batch.count].iter().flat_map(|range| &buffer[range.clone()]).copied().collect()
    }

    /// Gives the buffer back if nothing unopened is left in it.
    pub(crate) fn release(&mut self) {
        if self.held.start == self.held.end {
            *self.held = Held::default();
        }
    }

    /// Opens the whole records that are there, up to the first that is no data.
    fn open_held(&mut self) -> Result<Option<Batch>, WireError> {
        let mut batch = Batch { data: [const { 0..0 }; BATCH], count: 0, then: None };
        while batch.count < BATCH && batch.then.is_none() {
            let Some((content, range)) = self.open_record()? else { break };
            let payload = self.held.buffer.as_ref().map_or(&[][..], |buffer| &buffer[range.clone()]);
            match Said::by(content, payload)? {
                Said::Data => {
                    batch.data[batch.count] = range.start + 1..range.end;
                    batch.count += 1;
                }
                Said::Control(control) => batch.then = Some(Event::Control(control)),
                Said::Closed => batch.then = Some(Event::Closed),
                Said::NewKeys { asked } => {
                    let secrets = self.shared.keys.borrow_mut().next_rx().map_err(WireError::Keys)?;
                    *self.opener = Opener::new(secrets)?;
                    self.shared.answer_update.set(self.shared.answer_update.get() || asked);
                }
            }
        }
        Ok((batch.count > 0 || batch.then.is_some()).then_some(batch))
    }

    /// Opens the next record if it is there whole.
    fn open_record(&mut self) -> Result<Option<(Content, Range<usize>)>, WireError> {
        let held = &mut *self.held;
        let Some(buffer) = held.buffer.as_mut() else { return Ok(None) };
        let bytes = &mut buffer[held.start..held.end];
        let Some(length) = record::length(bytes)? else { return Ok(None) };
        let Some(bytes) = bytes.get_mut(..length) else { return Ok(None) };
        let (content, range) = self.opener.open(bytes)?;
        let start = held.start;
        held.start += length;
        Ok(Some((content, range.start + start..range.end + start)))
    }

    /// Waits for more bytes.
    async fn read(&mut self, buffers: &Buffers) -> Result<(), WireError> {
        self.release();
        loop {
            let held = &mut *self.held;
            let buffer = match &mut held.buffer {
                Some(buffer) => buffer,
                empty => {
                    // Without unopened bytes, wait first: an idle connection holds no buffer.
                    self.stream.readable().await?;
                    empty.insert(buffers.take())
                }
            };
            if held.start > 0 {
                buffer.copy_within(held.start..held.end, 0);
                held.end -= held.start;
                held.start = 0;
            }
            let room = buffer.len() - held.end;
            match io::read_now(self.stream, &mut [IoSliceMut::new(&mut buffer[held.end..])], room)? {
                Some(0) => return Err(WireError::CutOff),
                Some(read) => {
                    held.end += read;
                    return Ok(());
                }
                None => {
                    self.release();
                    self.stream.readable().await?;
                }
            }
        }
    }
}
