//! The connections that are open now, so that each can be judged again when policy changes.
//!
//! In:  a connection's facts when it opens.
//! Out: the facts for whoever judges, and the signal that ends a connection; counts of what is under way.
//! Invariant: a connection is listed exactly while its [`Registration`] lives.

use super::refusal::Refusal;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

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
    pub(crate) fn end(&self, verdict: impl Fn(&F) -> Option<Refusal>) -> usize {
        let live = self.0.borrow();
        let open = live.iter().filter(|(_, (_, cancelled))| cancelled.cause().is_none());
        let doomed = open.filter_map(|(_, (facts, cancelled))| Some((cancelled, verdict(facts)?)));
        doomed.map(|(cancelled, refusal)| cancelled.cancel(refusal)).count()
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

    /// It is judged by this from now on.
    pub(crate) fn change(&self, facts: F) {
        self.live.borrow_mut()[self.key].0 = facts;
    }

    /// The signal that ends this connection.
    pub(crate) fn cancelled(&self) -> &Rc<Cancelled> {
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
    cause: RefCell<Option<Refusal>>,
    waker: Cell<Option<Waker>>,
}

impl Cancelled {
    /// Gives it.
    pub(crate) fn cancel(&self, refusal: Refusal) {
        self.cause.replace(Some(refusal));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Why it was given, if it was.
    pub(crate) fn cause(&self) -> Option<Refusal> {
        self.cause.borrow().clone()
    }

    /// Is it given? If not, whoever asks is woken when it is.
    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<Refusal> {
        match self.cause() {
            Some(refusal) => Poll::Ready(refusal),
            None => {
                let known = self.waker.take().filter(|waker| waker.will_wake(context.waker()));
                self.waker.set(Some(known.unwrap_or_else(|| context.waker().clone())));
                Poll::Pending
            }
        }
    }

    /// Waits for the signal and returns its reason.
    ///
    /// **Cancel**: safe.
    pub(crate) async fn wait(&self) -> Refusal {
        poll_fn(|context| self.poll(context)).await
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
        let refusal = Refusal::new("policy_changed", "it was");
        assert_eq!(live.end(|&facts| (facts == 2).then(|| refusal.clone())), 1);
        assert_eq!(second.cancelled().wait().await, refusal);
        assert_eq!(first.cancelled().cause(), None);
        assert_eq!(live.end(|_| Some(refusal.clone())), 1, "nobody is told twice");
        first.change(3);
        assert_eq!(first.facts(), 3);
        drop(second);
        assert_eq!(live.len(), 1);
    }
}
