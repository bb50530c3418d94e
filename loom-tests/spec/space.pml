/*
 * Space wakes: a producer that a full queue refuses says that it wants room, looks again and sleeps on its
 * own bell, which the consumer rings for the room it has made. Frames are of one byte or of three.
 */

#ifndef FRAMES
#define FRAMES 20
#endif
#ifndef CAPACITY
#define CAPACITY 2
#endif
#define MAX_BYTES 2

#include "wake.inc"
#include "room.inc"

/* The poll loop's bell, and the reader's. */
Bell gateway, reader;
chan queue = [CAPACITY] of { byte, byte };
Room room;
byte got;
/* The bytes of the frames in the queue. */
byte inside;
bool is_reader_out, is_poll_loop_out;

#define is_full (len(queue) == CAPACITY || !fits(room, 3))

proctype Reader() {
    byte before, wakes, frame, length;
    bool may_sleep, is_pushed, is_unheard;
    length = 1;
    do
    :: true ->
        atomic { take(reader, wakes); wakes = wakes & DOWN }
        if
        :: wakes -> break
        :: else
        fi;
        do
        :: frame < FRAMES ->
            push(queue, room, frame, length);
            if
            :: atomic {
                is_pushed ->
                inside = inside + length;
                assert(inside <= MAX_BYTES || len(queue) == 1);
                is_pushed = false;
                is_unheard = true;
                frame++;
                length = (frame % 3 == 2 -> 3 : 1)
               }
            :: else -> break
            fi
        :: frame == FRAMES -> break
        od;
        if
        :: atomic { is_unheard -> is_unheard = false }
           wake(gateway, FRAME)
        :: else
        fi;
        arm(reader);
        if
        :: atomic { may_sleep -> may_sleep = false }
           wait(reader)
        :: else
        fi
    od;
    is_reader_out = true
}

proctype PollLoop() {
    byte before, wakes, frame, length;
    bool may_sleep, is_wanted, is_popped;
    do
    :: true ->
        atomic { take(gateway, wakes); wakes = wakes & DOWN }
#ifdef WANTED_CLEARED_BEFORE_POP
        swap_wanted(room);
#endif
        do
        :: atomic {
            queue?frame,length ->
            assert(frame == got);
            got++;
            frame = 0;
            inside = inside - length
           }
#ifndef BYTES_GIVEN_BACK_AFTER_THE_RING
           atomic { give_back(room, length); length = 0 }
#endif
           is_popped = true
        :: empty(queue) -> break
        od;
        if
        :: atomic { is_popped -> is_popped = false }
#ifndef WANTED_CLEARED_BEFORE_POP
           swap_wanted(room);
#endif
#ifdef NO_SPACE_WAKE
           is_wanted = false;
#endif
           if
           :: atomic { is_wanted -> is_wanted = false }
              wake(reader, SPACE)
           :: else
           fi
#ifdef BYTES_GIVEN_BACK_AFTER_THE_RING
           ; d_step { room.bytes = inside; length = 0 }
#endif
        :: else
        fi;
        if
        :: wakes -> break
        :: else
        fi;
        arm(gateway);
        if
        :: atomic { may_sleep -> may_sleep = false }
           wait(gateway)
        :: else
        fi
    od;
    is_poll_loop_out = true
}

/* At any moment; or once all is delivered and both rest, so that it hides no lost wake. */
proctype Owner() {
    byte before;
    if
    :: true -> got == FRAMES && rests(gateway) && rests(reader)
#ifndef LATE_ONLY
    :: true
#endif
    fi;
    shut_down(gateway);
#ifndef SHUTDOWN_FORGETS_THE_READER
    shut_down(reader)
#endif
}

init {
    atomic {
        run Reader();
        run PollLoop();
        run Owner()
    }
}

ltl delivered { <> (got == FRAMES || gateway.is_down) }
ltl wakes_up { [] ((reader.asleep && got < FRAMES && !is_full) -> <> (!reader.asleep || gateway.is_down)) }
ltl ends { <> (is_reader_out && is_poll_loop_out) }
