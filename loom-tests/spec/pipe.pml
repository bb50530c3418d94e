/*
 * The byte pipe of a relay thread, in one direction: how its stream ends. The writer writes, waits for room,
 * and finishes; either end may reset, and the poll loop does when the shutdown makes it leave.
 */

#ifndef FRAMES
#define FRAMES 10
#endif
#define CAPACITY 1

#include "wake.inc"
#include "room.inc"

#define ENDED 1
#define RESET 2
#define NONE 255

/* The reader's bell, which is the poll loop's, and the writer's. */
Bell data, space;
chan chunks = [CAPACITY] of { byte };
Room room;
byte state;
byte got;
bool has_read_end, is_reader_out, is_writer_out, is_cut;

inline finish() {
    state = state | ENDED;
#ifndef FINISH_WITHOUT_A_RING
    wake(data, RELAY)
#endif
}

inline reset() {
    state = state | RESET;
    wake(data, RELAY);
#ifndef RESET_FORGETS_THE_WRITER
    wake(space, RELAY)
#endif
}

/* A relay thread in write: refused, it asks for a reset each time before it sleeps. */
proctype Writer() {
    byte before, wakes, chunk;
    bool may_sleep;
    do
    :: chunk < FRAMES ->
        atomic { take(space, wakes); wakes = 0 }
        if
        :: (state & RESET) != 0 -> break
        :: else
        fi;
        if
        :: atomic { nfull(chunks) -> chunks!chunk; chunk++ }
           wake(data, RELAY)
        :: full(chunks) ->
            want(room);
            if
            :: atomic { nfull(chunks) -> chunks!chunk; chunk++ }
               wake(data, RELAY)
            :: full(chunks) ->
                arm(space);
                if
                :: atomic { may_sleep -> may_sleep = false }
                   wait(space)
                :: else
                fi
            fi
        fi
    :: chunk == FRAMES -> break
    :: true -> is_cut = true; reset(); break
    od;
    finish();
    is_writer_out = true
}

/* The poll loop: reads until there is nothing, or an end. */
proctype Reader() {
    byte before, wakes, seen, chunk;
    bool may_sleep, is_wanted, is_empty;
    chunk = NONE;
    do
    :: true ->
        atomic { take(data, wakes); wakes = wakes & DOWN }
        do
        :: true ->
#ifndef LOOK_AT_THE_END_AFTER_THE_POP
            seen = state;
            if
            :: (seen & RESET) != 0 -> break
            :: else
            fi;
#endif
            if
            :: atomic { chunks?chunk -> assert(chunk == got); got++; chunk = NONE }
               swap_wanted(room);
               if
               :: atomic { is_wanted -> is_wanted = false }
                  wake(space, RELAY)
               :: else
               fi
            :: empty(chunks) ->
#ifdef LOOK_AT_THE_END_AFTER_THE_POP
                seen = state;
#endif
                is_empty = true;
                break
            fi
        od;
        if
        :: (seen & RESET) != 0 -> break
        :: (seen & RESET) == 0 && is_empty && (seen & ENDED) != 0 -> has_read_end = true; break
        :: else -> seen = 0; is_empty = false
        fi;
        if
        :: wakes -> is_cut = true; break
        :: else
        fi;
        arm(data);
        if
        :: atomic { may_sleep -> may_sleep = false }
           wait(data)
        :: else
        fi
    od;
    assert(!has_read_end || got == FRAMES);
    if
    :: !has_read_end -> reset()
    :: else
    fi;
    is_reader_out = true
}

/* Begins the shutdown at any moment, or never. */
proctype Owner() {
    byte before;
    if
    :: true
#ifndef LATE_ONLY
    :: true -> shut_down(data)
#endif
    fi
}

init {
    atomic {
        run Writer();
        run Reader();
        run Owner()
    }
}

ltl delivered { <> (has_read_end || is_cut) }
ltl ends { <> (is_reader_out && is_writer_out) }
