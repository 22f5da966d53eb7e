//! Large buffers, lent only while there are bytes in them.
//!
//! Out: [`Buffers::take`].
//! Invariant: an idle connection holds none; a worker keeps a bounded number of free ones.

use super::tls::record::MAX_RECORD;
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

/// Records in one buffer: reads and writes of 64 KiB cost half the CPU time of those of 8 KiB, larger ones
/// gain little more.
pub(crate) const RECORDS: usize = 4;
/// Bytes in one buffer.
pub(crate) const SIZE: usize = RECORDS * MAX_RECORD;
/// Free buffers that a worker keeps.
const KEEP: usize = 64;

/// One worker's buffers.
#[derive(Clone, Default)]
pub(crate) struct Buffers(Rc<RefCell<Vec<Box<[u8]>>>>);

impl Buffers {
    /// A buffer of [`SIZE`] bytes with arbitrary content, given back when dropped.
    pub(crate) fn take(&self) -> Buffer {
        let bytes = self.0.borrow_mut().pop().unwrap_or_else(|| vec![0; SIZE].into_boxed_slice());
        Buffer { bytes, home: self.clone() }
    }
}

/// A borrowed buffer.
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    home: Buffers,
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut free = self.home.0.borrow_mut();
        if free.len() < KEEP {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}
