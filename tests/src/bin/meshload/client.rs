//! One HTTP/1.1 connection that is asked one thing at a time and never waits by itself.
//!
//! In:  readiness of the socket.
//! Out: whether the answer is complete.
//! Invariant: at most one request is under way on a connection.
//! Source: RFC 9112, sections 4 and 6 (answers with Content-Length only).

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(5);
const MAX_HEAD: usize = 16 * 1024;

/// One connection to the target.
pub(crate) struct Connection {
    stream: TcpStream,
    /// When the request under way was due; `None` while there is none.
    pub(crate) due: Option<Instant>,
    head: Vec<u8>,
    body_left: Option<usize>,
    ok: bool,
}

/// What the socket gave.
pub(crate) enum Progress {
    /// The answer is not complete yet.
    Pending,
    /// The answer is complete; was it a 200?
    Answered(bool),
}

/// The request, as bytes.
pub(crate) fn request(target: SocketAddr, path: &str, close: bool) -> Vec<u8> {
    let connection = if close { "Connection: close\r\n" } else { "" };
    format!("GET {path} HTTP/1.1\r\nHost: {target}\r\n{connection}\r\n").into_bytes()
}

impl Connection {
    pub(crate) fn open(target: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&target, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, due: None, head: Vec::new(), body_left: None, ok: false })
    }

    pub(crate) fn send(&mut self, request: &[u8], due: Instant) -> io::Result<()> {
        self.due = Some(due);
        self.head.clear();
        self.body_left = None;
        // A request is far smaller than a socket's buffer, and the last one was answered.
        if self.stream.write(request)? < request.len() {
            return Err(io::Error::new(ErrorKind::WriteZero, "the socket took only a part of a request"));
        }
        Ok(())
    }

    /// Reads what is there. A closed connection before the end of an answer is an error.
    pub(crate) fn receive(&mut self) -> io::Result<Progress> {
        let mut buffer = [0; 16 * 1024];
        loop {
            let read = match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Progress::Pending),
                Err(error) => return Err(error),
            };
            if self.take(&buffer[..read])? {
                self.due = None;
                return Ok(Progress::Answered(self.ok));
            }
        }
    }

    /// Is the answer complete with these bytes?
    fn take(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let mut body = bytes.len();
        if self.body_left.is_none() {
            let before = self.head.len();
            self.head.extend_from_slice(bytes);
            let Some(end) = self.head.windows(4).position(|window| window == b"\r\n\r\n") else {
                return if self.head.len() > MAX_HEAD { Err(ErrorKind::InvalidData.into()) } else { Ok(false) };
            };
            self.ok = self.head.get(9..12) == Some(b"200");
            self.body_left = Some(content_length(&self.head[..end]).ok_or(ErrorKind::InvalidData)?);
            body = before + bytes.len() - (end + 4);
        }
        let left = self.body_left.unwrap_or(0).checked_sub(body).ok_or(ErrorKind::InvalidData)?;
        self.body_left = Some(left);
        Ok(left == 0)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn content_length(head: &[u8]) -> Option<usize> {
    str::from_utf8(head).ok()?.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") { value.trim().parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn an_answer_may_come_in_any_pieces() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connection = Connection::open(listener.local_addr().unwrap()).unwrap();
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
        for split in 1..answer.len() {
            (connection.head, connection.body_left) = (Vec::new(), None);
            assert!(!connection.take(&answer[..split]).unwrap(), "{split}");
            assert!(connection.take(&answer[split..]).unwrap(), "{split}");
            assert!(connection.ok);
        }
        (connection.head, connection.body_left) = (Vec::new(), None);
        assert!(connection.take(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nhello").is_err());
    }
}
