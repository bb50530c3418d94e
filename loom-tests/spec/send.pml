/*
 * The send half of the VMM's stream, and who has it. The poll loop pushes frames and sends them itself, and
 * lends the half to the writer when the stream is full; the writer sends and waits for room in the stream, and
 * gives the half back when the queue is empty. On the stream a frame is two pieces, so that it may fill up in
 * the middle of one; the VMM reads them, and may stop to or go away.
 */

#ifndef FRAMES
#define FRAMES 4
#endif
/* Frames that the queue holds, that one load takes at the most; pieces that the stream holds. */
#ifndef CAPACITY
#define CAPACITY 1
#endif
#ifndef LOAD
#define LOAD 2
#endif
#ifndef STREAM
#define STREAM 2
#endif

/* Of what lies in the queue or in the half when the shutdown begins, the pieces. Liveness does without. */
#ifndef NO_DUE
#define AT_SHUTDOWN due = (gateway.is_down -> due : 2 * len(queue) + len(load))
#endif
#include "wake.inc"
#include "room.inc"

#define PIECES (2 * FRAMES)
#define THREADS 2

/* The poll loop's bell, and the writer's. */
Bell gateway, writer;
chan queue = [CAPACITY] of { byte };
Room room;

/* The half: what it has taken from the queue and not sent. */
chan load = [2 * LOAD] of { byte };
chan to_writer = [1] of { bit };
chan from_writer = [1] of { bit };

#define NOBODY 0
#define POLL_LOOP 1
#define WRITER 2
/* Who may touch the half. */
byte holder = POLL_LOOP;

chan stream = [STREAM] of { byte };
/* The VMM has closed its end. */
bool is_gone;
/* Pieces that the VMM has read. */
byte read;

/* Frames that a relay thread has published for the poll loop to send. */
byte published;
byte due;
/* After the shutdown began the stream was full: for a send, or when the last thread left. */
bool is_given_up;
byte out;
/* The owner begins the shutdown whenever it likes, and the VMM may do anything. */
bool is_early;

/* Both leave because the shutdown has begun; that each begins it once more changes nothing. */
inline leave() {
    atomic {
        out++;
        is_given_up = is_given_up || (due > 0 && len(stream) == STREAM);
        assert(out < THREADS || due == 0 || is_given_up)
    }
}

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

inline lend_sender() {
    put(to_writer, POLL_LOOP);
    has_half = false;
#ifndef LEND_WITHOUT_A_RING
    wake(writer, FRAME)
#endif
}

inline give_back_sender() {
#ifdef RING_BEFORE_THE_HALF
    wake(gateway, FRAME);
    put(from_writer, WRITER);
#else
    put(from_writer, WRITER);
#ifndef GIVE_BACK_WITHOUT_A_RING
    wake(gateway, FRAME);
#endif
#endif
    has_half = false
}

/* Takes frames from the queue, up to a load, and rings for the room. */
inline next_load() {
    do
    :: atomic {
        len(load) < 2 * LOAD && nempty(queue) ->
        assert(holder == me);
        queue?frame;
        load!2 * frame;
        load!2 * frame + 1;
        frame = 0
       }
    :: atomic { len(load) == 2 * LOAD || empty(queue) -> swap_wanted(room) }
       break
    od;
    if
    :: atomic { is_wanted -> is_wanted = false }
#ifndef NO_SPACE_WAKE
       wake(gateway, SPACE)
#endif
    :: else
    fi
}

/* Sends until there is nothing left, or the stream is full. */
inline send() {
    do
    :: len(load) == 0 && len(queue) > 0 -> next_load()
    :: len(load) == 0 && len(queue) == 0 -> break
    :: d_step {
        len(load) > 0 && (len(stream) < STREAM || is_gone) ->
        assert(holder == me);
        do
        :: len(load) > 0 && (len(stream) < STREAM || is_gone) ->
            load?frame;
            if
            :: is_gone
            :: else -> stream!frame
            fi;
            due = (due > 0 -> due - 1 : 0)
        :: else -> break
        od;
        frame = 0
       }
    :: atomic {
        len(load) > 0 && len(stream) == STREAM && !is_gone ->
        is_given_up = gateway.is_down && due > 0;
        is_blocked = true
       }
       break
    od
}

/* Flows that a full queue has refused wait for the note of room. */
inline serve() {
    do
    :: atomic {
        pushed < published && !is_refused && len(queue) < CAPACITY ->
        queue!pushed;
        pushed++;
        is_unheard = true
       }
    :: atomic { pushed < published && !is_refused && len(queue) == CAPACITY -> want(room) }
       is_refused = full(queue)
    :: else -> break
    od
}

