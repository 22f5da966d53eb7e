//! A daemon that answers the CNI plugin as a test says.
//!
//! In:  a socket's path, a script.
//! Out: the plugin's requests, in their order.
//! Invariant: it answers at the socket when `start` returns, and does no more once it is dropped.

use anyhow::{Context, Result, anyhow};
use mesh_common::cni::{Request, Response};
use mesh_node::source::cni::{Pending, Respond, bind, serve};
use mesh_tests::wait::PATIENCE;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use tokio::sync::oneshot;

/// The daemon; its socket's server runs on a thread of its own.
#[derive(Debug)]
pub(crate) struct Scripted {
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Scripted {
    /// Answers at `socket` what `script` says.
    ///
    /// **Errors**: it cannot listen there.
    pub(crate) fn start(socket: &Path, script: impl Fn(Request) -> Pending + Send + Sync + 'static) -> Result<Self> {
        let requests = Arc::<Mutex<Vec<Request>>>::default();
        let seen = Arc::clone(&requests);
        let respond: Respond = Arc::new(move |request| {
            lock(&seen).push(request.clone());
            script(request)
        });
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let socket = socket.to_owned();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let listener = bind(&socket)?;
                ready.send(())?;
                tokio::select! {
                    () = serve(listener, respond) => {}
                    _ = stopped => {}
                }
                Ok(())
            })
        });
        let own = Self { requests, stop: Some(stop), thread: Some(thread) };
        match is_ready.recv_timeout(PATIENCE) {
            Ok(()) => Ok(own),
            Err(_) => own.end().and(Err(anyhow!("it did not listen in time"))),
        }
        .context("cannot listen for the plugin")
    }

    /// Answers each request at once with `response`.
    ///
    /// **Errors**: it cannot listen there.
    pub(crate) fn answering(socket: &Path, response: Response) -> Result<Self> {
        Self::start(socket, move |_| {
            let response = response.clone();
            Box::pin(async move { response })
        })
    }

    /// The requests so far; they start anew.
    pub(crate) fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut lock(&self.requests))
    }

    /// How many pods it was asked to add.
    pub(crate) fn added(&self) -> usize {
        lock(&self.requests).iter().filter(|request| matches!(request, Request::Add(_))).count()
    }

    /// Ends it; says why it ended before, if it did.
    fn end(mut self) -> Result<()> {
        drop(self.stop.take());
        self.thread
            .take()
            .map_or(Ok(()), |thread| thread.join().unwrap_or_else(|_| Err(anyhow!("its thread panicked"))))
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // What it failed at was said when it started.
            drop(thread.join());
        }
    }
}

fn lock(requests: &Mutex<Vec<Request>>) -> MutexGuard<'_, Vec<Request>> {
    requests.lock().unwrap_or_else(PoisonError::into_inner)
}
