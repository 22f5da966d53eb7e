//! Carries one stream's bytes, both ways at once, until both sides are done or one breaks off.
//!
//! In:  an application's connection, and either a connection between nodes or another plain one.
//! Out: how the stream ended; half-closes and resets are passed on as they come.
//! Invariant: what is read is written before more is read: a slow reader slows its writer and costs at most one
//! buffer for each direction.
//! Invariant: a wire that is to serve another stream has seen both FINs.

#[cfg(test)]
mod tests;

use super::buffer::Buffers;
use super::frame::Control;
use super::io;
use super::live::Cancelled;
use super::refusal::Refusal;
use super::wire::{Event, Receiver, Sender, Wire, WireError, read_application};
use std::cell::Cell;
use std::io::IoSliceMut;
use std::pin::{Pin, pin};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// What is read of a server's TLS at once, in bytes: RFC 8446, section 5.1.
const RECORD: usize = 16 * 1024;

/// Bytes carried.
#[derive(Default)]
pub(crate) struct Counts {
    /// From the dialler.
    pub(crate) request: Cell<u64>,
    /// To the dialler.
    pub(crate) response: Cell<u64>,
}

/// Which way bytes flow between an application and a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The application dialled; the wire leads to the other node.
    Dialler,
    /// The application was dialled.
    Dialled,
}

/// What a peer said already on a stream.
pub(crate) struct Beginning {
    /// Bytes for the application.
    pub(crate) bytes: Vec<u8>,
    /// What followed them.
    pub(crate) then: Option<Event>,
}

/// How a stream ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Both sides are done.
    Clean,
    /// An application broke off, here or at the other end.
    Reset,
    /// The other node broke off, for this reason.
    Refused(String),
    /// The connection between the nodes failed.
    Failed(WireError),
    /// It was ended here, for this reason.
    Cancelled(Box<Refusal>),
}

/// What stops one direction.
enum Stop {
    Application,
    Refused(String),
    Wire(WireError),
}

