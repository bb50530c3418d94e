/*
 * The receive half of the VMM's stream, and who has it. The poll loop receives for itself, and lends the half
 * to the reader when a turn's budget runs out; the reader pushes what it receives, waits for room, and gives
 * the half back when the stream is empty. The VMM sends, and may close its end behind the last frame.
 */

#ifndef FRAMES
#define FRAMES 5
#endif
/* Frames that the queue holds, that the stream holds, that one receive takes at the most. */
#ifndef CAPACITY
#define CAPACITY 1
#endif
#ifndef STREAM
#define STREAM 3
#endif
#ifndef RECEIVE
#define RECEIVE 2
#endif
/* What one turn takes from the queue, and from the stream. */
#define QUEUE_BUDGET 1
#define STREAM_BUDGET 2

#define AT_SHUTDOWN due = (gateway.is_down -> due : len(queue))
#include "wake.inc"
#include "room.inc"

#define NO_FRAME 255
#define THREADS 2

/* The poll loop's bell, and the reader's. */
Bell gateway, reader;
chan queue = [CAPACITY] of { byte };
Room room;

chan stream = [STREAM] of { byte };
bool is_closed;
/* The stream lies in the epoll set, and an edge of it waits there. */
bool is_watched, has_edge;

/* The half: its buffer. It moves by the places; the frames in them are nothing but the half itself. */
chan buffer = [RECEIVE] of { byte };
chan to_reader = [1] of { bit };
chan from_reader = [1] of { bit };

#define NOBODY 0
#define POLL_LOOP 1
#define READER 2
/* Who may touch the half. */
byte holder = POLL_LOOP;

byte got;
/* Of what was pushed before the shutdown, the frames that are not taken yet. */
byte due;
byte out;
/* How the run ends: the VMM closes its end; or the owner begins the shutdown. */
bool closes;

inline begin_shutdown() {
    shut_down(gateway);
#ifndef SHUTDOWN_FORGETS_THE_READER
    shut_down(reader)
#else
    skip
#endif
}

/* Publishes the half: from here on it is nobody's until it is taken out. */
inline put(place, me) {
    atomic {
        assert(holder == me);
        holder = NOBODY;
        assert(nfull(place));
        place!1
    }
}

inline take_out(place, me) {
    if
    :: atomic {
        place?_ ->
        assert(holder == NOBODY);
        holder = me;
        has_half = true
       }
    :: empty(place)
    fi
}

inline lend_receiver() {
    is_watched = false;
#ifdef LEND_AND_KEEP
    to_reader!1;
#else
    put(to_reader, POLL_LOOP);
    has_half = false;
#endif
#ifndef LEND_WITHOUT_A_RING
    wake(reader, SPACE)
#endif
}

inline give_back_receiver() {
#ifdef RING_BEFORE_THE_HALF
    wake(gateway, FRAME);
    put(from_reader, READER)
#else
    put(from_reader, READER);
#ifndef GIVE_BACK_WITHOUT_A_RING
    wake(gateway, FRAME)
#endif
#endif
}

/* One receive, by whoever has the half, when its buffer is taken: `count` frames. */
inline receive(me) {
    d_step {
        assert(holder == me);
        assert(empty(buffer));
        count = 0;
        do
        :: count < RECEIVE && len(stream) > 0 -> stream?frame; buffer!frame; count++
        :: else -> break
        od;
        frame = NO_FRAME;
        is_ended = count == 0 && is_closed
    }
}

inline handle() {
    assert(frame == got);
    got++;
    frame = NO_FRAME
}

inline from_queue() {
    budget = (wakes -> len(queue) : QUEUE_BUDGET);
    do
    :: atomic {
        budget > 0 && nempty(queue) ->
        queue?frame;
        handle();
        due = (due > 0 -> due - 1 : 0);
        is_popped = true;
        budget--
       }
    :: budget == 0 || empty(queue) -> break
    od;
    is_drained = budget > 0;
    budget = 0;
    if
    :: atomic { is_popped -> is_popped = false }
       swap_wanted(room);
       if
       :: atomic { is_wanted -> is_wanted = false }
#ifndef NO_SPACE_WAKE
          wake(reader, SPACE)
#endif
       :: else
       fi
    :: else
    fi
}

/* What is left of the budget when it ran out decides nothing: lent out or not, both are explored. */
inline from_stream() {
    budget = STREAM_BUDGET;
    do
    :: atomic { budget > 0 && nempty(buffer) -> assert(holder == POLL_LOOP); buffer?frame; handle(); budget-- }
    :: budget > 0 && empty(buffer) && is_readable ->
        receive(POLL_LOOP);
        /* A short receive has emptied the stream: the next byte brings an edge. The end brings none, if
         * its edge came with these bytes. */
#ifdef HANG_UP_FORGOTTEN
        is_hung_up = false;
#endif
        atomic { is_readable = count == RECEIVE || (count > 0 && is_hung_up); count = 0 }
        if
        :: is_ended -> break
        :: else
        fi
    :: atomic { budget > 0 && empty(buffer) && !is_readable -> budget = 0 }
       break
    :: atomic { budget == 0 -> is_drained = false }
       break
    :: atomic { budget == 0 -> skip }
       lend_receiver();
       break
    od;
    budget = 0
}

