# shellcheck shell=bash
# The searches that check.sh makes. See there for what the words mean, and README.md for the bounds.

# The bell, data wakes
holds frames 'safety' 'FRAMES=3 PRODUCERS=2 EVENTS=1'
holds frames 'safety delivered wakes_up ends' 'FRAMES=20 PRODUCERS=1 EVENTS=2'
holds frames 'delivered wakes_up ends' 'FRAMES=2 PRODUCERS=2 EVENTS=0'
small='FRAMES=3 PRODUCERS=1'
broken frames 'deadlock delivered ends' "$small RING_BEFORE_PUBLISH"
broken frames 'deadlock delivered ends' "$small NO_RING"
broken frames 'assertion deadlock wakes_up ends' "$small ARM_BY_STORE"
broken frames 'deadlock delivered wakes_up' "$small ARM_IGNORES_NOTES"
broken frames 'deadlock delivered wakes_up' "$small ARM_OVER_BUDGET"
broken frames 'assertion deadlock ends' "$small TAKE_AFTER_DRAIN"
broken frames 'assertion' "$small TAKE_CLEARS_DOWN"
broken frames 'deadlock ends' "$small TOKEN_CLEARED_AFTER_ARM"
broken frames 'ends' "$small TOKEN_NEVER_CLEARED"
broken frames 'assertion' "$small RING_WRITES_ALWAYS"
broken frames 'assertion' "$small RING_WRITES_BESIDE_A_NOTE"
broken frames 'deadlock ends' "$small SHUTDOWN_WITHOUT_A_WRITE"
broken frames 'assertion deadlock ends' "$small STOP_FLAG_BESIDE_THE_WORD"

# Space wakes
holds space 'safety delivered wakes_up ends' 'FRAMES=20 CAPACITY=2'
holds space 'safety delivered wakes_up ends' 'FRAMES=20 CAPACITY=1'
holds space 'safety' 'FRAMES=20 CAPACITY=3'
small='FRAMES=5 CAPACITY=2'
broken space 'deadlock delivered wakes_up ends' "$small NO_SPACE_WAKE"
broken space 'deadlock ends' "$small NO_SECOND_LOOK"
broken space 'deadlock ends' "$small WANTED_CLEARED_BEFORE_POP"
broken space 'deadlock ends' "$small BYTES_GIVEN_BACK_AFTER_THE_RING"
broken space 'deadlock ends' "$small SHUTDOWN_FORGETS_THE_READER"
broken space 'deadlock ends' "$small ARM_IGNORES_NOTES"

# The shutdown
holds shutdown 'safety ends' 'WAITERS=3 OWNERS=2 RINGS=0'
holds shutdown 'safety' 'WAITERS=2 OWNERS=3 RINGS=1'
holds shutdown 'ends' 'WAITERS=2 OWNERS=2 RINGS=1'
small='WAITERS=2 OWNERS=2 RINGS=1'
broken shutdown 'assertion deadlock ends' "$small ARM_BY_STORE"
broken shutdown 'assertion' "$small TAKE_CLEARS_DOWN"
broken shutdown 'assertion deadlock ends' "$small STOP_FLAG_BESIDE_THE_WORD"
broken shutdown 'deadlock ends' "$small SHUTDOWN_WITHOUT_A_WRITE"
broken shutdown 'deadlock ends' "$small SHUTDOWN_FORGETS_A_BELL"

# The wait without arming
holds unarmed 'safety ends' 'RINGS=20'
broken unarmed 'deadlock ends' 'RINGS=5 SHUTDOWN_WRITES_IF_ARMED'
broken unarmed 'deadlock ends' 'RINGS=5 SHUTDOWN_WITHOUT_A_WRITE'
broken unarmed 'deadlock ends' 'RINGS=5 BLOCKED_WAIT_IGNORES_SHUTDOWN'
broken unarmed 'assertion' 'RINGS=5 RING_WRITES_ALWAYS'

