//! Reading and writing without waiting more often than needed.
//!
//! Invariant: a read that did not fill its buffers marks the socket as empty, which saves the call that would
//! only say so.
//! Invariant: writing is tried at once. The runtime takes a socket that it has just been given for blocked until
//! the next turn of its loop.
//! Cancel: reads lose nothing; a cancelled write has sent an unknown part.

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use socket2::SockRef;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::AsRawFd;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Writes all of `bytes`, of which there is one at least.
///
/// **Errors**: the connection broke.
pub(crate) async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    let mut outcome = (&*SockRef::from(stream)).write(bytes);
    loop {
        match outcome {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
        if bytes.is_empty() {
            return Ok(());
        }
        outcome = stream.try_write(bytes);
    }
}

/// Writes all of `slices`, which hold one byte at least.
///
/// **Errors**: the connection broke.
pub(crate) async fn write_all_vectored(stream: &TcpStream, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    let mut outcome = (&*SockRef::from(stream)).write_vectored(slices);
    loop {
        match outcome {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
        if slices.is_empty() {
            return Ok(());
        }
        outcome = stream.try_write_vectored(slices);
    }
}

/// Reads what a connection brought that was accepted just now. `None`: nothing is there yet.
/// `Some(0)` is the end of the stream.
///
/// **Errors**: the connection broke.
pub(crate) fn read_first(stream: &TcpStream, bytes: &mut [u8]) -> io::Result<Option<usize>> {
    match (&*SockRef::from(stream)).read(bytes) {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Has the peer finished, and is everything it sent read?
///
/// **Errors**: the connection broke. The system tells that once: the next read would take it for the end.
pub(crate) fn is_at_end(stream: &TcpStream) -> io::Result<bool> {
    Ok(peek_now(stream, &mut [0])? == Some(0))
}

/// Looks at the first bytes that are there, without taking them. `None`: nothing is there now.
///
/// **Errors**: the connection broke. The system tells that once: the next read would take it for the end.
pub(crate) fn peek_now(stream: &TcpStream, bytes: &mut [u8]) -> io::Result<Option<usize>> {
    match recv(stream.as_raw_fd(), bytes, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
        Ok(length) => Ok(Some(length)),
        Err(Errno::EAGAIN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Waits until there is something to read, but no longer than one turn of the runtime's loop, in which it looks at
/// every socket once. True if there is.
///
/// **Errors**: those of the runtime.
pub(crate) async fn readable_in_a_turn(stream: &TcpStream) -> io::Result<bool> {
    tokio::select! {
        biased;
        ready = stream.readable() => ready.map(|()| true),
        () = tokio::task::yield_now() => Ok(false),
    }
}

/// Reads what is there into `slices`, which hold `room` bytes together. `None`: nothing is there now.
/// `Some(0)` is the end of the stream.
///
/// **Errors**: the connection broke.
pub(crate) fn read_now(stream: &TcpStream, slices: &mut [IoSliceMut<'_>], room: usize) -> io::Result<Option<usize>> {
    let mut partial = None;
    let outcome = stream.try_io(Interest::READABLE, || {
        let read = (&*SockRef::from(stream)).read_vectored(slices)?;
        if read > 0 && read < room {
            // The socket is empty; saying so here makes the runtime wait for new bytes without another call.
            partial = Some(read);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(read)
    });
    match outcome {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(partial),
        Err(error) => Err(error),
    }
}

/// Ends the connection as an application does that breaks off: the peer sees a reset.
pub(crate) fn reset(stream: TcpStream) {
    // Failure leaves an orderly close, which is all that can still be had.
    let _closed_instead = SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO));
    drop(stream);
}

/// Tells the peer that no more will come, and keeps reading.
///
/// **Errors**: the peer has gone already.
pub(crate) fn finish(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).shutdown(std::net::Shutdown::Write)
}
