use super::*;

const MIB: usize = 1 << 20;

fn windows(window: usize, memory: usize) -> Windows {
    Windows::new(&Limits { tcp_window: window, tcp_memory: memory, ..Limits::default() })
}

fn size(socket: &mut WindowedSocket) -> (usize, usize) {
    socket.socket(|socket| (socket.recv_capacity(), socket.send_capacity()))
}

fn share(windows: &mut Windows) -> (WindowedSocket, Share) {
    let mut socket = windows.take().unwrap();
    let share = Share::of(&mut socket);
    (socket, share)
}

/// What may be sent by a flow that sends without a pause, in steps.
fn steps(share: &mut Share, budget: &mut Budget) -> Vec<usize> {
    let mut waiting = 0;
    let mut steps = Vec::new();
    while steps.len() < 6 {
        let n = share.may_send(waiting, budget);
        steps.push(n);
        share.has_sent(n);
        waiting += n;
    }
    steps
}

#[test]
fn every_window_is_full_and_rounded_up_to_a_power_of_two() {
    for (wanted, window) in [(100_000, 2 * FREE), (FREE, FREE), (MIB, MIB), (3 * MIB, 4 * MIB)] {
        let mut windows = windows(wanted, 0);
        for _ in 0..3 {
            assert_eq!(size(&mut windows.take().unwrap()), (window - 1, window.min(SEND)));
        }
    }
}

#[test]
fn each_window_is_paid_for_up_to_its_own_size() {
    let mut windows = windows(4 * MIB, 8 * MIB);
    let (socket, mut share) = share(&mut windows);
    let budget = &mut windows.budget;
    for _ in 0..9 {
        let n = share.may_send(1, budget);
        share.has_sent(n);
        assert_eq!(share.may_receive(MIB, budget), MIB);
        share.has_taken(MIB);
    }
    assert_eq!(budget.0, 8 * MIB - (4 * MIB + MIB - 2 * FREE));
    windows.give(socket, &share);
    assert_eq!(windows.budget.0, 8 * MIB);
}

#[test]
fn a_share_grows_twofold_while_the_budget_lasts() {
    let mut windows = windows(MIB, MIB);
    let (first, mut one) = share(&mut windows);
    let sent = steps(&mut one, &mut windows.budget);
    assert_eq!(sent, [FREE, FREE, 2 * FREE, 4 * FREE, MIB, MIB]);
    assert_eq!(windows.budget.0, FREE);
    let (second, mut other) = share(&mut windows);
    // The last of it; then the ring must be empty first.
    assert_eq!(steps(&mut other, &mut windows.budget), [FREE, FREE, 0, 0, 0, 0]);
    assert_eq!(windows.budget.0, 0);
    assert_eq!(other.may_send(0, &mut windows.budget), 2 * FREE);
    windows.give(first, &one);
    windows.give(second, &other);
    assert_eq!(windows.budget.0, MIB);
}

#[test]
fn requests_that_are_answered_use_the_beginning_of_the_ring_alone() {
    let mut windows = windows(MIB, MIB);
    let (_socket, mut share) = share(&mut windows);
    for _ in 0..100 {
        assert_eq!(share.may_send(0, &mut windows.budget), FREE);
        share.has_sent(FREE);
    }
    assert_eq!(windows.budget.0, MIB);
}

#[test]
fn what_went_through_the_ring_of_the_receive_window_is_paid_for() {
    let mut windows = windows(MIB, 3 * FREE);
    let (mut socket, mut share) = share(&mut windows);
    let budget = &mut windows.budget;
    let mut receives = |share: &mut Share, n| {
        let may = share.may_receive(n, budget);
        share.has_taken(may);
        (may, budget.0 / FREE)
    };
    assert_eq!(receives(&mut share, FREE), (FREE, 3));
    assert_eq!(receives(&mut share, 1), (1, 2));
    assert_eq!(receives(&mut share, FREE), (FREE, 0));
    assert_eq!(receives(&mut share, FREE), (FREE, 0), "what it has it keeps");
    assert_eq!(receives(&mut share, 2 * FREE), (FREE - 1, 0));
    assert_eq!(receives(&mut share, 1), (0, 0));
    share.renew(&mut socket);
    assert_eq!(receives(&mut share, 5 * FREE), (4 * FREE, 0));
    windows.give(socket, &share);
    assert_eq!(windows.budget.0, 3 * FREE);
}

#[test]
fn a_full_share_is_for_ever() {
    let mut windows = windows(MIB, MIB);
    let (_socket, mut share) = share(&mut windows);
    for _ in 0..3 {
        assert_eq!(share.may_receive(usize::MAX, &mut windows.budget), usize::MAX);
        share.has_taken(usize::MAX);
        assert_eq!(windows.budget.0, FREE);
    }
}

#[test]
fn idle_windows_are_bounded() {
    let mut windows = windows(FREE, 1 << 30);
    let taken: Vec<_> = (0..KEPT + 10).map(|_| share(&mut windows)).collect();
    for (socket, share) in taken {
        windows.give(socket, &share);
    }
    assert_eq!(windows.idle.len(), KEPT);
    for _ in 0..KEPT {
        let mut socket = windows.take().unwrap();
        let state =
            socket.socket(|socket| (socket.state(), socket.recv_queue(), socket.send_queue()));
        assert_eq!(state, (smoltcp::socket::tcp::State::Closed, 0, 0), "a fresh socket");
        drop(socket);
    }
    assert!(windows.idle.is_empty());
}

#[test]
fn an_unscaled_window_fits_the_receive_buffer_if_it_is_taken_for_a_scaled_one() {
    for window in [FREE, 3 * FREE, MIB, MIB + 1, 3 * MIB, 4 * MIB] {
        let mut windows = windows(window, 1 << 30);
        let (receive, _) = size(&mut windows.take().unwrap());
        // RFC 7323 section 2.3: as far as it takes for 16 bits to name the whole buffer.
        let shift = (0..14).find(|shift| receive >> shift <= 0xffff).unwrap();
        assert!(0xffff << shift <= receive, "{receive} bytes, scaled by {shift}");
    }
}
