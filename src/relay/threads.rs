//! The threads that in-process services run on.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};

use tracing::error;

use super::RelayStream;
use crate::metrics::Counters;
use crate::sync::{Arc, ArrayQueue, AtomicUsize, Ordering};
use crate::wake::WakePipe;

/// What the embedder does with one connection of the guest.
#[derive(Clone)]
pub(crate) struct Service(Arc<dyn Fn(RelayStream) + Send + Sync>);

impl Service {
    pub(crate) fn new(handler: impl Fn(RelayStream) + Send + Sync + 'static) -> Self {
        Self(Arc::new(handler))
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Service")
    }
}

/// The threads that outlive the poll loop, for whoever joins them.
#[derive(Clone, Debug)]
pub(crate) struct Stragglers(Arc<ArrayQueue<Vec<JoinHandle<()>>>>);

impl Stragglers {
    pub(crate) fn new() -> Self {
        Self(Arc::new(ArrayQueue::new(1)))
    }

    /// Joins the threads of services, after the poll loop has left. A handler may be what waits for the
    /// network to stop; it does not wait for itself.
    pub(crate) fn join(&self) {
        for thread in self.0.pop().into_iter().flatten() {
            if thread.thread().id() != thread::current().id() {
                // Panics of handlers are caught; what is left is a panic of a panic's payload.
                let _ = thread.join();
            }
        }
    }
}

/// Leave to have one more relay; gone with the last of its thread and its stream.
#[derive(Debug)]
pub(crate) struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        let less = |n: usize| Some(n.saturating_sub(1));
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }
}

/// The services of one guest and the threads that run them. Belongs to the poll loop.
#[derive(Debug)]
pub(crate) struct RelayThreads {
    services: HashMap<SocketAddr, Service>,
    limit: usize,
    relays: Arc<AtomicUsize>,
    pub(super) threads: Vec<JoinHandle<()>>,
    pub(super) stragglers: Stragglers,
    counters: Arc<Counters>,
    /// What relays ring when they have news.
    pub(crate) poll_loop: WakePipe,
}

impl RelayThreads {
    pub(crate) fn new(
        services: HashMap<SocketAddr, Service>,
        limit: usize,
        stragglers: Stragglers,
        counters: Arc<Counters>,
        poll_loop: WakePipe,
    ) -> Self {
        let relays = Arc::new(AtomicUsize::new(0));
        Self { services, limit, relays, threads: Vec::new(), stragglers, counters, poll_loop }
    }

    /// The service at an address that the guest connects to.
    pub(crate) fn service_at(&self, address: SocketAddr) -> Option<&Service> {
        // Most gateways have none, and every flow asks.
        if self.services.is_empty() { None } else { self.services.get(&address) }
    }

    /// Leave for one more relay, within the limit.
    pub(crate) fn permit(&self) -> Option<Permit> {
        let more = |n: usize| (n < self.limit).then_some(n + 1);
        self.relays.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Permit(Arc::clone(&self.relays)))
    }

    /// Runs the service with this stream. Threads that have ended are let go of on the way.
    pub(super) fn spawn(&mut self, service: Service, stream: RelayStream) -> io::Result<()> {
        self.threads.retain(|thread| !thread.is_finished());
        let pipes = Arc::clone(&stream.pipes);
        let permit = Arc::clone(&stream.permit);
        let counters = Arc::clone(&self.counters);
        let thread = thread::Builder::new().name("framegate-relay".into()).spawn(move || {
            let address = stream.local_addr();
            if catch_unwind(AssertUnwindSafe(|| (service.0)(stream))).is_err() {
                // The stream may have been handed on before the panic.
                pipes.reset();
                counters.relay_panics.add(1);
                error!("the handler of the service at {address} panicked");
            }
            drop(permit);
        })?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for RelayThreads {
    fn drop(&mut self) {
        let _ = self.stragglers.0.push(std::mem::take(&mut self.threads));
    }
}