impl From<WireError> for Stop {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

/// Adds to a counter.
pub(crate) fn add(counter: &Cell<u64>, bytes: usize) {
    counter.set(counter.get() + u64::try_from(bytes).unwrap_or(u64::MAX));
}

/// Carries a stream between an application and a connection between nodes. On a clean end the wire is ready
/// for the next stream; otherwise it must be dropped, and the application's connection reset.
///
/// `first` is what the peer said already, if anything.
pub(crate) async fn over_wire(
    application: &TcpStream,
    (wire, first): (&mut Wire, Option<Box<Beginning>>),
    role: Role,
    context: (&Buffers, &Counts, &Cancelled),
) -> Ended {
    let (buffers, counts, cancelled) = context;
    let (to_wire, from_wire) = match role {
        Role::Dialler => (&counts.request, &counts.response),
        Role::Dialled => (&counts.response, &counts.request),
    };
    let outcome = {
        let (sender, receiver) = wire.split();
        // Pinned where they are made: each move of a future is memory of its own for as long as the stream lives.
        let up = pin!(send(application, sender, buffers, to_wire));
        let down = pin!(receive((receiver, first), application, buffers, from_wire));
        both(up, down, cancelled).await
    };
    let (ended, tell) = match outcome {
        Ok(()) => return Ended::Clean,
        Err(Broken::Cancelled(refusal)) => {
            let reason = refusal.reason;
            (Ended::Cancelled(refusal), Some(reason))
        }
        Err(Broken::Stop(Stop::Application)) => (Ended::Reset, Some("")),
        Err(Broken::Stop(Stop::Refused(reason))) if reason.is_empty() => (Ended::Reset, None),
        Err(Broken::Stop(Stop::Refused(reason))) => (Ended::Refused(reason), None),
        Err(Broken::Stop(Stop::Wire(error))) => (Ended::Failed(error), None),
    };
    if let Some(reason) = tell.filter(|_| !wire.is_torn()) {
        let telling = async {
            let _peer_may_be_gone = wire.split().0.control(&Control::Reset(reason.to_owned())).await;
        };
        let _gave_up = Box::pin(tokio::time::timeout(std::time::Duration::from_secs(1), telling)).await;
    }
    ended
}

/// From the application to the wire.
async fn send(
    application: &TcpStream,
    mut sender: Sender<'_>,
    buffers: &Buffers,
    counter: &Cell<u64>,
) -> Result<(), Stop> {
    // An application that answers at once spares a write here and a wake-up there.
    if sender.owes_accept() && !io::readable_in_a_turn(application).await.map_err(|_| Stop::Application)? {
        sender.settle().await?;
    }
    loop {
        let ready = application.ready(Interest::READABLE).await.map_err(|_| Stop::Application)?;
        let mut buffer = buffers.take();
        match read_application(application, &mut buffer) {
            // The runtime thought there was something. Nothing may be owed while the application is waited for.
            Ok(None) => sender.settle().await?,
            Ok(Some(0)) => return Ok(sender.control(&Control::Fin).await?),
            Ok(Some(length)) => {
                let end = if ready.is_read_closed() { io::is_at_end(application) } else { Ok(false) };
                sender.data(&mut buffer, length, matches!(end, Ok(true))).await?;
                add(counter, length);
                if end.map_err(|_| Stop::Application)? {
                    return Ok(());
                }
            }
            Err(_) => return Err(Stop::Application),
        }
    }
}

/// From the wire to the application.
async fn receive(
    (mut receiver, first): (Receiver<'_>, Option<Box<Beginning>>),
    application: &TcpStream,
    buffers: &Buffers,
    counter: &Cell<u64>,
) -> Result<(), Stop> {
    if let Some(Beginning { bytes, then }) = first.map(|first| *first) {
        if !bytes.is_empty() {
            io::write_all(application, &bytes).await.map_err(|_| Stop::Application)?;
            add(counter, bytes.len());
        }
        if has_ended(then, application)? {
            return Ok(());
        }
    }
    loop {
        let batch = receiver.next(buffers).await?;
        let delivered = receiver.deliver(&batch, application).await.map_err(|_| Stop::Application)?;
        add(counter, delivered);
        receiver.release();
        if has_ended(batch.then, application)? {
            return Ok(());
        }
    }
}

/// Is that the end of what the peer says? The application is told.
fn has_ended(then: Option<Event>, application: &TcpStream) -> Result<bool, Stop> {
    match then {
        None => Ok(false),
        Some(Event::Control(Control::Fin)) => {
            // An application that has closed for good shows it at the next write or read.
            let _gone_already = io::finish(application);
            Ok(true)
        }
        Some(Event::Control(Control::Reset(reason))) => Err(Stop::Refused(reason)),
        Some(Event::Control(Control::Open(_) | Control::Accept | Control::Drain)) => Err(WireError::OutOfOrder.into()),
        Some(Event::Closed) => Err(WireError::Closed.into()),
    }
}

/// Carries bytes between two plain connections; `dialler` is the side that dialled.
pub(crate) async fn plain(dialler: &TcpStream, dialled: &TcpStream, context: (&Buffers, &Counts, &Cancelled)) -> Ended {
    let (buffers, counts, cancelled) = context;
    let up = pin!(copy(dialler, dialled, buffers, &counts.request));
    let down = pin!(copy(dialled, dialler, buffers, &counts.response));
    match both(up, down, cancelled).await {
        Ok(()) => Ended::Clean,
        Err(Broken::Cancelled(refusal)) => Ended::Cancelled(refusal),
        Err(Broken::Stop(_)) => Ended::Reset,
    }
}

async fn copy(from: &TcpStream, to: &TcpStream, buffers: &Buffers, counter: &Cell<u64>) -> Result<(), Stop> {
    loop {
        from.readable().await.map_err(|_| Stop::Application)?;
        let mut buffer = buffers.take();
        let room = buffer.len();
        match io::read_now(from, &mut [IoSliceMut::new(&mut buffer)], room) {
            Ok(None) => {}
            Ok(Some(0)) => {
                let _gone_already = io::finish(to);
                return Ok(());
            }
            Ok(Some(length)) => {
                io::write_all(to, &buffer[..length]).await.map_err(|_| Stop::Application)?;
                add(counter, length);
            }
            Err(_) => return Err(Stop::Application),
        }
    }
}

/// Carries bytes between an application that dialled and a server outside. On a clean end the server has said that it ends; one
/// that breaks off is told to the application as that, for whoever is between could do it.
pub(crate) async fn over_tls(
    application: &TcpStream,
    server: TlsStream<TcpStream>,
    context: (&Buffers, &Counts, &Cancelled),
) -> Ended {
    let (buffers, counts, cancelled) = context;
    let (mut reader, mut writer) = tokio::io::split(server);
    let up = pin!(async {
        loop {
            application.readable().await.map_err(|_| Stop::Application)?;
            let mut buffer = buffers.take();
            let room = buffer.len();
            match io::read_now(application, &mut [IoSliceMut::new(&mut buffer)], room) {
                Ok(None) => {}
                Ok(Some(0)) => return writer.shutdown().await.map_err(|_| Stop::Application),
                Ok(Some(length)) => {
                    writer.write_all(&buffer[..length]).await.map_err(|_| Stop::Application)?;
                    writer.flush().await.map_err(|_| Stop::Application)?;
                    add(&counts.request, length);
                }
                Err(_) => return Err(Stop::Application),
            }
        }
    });
    let down = pin!(async {
        // A connection at rest holds this much; rustls reads no more than a record at a time.
        let mut bytes = vec![0; RECORD];
        loop {
            match reader.read(&mut bytes).await {
                Ok(0) => {
                    let _gone_already = io::finish(application);
                    return Ok(());
                }
                Ok(length) => {
                    io::write_all(application, &bytes[..length]).await.map_err(|_| Stop::Application)?;
                    add(&counts.response, length);
                }
                Err(_) => return Err(Stop::Application),
            }
        }
    });
    match both(up, down, cancelled).await {
        Ok(()) => Ended::Clean,
        Err(Broken::Cancelled(refusal)) => Ended::Cancelled(refusal),
        Err(Broken::Stop(_)) => Ended::Reset,
    }
}

enum Broken {
    Stop(Stop),
    Cancelled(Box<Refusal>),
}

/// Runs both directions until both are done, one stops, or the stream is cancelled.
async fn both(
    mut up: Pin<&mut impl Future<Output = Result<(), Stop>>>,
    mut down: Pin<&mut impl Future<Output = Result<(), Stop>>>,
    cancelled: &Cancelled,
) -> Result<(), Broken> {
    let (mut up_done, mut down_done) = (false, false);
    while !(up_done && down_done) {
        tokio::select! {
            biased;
            refusal = cancelled.wait() => return Err(Broken::Cancelled(Box::new(refusal))),
            result = &mut down, if !down_done => {
                result.map_err(Broken::Stop)?;
                down_done = true;
            }
            result = &mut up, if !up_done => {
                result.map_err(Broken::Stop)?;
                up_done = true;
            }
        }
    }
    Ok(())
}
