/*
 * The wait without arming: the writer holds a frame that the stream does not take, and nothing concerns it
 * but room in the stream and the shutdown. The poll loop rings it for every frame meanwhile; the VMM may
 * stop to read for good.
 */

#ifndef RINGS
#define RINGS 20
#endif
#define PLACES 2

#include "wake.inc"

Bell writer;
/* What the stream holds. */
byte filled;
bool is_deaf, is_out;
byte rung;

proctype PollLoop() {
    byte before;
    do
    :: rung < RINGS ->
        wake(writer, FRAME);
        rung++
    :: else -> break
    od
}

proctype Writer() {
    byte wakes;
    bool may_sleep;
    do
    :: true ->
        atomic { take(writer, wakes); wakes = wakes & DOWN }
        if
        :: atomic { filled < PLACES -> filled++ }
           if
           :: wakes -> break
           :: else
           fi
        :: filled == PLACES ->
            if
            :: wakes -> break
            :: else
            fi;
#ifdef BLOCKED_WAIT_IGNORES_SHUTDOWN
            filled < PLACES
#else
            atomic { writer.token || filled < PLACES -> clear(writer) }
#endif
        fi
    od;
    is_out = true
}

proctype Vmm() {
    do
    :: filled > 0 -> filled--
    :: is_deaf = true; break
    :: is_out -> break
    od
}

/* At any moment, or once the VMM has stopped and all has been said. */
proctype Owner() {
    byte before;
    if
    :: true -> (is_deaf && rung == RINGS && filled == PLACES) || is_out
#ifndef LATE_ONLY
    :: true
#endif
    fi;
    shut_down(writer)
}

init {
    atomic {
        run PollLoop();
        run Writer();
        run Vmm();
        run Owner()
    }
}

/* In the second of the owner's ways the VMM may read for ever. */
ltl ends { [] (writer.is_down -> <> is_out) }
