//! What is answered to a request that is judged again while it lasts.
//!
//! In:  the signal that it is no longer allowed; whoever answers it.
//! Out: the answer, cut short by the signal.
//! Cancel: whoever answers is dropped when the signal comes first.

use super::forward::Answered;
use crate::proxy::live::Cancelled;
use crate::proxy::refusal::Refusal;
use std::pin::Pin;
use std::rc::Rc;

/// What comes of answering, unless the request is no longer allowed before that.
pub(super) async fn unless_denied<T>(
    cancelled: &Cancelled,
    answering: Pin<&mut impl Future<Output = Result<T, Refusal>>>,
) -> Result<T, Refusal> {
    tokio::select! {
        biased;
        refusal = cancelled.wait() => Err(refusal),
        answered = answering => answered,
    }
}

/// The answer, whose body breaks off when the request is no longer allowed.
pub(super) fn cut_short(answered: Answered, cancelled: &Rc<Cancelled>) -> Answered {
    match answered {
        Answered::Response(response) => Answered::Response(response.map(|body| body.unless(cancelled))),
        upgrade @ Answered::Upgrade { .. } => upgrade,
    }
}
