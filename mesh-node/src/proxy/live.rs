//! The connections that are open now, so that each can be judged again when policy changes.
//!
//! In:  a connection's facts when it opens.
//! Out: the facts for whoever judges, and the signal that ends a connection; counts of what is under way.
//! Invariant: a connection is listed exactly while its [`Registration`] lives.

use slab::Slab;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

type Connections<F> = Rc<RefCell<Slab<(F, Rc<Cancelled>)>>>;

/// The open connections of one pod, with their facts of type `F`.
pub(crate) struct Live<F>(Connections<F>);

impl<F> Default for Live<F> {
    fn default() -> Self {
        Self(Rc::new(RefCell::new(Slab::new())))
    }
}

impl<F> Live<F> {
    /// Lists a connection.
    pub(crate) fn register(&self, facts: F) -> Registration<F> {
        let cancelled = Rc::<Cancelled>::default();
        let key = self.0.borrow_mut().insert((facts, Rc::clone(&cancelled)));
        Registration { live: Rc::clone(&self.0), key, cancelled }
    }

    /// How many connections are open.
    pub(crate) fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// Ends the connections for which `verdict` gives a reason; returns how many.
    pub(crate) fn end(&self, verdict: impl Fn(&F) -> Option<&'static str>) -> usize {
        let live = self.0.borrow();
        let doomed = live.iter().filter_map(|(_, (facts, cancelled))| Some((cancelled, verdict(facts)?)));
        doomed.map(|(cancelled, reason)| cancelled.cancel(reason)).count()
    }
}

/// Keeps a connection listed.
pub(crate) struct Registration<F> {
    live: Connections<F>,
    key: usize,
    cancelled: Rc<Cancelled>,
}

impl<F> Registration<F> {
    /// By what the connection is judged.
    pub(crate) fn facts(&self) -> F
    where
        F: Clone,
    {
        self.live.borrow()[self.key].0.clone()
    }

    /// The signal that ends this connection.
    pub(crate) fn cancelled(&self) -> &Cancelled {
        &self.cancelled
    }
}

impl<F> Drop for Registration<F> {
    fn drop(&mut self) {
        self.live.borrow_mut().remove(self.key);
    }
}

/// A signal that is given at most once, within one thread, to one waiter.
#[derive(Default)]
pub(crate) struct Cancelled {
    reason: Cell<Option<&'static str>>,
    waker: Cell<Option<Waker>>,
}

impl Cancelled {
    fn cancel(&self, reason: &'static str) {
        self.reason.set(Some(reason));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Waits for the signal and returns its reason.
    ///
    /// **Cancel**: safe.
    pub(crate) async fn wait(&self) -> &'static str {
        poll_fn(|context| match self.reason.get() {
            Some(reason) => Poll::Ready(reason),
            None => {
                let known = self.waker.take().filter(|waker| waker.will_wake(context.waker()));
                self.waker.set(Some(known.unwrap_or_else(|| context.waker().clone())));
                Poll::Pending
            }
        })
        .await
    }
}

/// One more, for as long as the value lives.
pub(crate) struct OneMore<T> {
    of: Rc<T>,
    count: fn(&T) -> &Cell<u32>,
}

impl<T> OneMore<T> {
    /// Counts one more.
    pub(crate) fn new(of: &Rc<T>, count: fn(&T) -> &Cell<u32>) -> Self {
        let cell = count(of);
        cell.set(cell.get().saturating_add(1));
        Self { of: Rc::clone(of), count }
    }
}

impl<T> Drop for OneMore<T> {
    fn drop(&mut self) {
        let cell = (self.count)(&self.of);
        cell.set(cell.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_condemned_are_told() {
        let live = Live::default();
        let (first, second) = (live.register(1), live.register(2));
        assert_eq!(live.end(|&facts| (facts == 2).then_some("policy_changed")), 1);
        assert_eq!(second.cancelled().wait().await, "policy_changed");
        assert_eq!(first.cancelled().reason.get(), None);
        drop(second);
        assert_eq!(live.len(), 1);
    }
}
