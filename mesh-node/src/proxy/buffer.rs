//! Buffers, lent only while there are bytes in them.
//!
//! Out: [`Buffers::take`].
//! Invariant: an idle connection holds none; a worker keeps a bounded number of free ones.
//! Invariant: one pod has at most [`LARGE_PER_POD`] large ones at once. Beyond that its connections make do with
//! buffers of one record: they go on, more slowly, and none waits for one that is stuck.

use super::tls::record::{MAX_PEER_RECORD, MAX_RECORD};
use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

/// Records in one buffer: reads and writes of 64 KiB cost half the CPU time of those of 8 KiB, larger ones
/// gain little more.
pub(crate) const RECORDS: usize = 4;
/// Bytes in a large buffer.
pub(crate) const SIZE: usize = RECORDS * MAX_RECORD;
/// Free buffers that a worker keeps.
const KEEP: usize = 64;
/// Large buffers that one pod has at once, 16 MiB: far more than connections that make progress need, since those
/// hold a buffer only between a read and the write that follows.
const LARGE_PER_POD: usize = 256;

/// One pod's share of its worker's buffers.
#[derive(Clone, Default)]
pub(crate) struct Buffers {
    free: Rc<RefCell<Vec<Box<[u8]>>>>,
    /// Large buffers that this pod has now.
    large: Rc<Cell<usize>>,
}

impl Buffers {
    /// Another pod's share of the same buffers.
    pub(crate) fn share(&self) -> Self {
        Self { free: Rc::clone(&self.free), large: Rc::default() }
    }

    /// A buffer with arbitrary content, given back when dropped: of [`SIZE`] bytes, or of one record if the pod has
    /// many large ones already.
    pub(crate) fn take(&self) -> Buffer {
        if self.large.get() < LARGE_PER_POD {
            return self.take_large();
        }
        Buffer { bytes: vec![0; MAX_PEER_RECORD].into_boxed_slice(), home: self.clone() }
    }

    /// A buffer of [`SIZE`] bytes in any case, for who has as many to put there.
    pub(crate) fn take_large(&self) -> Buffer {
        self.large.set(self.large.get() + 1);
        let bytes = self.free.borrow_mut().pop().unwrap_or_else(|| vec![0; SIZE].into_boxed_slice());
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
        if self.bytes.len() < SIZE {
            return;
        }
        self.home.large.set(self.home.large.get() - 1);
        let mut free = self.home.free.borrow_mut();
        if free.len() < KEEP {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_has_many_gets_small_ones_and_no_other_pod_does() {
        let greedy = Buffers::default();
        let modest = greedy.share();
        let mut held: Vec<Buffer> = (0..LARGE_PER_POD).map(|_| greedy.take()).collect();
        assert!(held.iter().all(|buffer| buffer.len() == SIZE));
        let small = greedy.take();
        assert_eq!((small.len(), modest.take().len()), (MAX_PEER_RECORD, SIZE));
        drop(small);
        held.pop();
        assert_eq!(greedy.take().len(), SIZE);
        drop(held);
        assert_eq!(greedy.large.get(), 0);
        assert_eq!(greedy.free.borrow().len(), KEEP);
    }
}
