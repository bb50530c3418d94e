//! The guest's end of the link, in both forms that an embedder can choose.

use std::io::{self, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use framegate::{Arc, Builder, NetworkFrameQueues, Runtime};

/// Frames that wait between the link and the test. A test that takes none stops the guest's reading.
const INBOX: usize = 16;

/// A link's end: frames out, frames in.
pub(crate) struct Wire {
    out: Out,
    frames: Option<Receiver<Vec<u8>>>,
    receiver: Option<JoinHandle<()>>,
}

enum Out {
    Stream(UnixStream),
    Queues(Arc<NetworkFrameQueues>),
}

/// Starts a gateway and takes the guest's end of its stream.
pub(crate) fn start(builder: Builder) -> (Runtime, Wire) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let runtime = builder.start(theirs).unwrap();
    (runtime, Wire::stream(ours))
}

/// Starts a gateway without the bridge and plays the VMM's device thread.
pub(crate) fn start_with_queues(builder: Builder) -> (Runtime, Wire) {
    let queues = NetworkFrameQueues::try_shared(256).unwrap();
    let runtime = builder.start_with_queues(Arc::clone(&queues)).unwrap();
    (runtime, Wire::queues(queues))
}

impl Wire {
    pub(crate) fn stream(stream: UnixStream) -> Self {
        let (to_test, frames) = sync_channel(INBOX);
        let read = stream.try_clone().unwrap();
        let receiver = thread::spawn(move || {
            let _ = receive_from_stream(read, &to_test);
        });
        Self { out: Out::Stream(stream), frames: Some(frames), receiver: Some(receiver) }
    }

    pub(crate) fn queues(queues: Arc<NetworkFrameQueues>) -> Self {
        let (to_test, frames) = sync_channel(INBOX);
        let source = Arc::clone(&queues);
        let receiver = thread::spawn(move || receive_from_queues(&source, &to_test));
        Self { out: Out::Queues(queues), frames: Some(frames), receiver: Some(receiver) }
    }

    /// Sends one frame; waits while the gateway has no room. A link that is gone takes it silently.
    pub(crate) fn send(&self, frame: &[u8]) {
        self.send_all(&[frame]);
    }

    /// Sends frames at once: in one write, or in one batch.
    pub(crate) fn send_all(&self, frames: &[&[u8]]) {
        match &self.out {
            Out::Stream(stream) => {
                let mut bytes = Vec::new();
                for frame in frames {
                    bytes.extend_from_slice(&u32::try_from(frame.len()).unwrap().to_be_bytes());
                    bytes.extend_from_slice(frame);
                }
                let mut stream = stream;
                let _ = stream.write_all(&bytes);
            }
            Out::Queues(queues) => push_all(queues, frames),
        }
    }

    /// Sends bytes as they are, whatever the framing.
    pub(crate) fn send_bytes(&self, bytes: &[u8]) {
        let Out::Stream(stream) = &self.out else { panic!("queues have no bytes") };
        let mut stream = stream;
        let _ = stream.write_all(bytes);
    }

    /// The next frame, if one comes in time. `None` also when the link is gone.
    pub(crate) fn receive(&self, limit: Duration) -> Option<Vec<u8>> {
        self.frames.as_ref().unwrap().recv_timeout(limit).ok()
    }

    /// Waits until the poll loop has no turn any more, which must come: a gateway with nothing to do
    /// sleeps. No frame may come meanwhile.
    #[track_caller]
    pub(crate) fn until_asleep(&self, runtime: &Runtime) {
        for _ in 0..100 {
            let turns = runtime.stats().turns;
            assert_eq!(self.receive(Duration::from_millis(100)), None);
            if runtime.stats().turns == turns {
                return;
            }
        }
        panic!("the poll loop runs for nothing");
    }

    /// Whether the gateway has hung up. Takes frames until it knows.
    pub(crate) fn is_hung_up(&self, limit: Duration) -> bool {
        let frames = self.frames.as_ref().unwrap();
        loop {
            match frames.recv_timeout(limit) {
                Ok(_) => {}
                Err(error) => return error == RecvTimeoutError::Disconnected,
            }
        }
    }
}

impl Drop for Wire {
    /// Hangs up, and joins the receiving thread.
    fn drop(&mut self) {
        match &self.out {
            Out::Stream(stream) => {
                let _ = stream.shutdown(Shutdown::Both);
            }
            Out::Queues(queues) => queues.begin_shutdown(),
        }
        drop(self.frames.take());
        if let Some(receiver) = self.receiver.take() {
            let _ = receiver.join();
        }
    }
}

fn receive_from_stream(stream: UnixStream, to_test: &SyncSender<Vec<u8>>) -> io::Result<()> {
    let mut stream = BufReader::with_capacity(256 * 1024, stream);
    loop {
        let mut header = [0; 4];
        stream.read_exact(&mut header)?;
        let mut frame = vec![0; u32::from_be_bytes(header) as usize];
        stream.read_exact(&mut frame)?;
        to_test.send(frame).map_err(|_| io::ErrorKind::BrokenPipe)?;
    }
}

fn receive_from_queues(queues: &NetworkFrameQueues, to_test: &SyncSender<Vec<u8>>) {
    loop {
        let wakes = queues.host_wake.take();
        loop {
            // The room is given back frame by frame: the test may keep the next one waiting.
            let frame = queues.drain_to_guest().pop();
            let Some(frame) = frame else { break };
            if to_test.send(frame.clone()).is_err() {
                return;
            }
            queues.recycle(frame);
        }
        if wakes.is_down() {
            return;
        }
        if queues.host_wake.arm() {
            queues.host_wake.wait();
        }
    }
}

fn push_all(queues: &NetworkFrameQueues, frames: &[&[u8]]) {
    let mut batch = queues.push_from_guest();
    for bytes in frames {
        let mut frame = queues.buffer(bytes.len());
        frame.extend_from_slice(bytes);
        loop {
            queues.guest_space().take();
            let Err(refused) = batch.push(frame) else { break };
            frame = refused;
            batch.flush();
            if queues.is_shutting_down() {
                return;
            }
            if queues.guest_space().arm() {
                queues.guest_space().wait();
            }
        }
    }
}
