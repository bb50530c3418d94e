/*
 * What is published with a plain store, on a machine that keeps stores back (TSO): the store waits in the
 * producer's buffer, which a read-modify-write empties first. The weakest thing that a frame queue could rely
 * on: a counter that the ring alone makes visible.
 */

#ifndef FRAMES
#define FRAMES 20
#endif

#include "wake.inc"

Bell gateway;
/* The counter, and the value that waits in the producer's store buffer. */
byte published, kept_back;
bool is_kept_back;
byte got;
bool is_out;

inline publish(value) {
#ifdef SEQUENTIALLY_CONSISTENT
    published = value
#else
    atomic { !is_kept_back -> kept_back = value; is_kept_back = true }
#endif
}

/* Any read-modify-write of the producer's. */
inline fence() {
    !is_kept_back
}

proctype StoreBuffer() {
    do
    :: atomic { is_kept_back -> published = kept_back; kept_back = 0; is_kept_back = false }
    :: is_out -> break
    od
}

proctype Producer() {
    byte before, frame;
    do
    :: frame < FRAMES ->
        frame++;
        publish(frame);
#ifdef NO_RING_BESIDE_A_NOTE
        /* A load is no read-modify-write: it may come before the store is visible. */
        if
        :: (gateway.state & FRAME) != 0
        :: else ->
#endif
#ifdef RING_DOES_NOT_PUBLISH
        wake(gateway, FRAME)
#else
        atomic { fence(); wake(gateway, FRAME) }
#endif
#ifdef NO_RING_BESIDE_A_NOTE
        fi
#endif
    :: frame == FRAMES -> break
    od
}

proctype PollLoop() {
    byte wakes;
    bool may_sleep;
    do
    :: got < FRAMES ->
        atomic { take(gateway, wakes); wakes = 0 }
        got = published;
        arm(gateway);
        if
        :: atomic { may_sleep -> may_sleep = false }
           /* All is there: it need not be woken. */
           if
           :: wait(gateway)
           :: got == FRAMES
           fi
        :: else
        fi
    :: got == FRAMES -> break
    od;
    is_out = true
}

init {
    atomic {
        run StoreBuffer();
        run Producer();
        run PollLoop()
    }
}

ltl ends { <> is_out }
