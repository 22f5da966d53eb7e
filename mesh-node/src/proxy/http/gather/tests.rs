use super::*;
use std::task::Waker;

/// A connection that reads what it is given and notes each write.
#[derive(Default)]
struct Noted {
    arrives: Vec<u8>,
    writes: Vec<Vec<u8>>,
    flushes: usize,
    is_full: bool,
}

impl Read for Noted {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if self.arrives.is_empty() {
            return Poll::Pending;
        }
        let length = into.remaining().min(self.arrives.len());
        into.put_slice(&self.arrives[..length]);
        self.arrives.drain(..length);
        Poll::Ready(Ok(()))
    }
}

impl Write for Noted {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_full {
            return Poll::Pending;
        }
        self.writes.push(bytes.to_vec());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.poll_write(context, &bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushes += 1;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn write(gathered: &mut Gathered<Noted>, bytes: &[u8]) -> Poll<usize> {
    let context = &mut Context::from_waker(Waker::noop());
    let written = Pin::new(&mut *gathered).poll_write(context, bytes).map(|written| written.expect("it takes all"));
    assert!(Pin::new(gathered).poll_flush(context).is_ready());
    written
}

/// What is read, with room for `room` bytes; nothing if nothing arrives.
fn read(gathered: &mut Gathered<Noted>, room: usize) -> Vec<u8> {
    let mut bytes = vec![0; room];
    let mut into = ReadBuf::new(&mut bytes);
    let _waits = Pin::new(gathered).poll_read(&mut Context::from_waker(Waker::noop()), into.unfilled());
    into.filled().to_vec()
}

#[test]
fn frames_that_are_flushed_in_one_turn_leave_in_one_write() {
    let mut gathered = Gathered::http2(Noted::default());
    for frame in [&b"one "[..], b"two ", b"three"] {
        assert_eq!(write(&mut gathered, frame), Poll::Ready(frame.len()));
    }
    assert!(gathered.inner.writes.is_empty());
    assert_eq!(read(&mut gathered, 8), b"");
    assert_eq!(gathered.inner.writes, [b"one two three"]);
    assert_eq!((gathered.inner.flushes, gathered.bytes.capacity()), (1, 0));
    assert_eq!(read(&mut gathered, 8), b"");
    assert_eq!(gathered.inner.flushes, 1, "nothing is flushed twice");
}

#[test]
fn what_is_large_is_not_copied_and_overtakes_nothing() {
    let mut gathered = Gathered::http2(Noted::default());
    let large = vec![b'x'; MOST + 1];
    assert_eq!(write(&mut gathered, b"first"), Poll::Ready(5));
    assert_eq!(write(&mut gathered, &large), Poll::Ready(large.len()));
    assert_eq!(gathered.inner.writes, [b"first".to_vec(), large]);
    gathered.inner.is_full = true;
    assert_eq!(write(&mut gathered, &[b'y'; MOST]), Poll::Ready(MOST));
    assert_eq!(write(&mut gathered, b"more"), Poll::Pending, "a full socket is waited for");
    gathered.inner.is_full = false;
    assert_eq!(read(&mut gathered, 8), b"");
    assert_eq!(gathered.inner.writes[2..], [vec![b'y'; MOST]]);
}

#[test]
fn only_after_the_whole_preface_anything_is_gathered() {
    for (arrives, is_gathered) in [
        (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nrest"[..], true),
        (b"PRI * HTTP/2.0\r\n\r\nGET / HTTP/1.1\r\n\r\n", false),
        (b"GET / HTTP/1.1\r\n\r\n", false),
        (b"PRI * HTTP", false),
    ] {
        for room in [1, 5, 64] {
            let mut gathered = Gathered::arriving(Noted { arrives: arrives.to_vec(), ..Noted::default() });
            let pieces = std::iter::repeat_with(|| read(&mut gathered, room)).take_while(|piece| !piece.is_empty());
            assert_eq!(pieces.flatten().collect::<Vec<u8>>(), arrives);
            assert_eq!(write(&mut gathered, b"answer"), Poll::Ready(6));
            assert_eq!(gathered.inner.writes.is_empty(), is_gathered, "{}", arrives.escape_ascii());
        }
    }
}

#[test]
fn what_was_gathered_leaves_before_the_end() {
    let mut gathered = Gathered::http2(Noted::default());
    assert_eq!(write(&mut gathered, b"goaway"), Poll::Ready(6));
    assert!(Pin::new(&mut gathered).poll_shutdown(&mut Context::from_waker(Waker::noop())).is_ready());
    assert_eq!(gathered.inner.writes, [b"goaway"]);
}
