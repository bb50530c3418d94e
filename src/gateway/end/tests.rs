use std::collections::HashMap;
use std::io::Read;
use std::sync::mpsc;

use super::*;
use crate::relay::{RelayThreads, Service, Stragglers};
use crate::sync::Arc;
use crate::wake::WakePipe;

/// A flow's end at a service, and the service's stream.
fn relay() -> (End, impl Read) {
    let poll_loop = WakePipe::try_new().unwrap();
    let (tell, told) = mpsc::channel();
    let service = Service::new(move |stream| tell.send(stream).unwrap());
    let (stragglers, counters) = (Stragglers::new(), Arc::default());
    let mut threads = RelayThreads::new(HashMap::new(), 1, stragglers, counters, poll_loop.clone());
    let permit = threads.permit().unwrap();
    let addresses = (([100, 96, 0, 2], 40_000).into(), ([169, 254, 169, 254], 80).into());
    let mut relay = RelayEnd::new(service, addresses, permit, &poll_loop).unwrap();
    relay.start(&mut threads).unwrap();
    (End::Relay(Box::new(relay)), told.recv().unwrap())
}

#[test]
fn nothing_is_sent_behind_what_was_sent_in_part() {
    let (mut end, _stream) = relay();
    let at_once = end.send(&[0; 1 << 20]).unwrap();
    assert!(at_once < 1 << 20);

    // The second is a little more than a relay takes at once, and less than the first two together.
    let (mut end, mut stream) = relay();
    let parts = [vec![1; 5000], vec![2; at_once + 10], vec![3; 5]];
    let slices = parts.each_ref().map(|part| IoSlice::new(part));
    let n = end.send_vectored(&slices).unwrap();
    assert_eq!(n, 5000 + at_once);
    end.finish();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert!(got == parts.concat()[..n], "the beginning of the stream");
}
