"""The engines that are compared, each in its own language and configured at its best, and the baselines beside them.

To add one: a file beneath `engines` with a class below `Peer`, with `@peer`, and a line here. It writes its definitions, says which
words it runs for which question, and where it keeps results. Everything else (trees, edits, stopwatch, counting) is the same for all
and lies in `run.py`.
"""

# The order is that of the columns.
from engines.base import CORES, PEERS, Bench, Missing, Peer
from engines.drystone import Drystone
from engines.by_time import Make, Ninja
from engines.npm import Nx, Turbo, ViteTask
from engines.moon import Moon
from engines.wireit import Wireit
from engines.bazel import Bazel
from engines.baselines import Stat, Xargs

__all__ = [
    *("CORES", "PEERS", "Bench", "Missing", "Peer"),
    *("Bazel", "Drystone", "Make", "Moon", "Ninja", "Nx", "Stat", "Turbo", "ViteTask", "Wireit", "Xargs"),
]