# The receive half changes hands
holds receive 'safety' 'FRAMES=12 CAPACITY=2 STREAM=3 LATE_ONLY'
holds receive 'safety' 'FRAMES=5 CAPACITY=1 STREAM=3'
holds receive 'delivered no_half_lies wakes_up ends' 'FRAMES=3 CAPACITY=1 STREAM=3'
holds receive 'safety ends' 'FRAMES=5 CAPACITY=2 STREAM=2 LATE_ONLY'
small='FRAMES=4 CAPACITY=2 STREAM=3'
broken receive 'assertion' "$small LEND_AND_KEEP"
broken receive 'deadlock no_half_lies' "$small LEND_WITHOUT_A_RING"
broken receive 'deadlock no_half_lies' "$small GIVE_BACK_WITHOUT_A_RING"
broken receive 'deadlock no_half_lies' "$small RING_BEFORE_THE_HALF"
broken receive 'assertion' "$small GIVE_BACK_BEFORE_THE_PUSH"
broken receive 'assertion' "$small RECEIVE_BEFORE_THE_QUEUE_IS_EMPTY"
broken receive 'deadlock' 'FRAMES=4 CAPACITY=1 STREAM=3 NO_SPACE_WAKE'
broken receive 'deadlock delivered wakes_up' "$small ARM_IGNORES_NOTES"
broken receive 'deadlock' "$small HANG_UP_FORGOTTEN"
broken receive 'deadlock ends' "$small SHUTDOWN_FORGETS_THE_READER"
broken receive 'deadlock ends' "$small SHUTDOWN_WITHOUT_A_WRITE"

# The send half changes hands
holds send 'safety' 'FRAMES=8 CAPACITY=2 STREAM=3 LATE_ONLY'
holds send 'safety delivered no_half_lies wakes_up ends' 'FRAMES=5 CAPACITY=1 STREAM=2 LATE_ONLY'
holds send 'ends' 'FRAMES=2 LOAD=1 STREAM=1 NO_DUE'
holds send 'safety' 'FRAMES=2 LOAD=1 STREAM=1 NO_DUE'
holds send 'safety ends' 'FRAMES=1 STREAM=1 VMM_GOES NO_DUE'
small='FRAMES=2 LOAD=1 STREAM=1 NO_DUE'
broken send 'deadlock no_half_lies' "$small LEND_WITHOUT_A_RING"
broken send 'deadlock no_half_lies' "$small GIVE_BACK_WITHOUT_A_RING"
broken send 'deadlock no_half_lies' "$small RING_BEFORE_THE_HALF"
broken send 'deadlock delivered wakes_up' "$small SEND_BEFORE_THE_PUSH"
broken send 'deadlock delivered' "$small SEND_ONLY_AFTER_A_PUSH"
broken send 'deadlock ends' "$small LOOK_BEFORE_TAKE"
broken send 'deadlock ends' "$small BLOCKED_WAIT_IGNORES_SHUTDOWN"
broken send 'deadlock delivered' "$small NO_SPACE_WAKE"
harmless send 'safety ends' 'FRAMES=5 STREAM=2 LATE_ONLY NO_RING_FOR_FRAMES'
# What was pushed before the shutdown is sent as far as the stream takes it, or a send was tried.
small='FRAMES=2 LOAD=1 STREAM=1'
holds send 'safety' "$small"
broken send 'assertion' "$small NO_RECLAIM_AT_THE_END"
broken send 'assertion' "$small NO_BORROW_AT_THE_END"

# The byte pipe of a relay thread
holds pipe 'safety delivered ends' 'FRAMES=10'
small='FRAMES=4'
broken pipe 'assertion' "$small LOOK_AT_THE_END_AFTER_THE_POP"
broken pipe 'deadlock delivered' "$small FINISH_WITHOUT_A_RING"
broken pipe 'deadlock ends' "$small RESET_FORGETS_THE_WRITER"

# A publication that a store buffer keeps back
holds publish 'safety ends' 'FRAMES=20'
broken publish 'deadlock ends' 'FRAMES=20 RING_DOES_NOT_PUBLISH'
broken publish 'deadlock ends' 'FRAMES=20 NO_RING_BESIDE_A_NOTE'
harmless publish 'safety ends' 'FRAMES=20 SEQUENTIALLY_CONSISTENT NO_RING_BESIDE_A_NOTE'
