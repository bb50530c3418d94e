use std::thread;

use super::*;

fn query(n: usize) -> Attempt {
    Attempt::Resolve { name: format!("{n}.example").into() }
}

#[test]
fn events_come_in_order_and_the_lost_are_counted() {
    let hub = EventHub::new();
    let source = EventSource::new(&hub);
    assert!(!source.is_read());
    let mut reader = hub.reader().unwrap().unwrap();
    assert!(hub.reader().unwrap().is_none(), "one reader at a time");
    assert!(source.is_read());
    assert_eq!(reader.try_next(), None);
    for n in 0..EVENTS + 5 {
        assert_eq!(source.push(Action::Deny, query(n), Because::Default), n < EVENTS);
    }
    let first = reader.try_next().unwrap();
    assert_eq!((first.attempt, first.lost), (query(0), 0));
    assert!(source.push(Action::Allow, query(9999), Because::Rule(3)));
    for n in 1..EVENTS {
        assert_eq!(reader.try_next().unwrap().attempt, query(n));
    }
    let last = reader.try_next().unwrap();
    assert_eq!((last.attempt.clone(), last.lost), (query(9999), 5));
    assert_eq!(last.to_string(), "allow dns:9999.example by rule 3");
    assert_eq!(reader.try_next(), None);
    drop(reader);
    assert!(!source.is_read());
    assert!(hub.reader().unwrap().is_some());
}

#[test]
fn a_reader_that_waits_gets_every_event_and_the_end() {
    let hub = EventHub::new();
    let source = EventSource::new(&hub);
    let mut reader = hub.reader().unwrap().unwrap();
    let reading = thread::spawn(move || {
        let mut seen = 0;
        let mut lost = 0;
        while let Some(event) = reader.wait_next() {
            seen += 1;
            lost += event.lost;
        }
        assert!(reader.is_ended());
        (seen, lost)
    });
    let pushed = 20_000;
    for n in 0..pushed {
        while !source.push(Action::Deny, query(n), Because::Default) {
            thread::yield_now();
        }
        if n % 64 == 0 {
            thread::yield_now();
        }
    }
    drop(source);
    let (seen, _lost) = reading.join().unwrap();
    assert_eq!(seen, pushed);
}

#[test]
fn the_descriptor_is_readable_when_an_event_came() {
    let hub = EventHub::new();
    let source = EventSource::new(&hub);
    let mut reader = hub.reader().unwrap().unwrap();
    let is_readable = |reader: &PolicyEvents| {
        use std::os::fd::AsRawFd;
        let mut poll = mio::Poll::new().unwrap();
        let fd = reader.as_fd().as_raw_fd();
        let mut fd = mio::unix::SourceFd(&fd);
        poll.registry().register(&mut fd, mio::Token(0), mio::Interest::READABLE).unwrap();
        let mut events = mio::Events::with_capacity(1);
        poll.poll(&mut events, Some(std::time::Duration::ZERO)).unwrap();
        !events.is_empty()
    };
    for n in 0..3 {
        assert_eq!(reader.try_next(), None);
        assert!(!is_readable(&reader));
        source.push(Action::Deny, query(n), Because::Default);
        assert!(is_readable(&reader));
        assert!(reader.try_next().is_some());
    }
    assert_eq!(reader.try_next(), None);
    drop(source);
    assert!(is_readable(&reader), "the end wakes too");
    assert_eq!(reader.try_next(), None);
}

#[test]
fn a_reader_of_a_gateway_that_has_ended_does_not_wait() {
    let hub = EventHub::new();
    drop(EventSource::new(&hub));
    let mut reader = hub.reader().unwrap().unwrap();
    assert_eq!(reader.wait_next(), None);
}
