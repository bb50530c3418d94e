/*
 * The shutdown: several threads begin it at once, while the waiters of the three bells take and arm, and
 * ring one another for no reason.
 */

#ifndef OWNERS
#define OWNERS 2
#endif
#ifndef RINGS
#define RINGS 1
#endif

#ifndef WAITERS
#define WAITERS 3
#endif

#include "wake.inc"

/* In the order in which begin_shutdown rings them: the poll loop's, the writer's, the reader's. */
Bell bells[WAITERS];
byte out;

inline begin_shutdown() {
    shut_down(bells[0]);
#if WAITERS > 2
    shut_down(bells[1]);
#endif
#ifndef SHUTDOWN_FORGETS_A_BELL
    shut_down(bells[WAITERS - 1])
#endif
}

proctype Waiter(byte id) {
    byte before, wakes;
    byte left = RINGS;
    bool may_sleep;
    do
    :: true ->
        atomic { take(bells[id], wakes); wakes = wakes & DOWN }
        if
        :: wakes -> break
        :: else
        fi;
        if
        :: atomic { left > 0 -> left-- }
           wake(bells[(id + 1) % WAITERS], SPACE)
        :: true
        fi;
        arm(bells[id]);
        if
        :: atomic { may_sleep -> may_sleep = false }
           wait(bells[id])
        :: else
        fi
    od;
    /* is_shutting_down looks at the first bell, whichever bell has told this thread. */
    assert(bells[0].is_down);
    assert((bells[0].state & DOWN) != 0);
    arm(bells[id]);
    assert(!may_sleep);
    out++
}

proctype Owner() {
    byte before;
    begin_shutdown()
}

init {
    atomic {
        byte id;
        for (id : 0 .. WAITERS - 1) {
            run Waiter(id)
        }
        for (id : 1 .. OWNERS) {
            run Owner()
        }
    }
}

ltl ends { <> (out == WAITERS) }
