/*
 * Data wakes: threads push frames and ring, the poll loop takes, drains within a budget, arms and waits.
 * Host sockets share its wait, so that it may leave it for another reason than a ring.
 */

#ifndef FRAMES
#define FRAMES 3
#endif
#ifndef PRODUCERS
#define PRODUCERS 2
#endif
#ifndef EVENTS
#define EVENTS 1
#endif
#define CAPACITY 2
#define BUDGET 1

#define AT_SHUTDOWN due = (gateway.is_down -> due : len(queue))
#include "wake.inc"

#define ALL (PRODUCERS * FRAMES)
#define is_done (got == ALL && heard == EVENTS)

Bell gateway;
/* The producer, and which of its frames it is. */
chan queue = [CAPACITY] of { byte, byte };
byte next[PRODUCERS];
byte got;
/* Of what was pushed before the shutdown, the frames that are not taken yet. */
byte due;
/* A host socket is readable; how many times it was found so. */
bool is_ready;
byte heard;
bool is_out;

/* One ring for as many pushes as there is room for, or for fewer. */
proctype Producer(byte id) {
    byte before, frame;
    bool is_unheard;
    do
#ifdef RING_BEFORE_PUBLISH
    :: frame < FRAMES ->
        wake(gateway, FRAME);
        if
        :: atomic { nfull(queue) -> queue!id,frame; frame++ }
        :: is_out
        fi
#else
    :: atomic { frame < FRAMES && nfull(queue) -> queue!id,frame; frame++; is_unheard = true }
#endif
    :: atomic { is_unheard -> is_unheard = false }
#ifndef NO_RING
       wake(gateway, FRAME)
#endif
    :: atomic { (frame == FRAMES && !is_unheard) || is_out -> frame = 0; break }
    od
}

proctype Sockets() {
    byte left = EVENTS;
    do
    :: atomic { left > 0 && !is_ready -> is_ready = true; left-- }
    :: left == 0 || is_out -> break
    od
}

inline pop() {
    queue?id,frame;
    assert(frame == next[id]);
    next[id]++;
    got++;
    due = (due > 0 -> due - 1 : 0);
    id = 0;
    frame = 0
}

/* Any return from the wait looks at both descriptors. */
inline dispatch() {
    clear(gateway);
    if
    :: is_ready -> is_ready = false; heard++
    :: else
    fi;
    may_sleep = false
}

proctype PollLoop() {
    byte wakes, budget, id, frame;
    bool may_sleep;
    do
    :: true ->
#ifndef TAKE_AFTER_DRAIN
        atomic { take(gateway, wakes); wakes = wakes & DOWN }
#endif
        atomic { budget = (wakes -> len(queue) : BUDGET) }
        do
        :: atomic { budget > 0 && nempty(queue) -> pop(); budget-- }
        :: budget == 0 || empty(queue) -> break
        od;
#ifdef TAKE_AFTER_DRAIN
        atomic { take(gateway, wakes); wakes = wakes & DOWN }
#endif
        if
        :: wakes -> break
        :: else
        fi;
#ifdef ARM_OVER_BUDGET
        budget = 1;
#endif
        if
        :: atomic { budget > 0 -> budget = 0 }
           arm(gateway)
        :: else
        fi;
        if
        :: atomic { may_sleep && (gateway.token || is_ready) -> dispatch() }
        :: atomic { !may_sleep -> dispatch() }
        fi
    od;
    assert(due == 0);
    arm(gateway);
    assert(!may_sleep);
    is_out = true
}

/* At any moment; or once all is delivered and the poll loop rests, so that it hides no lost wake. */
proctype Owner() {
    byte before;
    if
    :: true -> is_done && rests(gateway)
#ifndef LATE_ONLY
    :: true
#endif
    fi;
    shut_down(gateway)
}

init {
    atomic {
        run Producer(0);
#if PRODUCERS > 1
        run Producer(1);
#endif
        run Sockets();
        run PollLoop();
        run Owner()
    }
}

ltl delivered { <> (got == ALL || gateway.is_down) }
ltl wakes_up { [] ((gateway.asleep && (len(queue) > 0 || gateway.is_down)) -> <> !gateway.asleep) }
ltl ends { <> is_out }