/* What the wait returns: the token, and the stream's edge with what holds at that moment. */
inline dispatch() {
    clear(gateway);
    is_readable = is_readable || has_edge;
    is_hung_up = is_hung_up || (has_edge && is_closed);
    has_edge = false;
    may_sleep = false
}

inline reclaim() {
    take_out(from_reader, POLL_LOOP);
    if
    :: atomic {
        has_half && !is_watched ->
        is_readable = true;
        is_watched = true;
        /* epoll_ctl(2) makes the edge of what is there already. */
        has_edge = nempty(stream) || is_closed
       }
    :: else
    fi
}

proctype PollLoop() {
    byte before, wakes, budget, count;
    byte frame = NO_FRAME;
    bool may_sleep, is_wanted, is_popped, is_drained, is_ended, is_hung_up;
    bool has_half = true, is_readable = true;
    do
    :: true ->
        atomic { take(gateway, wakes); wakes = wakes & DOWN }
        reclaim();
        from_queue();
        if
#ifdef RECEIVE_BEFORE_THE_QUEUE_IS_EMPTY
        :: has_half && !wakes -> from_stream()
#else
        :: has_half && is_drained && !wakes -> from_stream()
#endif
        :: else
        fi;
        if
        :: wakes || is_ended -> break
        :: else
        fi;
        if
        :: is_drained && !(has_half && is_readable) -> arm(gateway)
        :: else
        fi;
        is_drained = false;
        if
        :: atomic { may_sleep && (gateway.token || has_edge) -> dispatch() }
        :: atomic { !may_sleep -> dispatch() }
        fi
    od;
    assert(!is_ended || got == FRAMES);
    assert(due == 0);
    begin_shutdown();
    out++
}

/* Pushes what was received, and rings once for it. `frame` is left if the queue was full. */
inline deliver() {
    do
    :: frame != NO_FRAME || len(buffer) > 0 ->
        if
        :: atomic { frame == NO_FRAME -> assert(holder == READER); buffer?frame }
        :: else
        fi;
#ifdef GIVE_BACK_BEFORE_THE_PUSH
        if
        :: len(buffer) == 0 && len(stream) == 0 ->
            give_back_receiver();
            has_half = false
        :: else
        fi;
#endif
        if
        :: atomic { nfull(queue) -> queue!frame; frame = NO_FRAME; is_unheard = true }
        :: full(queue) ->
            want(room);
            if
            :: atomic { nfull(queue) -> queue!frame; frame = NO_FRAME; is_unheard = true }
            :: full(queue) -> break
            fi
        fi;
#ifdef GIVE_BACK_BEFORE_THE_PUSH
        if
        :: !has_half -> break
        :: else
        fi
#endif
    :: else -> break
    od;
    if
    :: atomic { is_unheard -> is_unheard = false }
       wake(gateway, FRAME)
    :: else
    fi
}

/* Returns with `frame` if it wants room, without the half if it wants bytes. */
inline turn() {
    do
    :: true ->
        deliver();
        if
        :: frame != NO_FRAME || !has_half -> break
        :: else
        fi;
        if
        :: (gateway.state & DOWN) != 0 -> wakes = DOWN; break
        :: else
        fi;
        receive(READER);
        if
        :: is_ended -> assert(got + len(queue) == FRAMES); break
        :: !is_ended && count == 0 ->
            give_back_receiver();
            has_half = false;
            break
        :: else -> count = 0
        fi
    od
}

proctype Reader() {
    byte before, wakes, count;
    byte frame = NO_FRAME;
    bool may_sleep, is_unheard, is_ended, has_half;
    do
    :: true ->
        atomic { take(reader, wakes); wakes = wakes & DOWN }
        if
        :: wakes -> break
        :: else
        fi;
        if
        :: !has_half -> take_out(to_reader, READER)
        :: else
        fi;
        if
        :: has_half -> turn()
        :: else
        fi;
        if
        :: wakes || is_ended -> break
        :: else
        fi;
        arm(reader);
        if
        :: atomic { may_sleep -> may_sleep = false }
           wait(reader)
        :: else
        fi
    od;
    frame = NO_FRAME;
    begin_shutdown();
    out++
}

proctype Vmm() {
    byte sent;
    do
    :: atomic { sent < FRAMES && nfull(stream) -> stream!sent; sent++; has_edge = has_edge || is_watched }
    :: atomic { sent == FRAMES && closes -> sent = 0; is_closed = true; has_edge = has_edge || is_watched }
       break
    :: out == THREADS -> break
    od
}

proctype Owner() {
    byte before;
    if
    :: true -> got == FRAMES && rests(gateway) && !has_edge && rests(reader) && holder == POLL_LOOP;
        begin_shutdown()
    :: closes = true
#ifndef LATE_ONLY
    :: true -> begin_shutdown()
#endif
    fi
}

init {
    atomic {
        is_watched = true;
        run PollLoop();
        run Reader();
        run Vmm();
        run Owner()
    }
}

ltl delivered { <> (got == FRAMES || gateway.is_down) }
ltl no_half_lies { [] ((len(to_reader) > 0 || len(from_reader) > 0) -> <> (holder != NOBODY || gateway.is_down)) }
ltl wakes_up { [] ((gateway.asleep && len(queue) > 0) -> <> !gateway.asleep) }
ltl ends { <> (out == THREADS) }
