"""Faults while medmtl works, and its promises: id, letters of the classes, title."""

from __future__ import annotations

FAULTS = {
    "Kills and signals": """
F01 H  kill at any time
F02 H  kill before each system call of a commit
F03 H  kill before each system call of a cache write
F04 H  kill during the check
F05 H  kill during evaluation and report
F06 H  kill just before the commit is in place
F07 H  kill while old checkpoints are removed
F08 H  SIGTERM commits and ends
F09 H  SIGTERM during a commit
F10 H  second signal ends at once
F11 H  Ctrl-C at start-up, loading and evaluation
F12 H  lost terminal
F13 H  SIGUSR1 commits and goes on
F14 H  stopped and continued
F15 H  the sequence of a scheduler's preemption
F16 H  a long chain of kills and resumes
""",
    "Disk": """
F17 H  full disk while a checkpoint is written
F18 H  full disk while the cache is written
F19 H  full disk while the log is written
F20 H  no inodes left
F21 H  quota exceeded
F22 H  file size limit
F23 H  write error
F24 H  fsync error
F25 H  error on rename or on the folder's fsync
F26 H  disk that lies about what it wrote
F27 H  read error in an image
F28 H  run folder turns read-only
F29 H  run folder is removed or renamed
F30 H  run folder is made immutable
F31 H  too many open files
F39 H  input is truncated while in use
F40 H  input is replaced during the run
F41 H  input folder vanishes
F61 H  power cut
F62 H  order of fsync calls
F64 H  very slow disk
F68 H  log that is a link to elsewhere
""",
    "Memory and processes": """
F32 H  no memory left in the loader
F33 H  main process killed for memory
F34 H  worker killed
F35 H  worker crashes
F36 H  worker hangs
F37 H  worker raises what cannot be pickled
F38 H  shared memory is full
F50 H  two processes on one run folder
F51 H  stale lock
F52 H  two runs on one cold cache
F56 H  one of several ranks is killed
F57 H  one of several ranks hangs
F58 H  ranks with unequal numbers of cases
F59 H  network between ranks fails
F60 H  GPU out of memory or lost
F63 H  limit on processes
F66 H  the user's own code raises
F67 H  ten thousand steps leak nothing
""",
    "Numbers, clocks and stored state": """
F42 H  loss that is not finite
F43 H  one task's loss that is not finite
F44 H  overflow under a gradient scaler
F45 H  weights that are not finite are never saved
F46 H  metric that is not finite is never the best
F47 H  bit flip in a weight between steps
F48 H  wall clock jumps
F49 H  monotonic clock starts anew after a resume
F53 H  damaged cache entry is built again
F54 H  newest checkpoint damaged
F55 H  all checkpoints damaged
F65 H  resume under other versions
""",
}

PROMISES = {
    "Promises": """
P01 H  one pass finds every fault, and no other
P02 H  nothing trains on bytes that were not checked
P03 H  a flipped bit that changes a voxel is always found
P04 H  no loaded file can run code
P05 H  nothing outside the declared folders is touched
P06 H  no network and no telemetry
P07 H  resume is exact, bit for bit, on a CPU
P08 H  resume is exact on one GPU
P09 H  once there is a checkpoint, there always is a whole one
P10 H  committed means on the disk and read back
P11 H  SIGTERM leads to a commit in time
P12 H  what is not finite is never stored
P13 H  dead and stuck workers are reported, soon and by cause
P14 H  runs never share a folder, and may share a cache
P15 H  one person is never on both sides of a split
P16 H  images, labels and predictions agree in millimetres
P17 H  ambiguous geometry is refused, never guessed
P18 H  missing targets give no gradient and no score
P19 H  what may be shared identifies nobody
P20 H  needs are predicted before the start
P21 H  every failure is one sentence and a documented code
P22 H  equal inputs give equal bytes
P23 H  unknown keys and newer formats are refused
P24 H  known-bad versions of dependencies are excluded
P25 H  every bug leaves a test
""",
}
