//! The threads of one NIC: started, stopped and joined together.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};

use tracing::{debug, error};

use crate::bridge::{self, HandOver, Reader, Receiver, Sender, Writer};
use crate::capture::Scribe;
use crate::config::{Builder, Config};
use crate::control::Control;
use crate::error::{StartError, StopReason};
use crate::gateway::{Gateway, Halves};
use crate::handle::RuntimeHandle;
use crate::metrics::{Counters, Stats, StatsReader};
use crate::publish::{Publish, PublishError};
use crate::queues::NetworkFrameQueues;
use crate::relay::Stragglers;
use crate::sync::{Arc, EventFd, SetOnce};

/// A running gateway. Dropping it is [`shutdown`](Self::shutdown).
///
/// The stream stays open until this value is gone, also after the threads have stopped: libkrun's worker
/// spins on a peer that hangs up while the VM runs.
pub struct Runtime {
    queues: Arc<NetworkFrameQueues>,
    counters: Arc<Counters>,
    end: Arc<End>,
    control: Arc<Control>,
    threads: Vec<JoinHandle<()>>,
    /// Threads of services, once the poll loop has left.
    stragglers: Stragglers,
    _stream: Option<Arc<UnixStream>>,
}

/// That the network has stopped, and why.
#[derive(Debug)]
struct End {
    /// Why the first thread left; the others left because of it.
    reason: SetOnce<StopReason>,
    /// Readable from then on: nobody takes its token.
    event: EventFd,
}

impl End {
    fn new() -> io::Result<Self> {
        Ok(Self { reason: SetOnce::new(), event: EventFd::new()? })
    }

    /// A thread has left. Who finds the descriptor readable finds a reason.
    fn came(&self, reason: StopReason) {
        self.reason.set(reason);
        self.event.signal();
    }
}

