"""Tests of avsnn. pytest starts one process for each core, and each process uses one thread.

With several threads in each process, the threads would wait for each other on the same cores, and
the tests would take ten times as long.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
