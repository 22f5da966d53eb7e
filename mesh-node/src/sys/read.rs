//! What hyper reads, for whoever looks at it on its way.
//!
//! Source: hyper, `rt::ReadBufCursor`, whose room may not be initialized.
#![expect(unsafe_code, reason = "hyper hands out its room only by an unsafe function")]

use hyper::rt::{ReadBuf, ReadBufCursor};
use std::io;
use std::task::{Poll, ready};

/// Reads by `read` into the room of `cursor`, and shows what was read to `seen`.
///
/// **Errors**: those of `read`.
pub fn observed(
    mut cursor: ReadBufCursor<'_>,
    read: impl FnOnce(ReadBufCursor<'_>) -> Poll<io::Result<()>>,
    seen: impl FnOnce(&[u8]),
) -> Poll<io::Result<()>> {
    // SAFETY: the room is lent to a buffer of its own, which writes to it and never takes away what is initialized.
    let mut own = ReadBuf::uninit(unsafe { cursor.as_mut() });
    ready!(read(own.unfilled()))?;
    seen(own.filled());
    let length = own.filled().len();
    // SAFETY: `own` has filled, and so initialized, as many bytes from the beginning of the room.
    unsafe { cursor.advance(length) };
    Poll::Ready(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_seen_and_handed_on() {
        let mut room = [std::mem::MaybeUninit::uninit(); 8];
        let mut buffer = ReadBuf::uninit(&mut room);
        for (bytes, all) in [("abc", "abc"), ("", "abc"), ("defgh", "abcdefgh")] {
            let mut seen = Vec::new();
            let read = |mut cursor: ReadBufCursor<'_>| {
                cursor.put_slice(bytes.as_bytes());
                Poll::Ready(Ok(()))
            };
            assert!(observed(buffer.unfilled(), read, |bytes| seen.extend_from_slice(bytes)).is_ready());
            assert_eq!((seen.as_slice(), buffer.filled()), (bytes.as_bytes(), all.as_bytes()));
        }
        let waits = observed(buffer.unfilled(), |_| Poll::Pending, |_| unreachable!("nothing was read"));
        assert!(waits.is_pending());
        assert_eq!(buffer.filled(), b"abcdefgh");
    }
}
