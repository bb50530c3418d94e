use super::*;

const MIB: usize = 1 << 20;

fn windows(window: usize, memory: usize) -> Windows {
    Windows::new(&Limits { tcp_window: window, tcp_memory: memory, ..Limits::default() })
}

fn size(socket: &mut WindowedSocket) -> (usize, usize) {
    socket.socket(|socket| (socket.recv_capacity(), socket.send_capacity()))
}

#[test]
fn windows_are_full_until_the_memory_is_used_and_small_after() {
    let mut windows = windows(MIB, 6 * MIB);
    let mut sockets: Vec<_> = (0..6).map(|_| windows.take().unwrap()).collect();
    let sizes: Vec<_> = sockets.iter_mut().map(size).collect();
    let (full, small) = ((MIB - 1, MIB), (SMALLEST - 1, SMALLEST));
    assert_eq!(sizes, [full, full, full, small, small, small]);
    // What is given back can be had again; the small ones count too.
    windows.give(sockets.remove(0), 0, 0);
    assert_eq!(size(&mut windows.take().unwrap()), small);
    for socket in sockets {
        windows.give(socket, 0, 0);
    }
    assert_eq!(size(&mut windows.take().unwrap()), full);
}

#[test]
fn a_socket_given_back_gives_back_all_it_reserved() {
    let mut windows = windows(MIB, 3 * MIB);
    for _ in 0..100 {
        let sockets: Vec<_> = (0..5).map(|_| windows.take().unwrap()).collect();
        assert_eq!(windows.reserved, 2 * MIB + 8 * SMALLEST);
        for socket in sockets {
            windows.give(socket, 10, 10);
        }
        assert_eq!(windows.reserved, 0);
    }
}

#[test]
fn without_memory_every_window_is_the_smallest() {
    let mut windows = windows(MIB, 0);
    assert_eq!(size(&mut windows.take().unwrap()), (SMALLEST - 1, SMALLEST));
}

#[test]
fn a_window_is_rounded_up_to_a_power_of_two() {
    let mut windows = windows(100_000, MIB);
    assert_eq!(size(&mut windows.take().unwrap()), (2 * SMALLEST - 1, 2 * SMALLEST));
}

#[test]
fn idle_windows_are_bounded() {
    let mut windows = windows(SMALLEST, 1 << 30);
    let sockets: Vec<_> = (0..KEPT + 10).map(|_| windows.take().unwrap()).collect();
    for socket in sockets {
        windows.give(socket, 1, 1);
    }
    assert_eq!(windows.idle.len(), KEPT);
    for _ in 0..KEPT {
        let mut socket = windows.take().unwrap();
        assert_eq!(size(&mut socket), (SMALLEST - 1, SMALLEST));
        let state =
            socket.socket(|socket| (socket.state(), socket.recv_queue(), socket.send_queue()));
        assert_eq!(state, (smoltcp::socket::tcp::State::Closed, 0, 0), "a fresh socket");
        drop(socket);
    }
    assert!(windows.idle.is_empty());
}

#[test]
fn an_unscaled_window_fits_the_receive_buffer_if_it_is_taken_for_a_scaled_one() {
    for window in [SMALLEST, 3 * SMALLEST, MIB, MIB + 1, 3 * MIB, 4 * MIB] {
        let mut windows = windows(window, 1 << 30);
        let (receive, _) = size(&mut windows.take().unwrap());
        // RFC 7323 section 2.3: as far as it takes for 16 bits to name the whole buffer.
        let shift = (0..14).find(|shift| receive >> shift <= 0xffff).unwrap();
        assert!(0xffff << shift <= receive, "{receive} bytes, scaled by {shift}");
    }
}
