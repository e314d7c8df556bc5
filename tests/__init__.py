"""Tests, in as many processes as there are cores, with one thread each.

Threads of several processes that wait for each other on the same cores take ten times as long.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