proctype PollLoop() {
    byte me = POLL_LOOP;
    byte before, wakes, frame, pushed;
    bool may_sleep, is_wanted, is_unheard, is_refused, is_blocked;
    bool has_half = true;
    do
    :: true ->
        atomic { take(gateway, wakes); is_refused = is_refused && !(wakes & SPACE); wakes = wakes & DOWN }
        take_out(from_writer, POLL_LOOP);
#ifndef NO_BORROW_AT_THE_END
        /* The writer may have left before the half came to it. */
        if
        :: wakes && !has_half -> take_out(to_writer, POLL_LOOP)
        :: else
        fi;
#endif
#ifdef SEND_BEFORE_THE_PUSH
        if
        :: has_half -> send()
        :: else
        fi;
#endif
        serve();
#ifdef SEND_ONLY_AFTER_A_PUSH
        if
        :: has_half && is_unheard ->
#else
        if
        :: has_half ->
#endif
            is_unheard = false;
#ifndef SEND_BEFORE_THE_PUSH
            send();
#endif
            if
            :: is_blocked -> is_blocked = false; lend_sender()
            :: else
            fi
        :: else ->
            if
            :: atomic { is_unheard -> is_unheard = false }
#ifndef NO_RING_FOR_FRAMES
               wake(writer, FRAME)
#endif
            :: else
            fi
        fi;
        if
        :: wakes -> break
        :: else
        fi;
        arm(gateway);
        if
        :: atomic { may_sleep -> may_sleep = false }
           wait(gateway)
        :: atomic { else -> clear(gateway) }
        fi
    od;
    leave()
}

/* Sleeps without leave: of the bell, only the shutdown ends it. */
inline wait_for_the_stream() {
#ifdef BLOCKED_WAIT_IGNORES_SHUTDOWN
    len(stream) < STREAM || is_gone
#else
    atomic { writer.token || len(stream) < STREAM || is_gone -> clear(writer) }
#endif
}

proctype Writer() {
    byte me = WRITER;
    byte before, wakes, frame;
    bool may_sleep, is_wanted, has_half, is_blocked;
    do
    :: true ->
#ifdef LOOK_BEFORE_TAKE
        if
        :: !has_half -> take_out(to_writer, WRITER)
        :: else
        fi;
#endif
        atomic { take(writer, wakes); wakes = wakes & DOWN }
#ifndef LOOK_BEFORE_TAKE
        if
        :: !has_half -> take_out(to_writer, WRITER)
        :: else
        fi;
#endif
#ifndef NO_RECLAIM_AT_THE_END
        if
        :: wakes && !has_half -> take_out(from_writer, WRITER)
        :: else
        fi;
#endif
        if
        :: has_half -> send()
        :: else
        fi;
        if
        :: wakes -> break
        :: else
        fi;
        if
        :: atomic { is_blocked -> is_blocked = false }
           wait_for_the_stream()
        :: else ->
            if
            :: has_half -> give_back_sender()
            :: else
            fi;
            arm(writer);
            if
            :: atomic { may_sleep -> may_sleep = false }
               wait(writer)
            :: else
            fi
        fi
    od;
    leave()
}

proctype Relay() {
    byte before;
    do
    :: published < FRAMES ->
        atomic { published++; wake(gateway, RELAY) }
    :: published == FRAMES -> break
    od
}

proctype Vmm() {
    byte piece;
    do
    :: atomic { stream?piece -> assert(piece == read); read++; piece = 0 }
    :: is_early -> break
    #ifdef VMM_GOES
    :: atomic { is_early -> is_gone = true; break }
#endif
    :: out == THREADS && empty(stream) -> break
    od
}

proctype Owner() {
    byte before;
    if
    :: true -> read == PIECES && rests(gateway) && rests(writer) && holder == POLL_LOOP
#ifndef LATE_ONLY
    :: true -> is_early = true
#endif
    fi;
    shut_down(gateway);
    shut_down(writer)
}

init {
    atomic {
        run PollLoop();
        run Writer();
        run Relay();
        run Vmm();
        run Owner()
    }
}

ltl delivered { <> (read == PIECES || gateway.is_down) }
ltl no_half_lies { [] ((len(to_writer) > 0 || len(from_writer) > 0) -> <> (holder != NOBODY || gateway.is_down)) }
ltl wakes_up { [] ((gateway.asleep && holder == POLL_LOOP && len(queue) > 0) -> <> !gateway.asleep) }
ltl ends { <> (out == THREADS) }
