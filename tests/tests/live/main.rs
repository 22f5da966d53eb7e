//! What daemons do when something is against them: pods that leave, peers that lie, roots that change, ends, floods.

mod claims;
mod endings;
mod hostile;
mod leaving;
mod refusals;
mod roots;
mod support;