impl Runtime {
    /// Describes a gateway, with defaults that work.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn start_on_stream(config: Config, stream: UnixStream) -> Result<Self, StartError> {
        bridge::prepare(&stream, config.offload)
            .map_err(|error| StartError::Host("the VMM's stream", error))?;
        let queues =
            NetworkFrameQueues::with_bounds(config.limits.queue_frames, config.limits.queue_bytes)
                .map_err(|error| StartError::Host("eventfd", error))?;
        let stream = Arc::new(stream);
        let mut runtime = Self::new(Arc::clone(&queues), Some(Arc::clone(&stream)))?;
        let counters = &runtime.counters;
        let hand_over = HandOver::new(Arc::clone(&queues));
        let halves = Halves::new(
            Receiver::new(Arc::clone(&stream), config.offload, Arc::clone(counters)),
            Sender::new(
                stream,
                Arc::clone(&queues),
                config.max_frame_to_guest(),
                Arc::clone(counters),
            ),
            Arc::clone(&hand_over),
        );
        let reader = Reader::new(queues, &config, Arc::clone(counters), Arc::clone(&hand_over));
        let writer = Writer::new(hand_over);
        runtime.spawn_gateway(&config, Some(halves))?;
        runtime.spawn("framegate-rx", move || reader.run())?;
        runtime.spawn("framegate-tx", move || writer.run())?;
        Ok(runtime)
    }

    pub(crate) fn start_on_queues(
        config: Config,
        queues: Arc<NetworkFrameQueues>,
    ) -> Result<Self, StartError> {
        let mut runtime = Self::new(queues, None)?;
        runtime.spawn_gateway(&config, None)?;
        Ok(runtime)
    }

    fn new(
        queues: Arc<NetworkFrameQueues>,
        stream: Option<Arc<UnixStream>>,
    ) -> Result<Self, StartError> {
        let end = End::new().map_err(|error| StartError::Host("eventfd", error))?;
        Ok(Self {
            control: Control::new(queues.relay_wake.clone()),
            queues,
            counters: Arc::default(),
            end: Arc::new(end),
            threads: Vec::new(),
            stragglers: Stragglers::new(),
            _stream: stream,
        })
    }

    fn spawn_gateway(&mut self, config: &Config, halves: Option<Halves>) -> Result<(), StartError> {
        let queues = Arc::clone(&self.queues);
        let counters = Arc::clone(&self.counters);
        let control = Arc::clone(&self.control);
        let stragglers = self.stragglers.clone();
        // Before the capture, which makes its file anew.
        let bound: Result<Vec<_>, _> = config.published.iter().map(Publish::bind).collect();
        let bound = bound?;
        let (tap, scribe) = match &config.capture {
            Some(capture) => capture
                .start(Arc::clone(&counters))
                .map(|(tap, scribe)| (Some(tap), Some(scribe)))
                .map_err(|error| StartError::Host("the capture", error))?,
            None => (None, None),
        };
        let mut gateway = Gateway::new(config, queues, counters, halves, control, stragglers, tap)
            .map_err(|error| StartError::Host("epoll or rtnetlink", error))?;
        for ports in bound {
            gateway.publish(ports).map_err(PublishError::Watch)?;
        }
        self.spawn("framegate-poll", move || gateway.run())?;
        match scribe {
            Some(scribe) => self.spawn_scribe(scribe),
            None => Ok(()),
        }
    }

    /// Starts one thread. However it leaves, by return or by panic, the others are told. On failure
    /// the caller drops `self`, which stops the threads that run already.
    fn spawn(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> StopReason + Send + 'static,
    ) -> Result<(), StartError> {
        let queues = Arc::clone(&self.queues);
        let end = Arc::clone(&self.end);
        let thread = thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                queues.work_until_shutdown(work, |left| {
                    let reason = left
                        .unwrap_or_else(|panic| StopReason::WorkerPanicked(name, message(&*panic)));
                    match &reason {
                        StopReason::HostFault(..) | StopReason::WorkerPanicked(..) => {
                            error!("{name}: {reason}");
                        }
                        reason => debug!("{name}: {reason}"),
                    }
                    end.came(reason);
                });
            })
            .map_err(|error: io::Error| StartError::Host("a thread", error))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Starts the thread of the capture. The poll loop's end of it tells it when to leave; how it leaves
    /// is no reason for the network to stop.
    fn spawn_scribe(&mut self, scribe: Scribe) -> Result<(), StartError> {
        let thread = thread::Builder::new()
            .name("framegate-pcap".into())
            .spawn(move || {
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| scribe.run())) {
                    error!("framegate-pcap panicked: {}", message(&*panic));
                }
            })
            .map_err(|error: io::Error| StartError::Host("a thread", error))?;
        self.threads.push(thread);
        Ok(())
    }

    /// The queues, for an embedder that moves frames itself or wants to begin the shutdown elsewhere.
    pub fn queues(&self) -> &Arc<NetworkFrameQueues> {
        &self.queues
    }

    /// The counters at this moment.
    pub fn stats(&self) -> Stats {
        self.counters.snapshot()
    }

    /// Reads the counters from other threads, also while one is in [`wait`](Self::wait).
    pub fn stats_reader(&self) -> StatsReader {
        StatsReader(Arc::clone(&self.counters))
    }

    /// Asks and changes the running network from other threads.
    pub fn handle(&self) -> RuntimeHandle {
        RuntimeHandle { control: Arc::clone(&self.control), counters: Arc::clone(&self.counters) }
    }

    /// Why the network has stopped, or `None` while it runs.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.end.reason.get().cloned()
    }

    /// A descriptor that becomes readable when the network has stopped, for whatever reason, and stays
    /// so: for an event loop that waits for other things too, in place of a thread in
    /// [`wait`](Self::wait). From then on there is a [`stop_reason`](Self::stop_reason), and `wait` and
    /// [`shutdown`](Self::shutdown) take a few milliseconds. Nothing is to be read from it.
    ///
    /// ```
    /// use mio::{Events, Interest, Poll, Token, unix::SourceFd};
    /// use std::os::fd::AsRawFd;
    /// use std::os::unix::net::UnixStream;
    ///
    /// let (ours, for_the_vmm) = UnixStream::pair()?;
    /// let mut runtime = framegate::Runtime::builder().start(ours)?;
    /// let mut poll = Poll::new()?;
    /// let stopped = runtime.stopped().as_raw_fd();
    /// poll.registry().register(&mut SourceFd(&stopped), Token(0), Interest::READABLE)?;
    ///
    /// drop(for_the_vmm); // the VM ends
    ///
    /// let mut events = Events::with_capacity(8);
    /// poll.poll(&mut events, None)?;
    /// assert!(runtime.stop_reason().is_some());
    /// println!("the network stopped: {}", runtime.wait());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stopped(&self) -> BorrowedFd<'_> {
        self.end.event.as_fd()
    }

    /// Blocks until every thread has left: because the VMM closed the link, or another thread began the
    /// shutdown, or something failed.
    pub fn wait(&mut self) -> StopReason {
        for thread in self.threads.drain(..) {
            // A panic was caught inside; a join error is then impossible, and worth no second one.
            let _ = thread.join();
        }
        self.stragglers.join();
        self.end.reason.get().cloned().unwrap_or(StopReason::Requested)
    }

    /// Stops the network and joins every thread. Takes a few milliseconds, whatever the guest does:
    /// every wait of every thread ends with the bell. Host connections that were not complete are reset.
    /// Only the handler of a [service](Builder::service) can take longer, if it blocks elsewhere than in
    /// its stream.
    pub fn shutdown(mut self) -> StopReason {
        self.stop()
    }

    fn stop(&mut self) -> StopReason {
        if !self.threads.is_empty() {
            self.queues.begin_shutdown();
        }
        self.wait()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("stop_reason", &self.stop_reason())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "no message".to_owned(),
    }
}

#[cfg(test)]
mod tests;
