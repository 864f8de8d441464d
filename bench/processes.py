"""What /proc tells of a process and its children: CPU time and memory."""

from pathlib import Path
from typing import NamedTuple

import psutil


def tree(root: int) -> list[int]:
    """The process and all that descend from it."""
    return [root, *(child.pid for child in psutil.Process(root).children(recursive=True))]


class Usage(NamedTuple):
    """Seconds since the start of each thread: on a core, and ready to run but kept from it by someone else."""

    cpu: float
    waited: float


def usage(root: int) -> Usage:
    """User and system time of the tree so far, and how long it waited for a core.

    From the scheduler's own account of each living thread (nanoseconds), not from `utime` and `stime`, which tick
    every 10 ms. A thread that ended takes its time with it; none of the measured programs ends threads under load.
    """
    cpu = waited = 0
    for pid in tree(root):
        for task in Path(f"/proc/{pid}/task").iterdir():
            on_core, in_queue, _ = (task / "schedstat").read_text().split()
            cpu += int(on_core)
            waited += int(in_queue)
    return Usage(cpu / 1e9, waited / 1e9)


def memory_kb(root: int) -> dict[str, int]:
    """`rss` and `uss` (what only this process holds) of the tree, in KB."""
    total = {"rss": 0, "uss": 0}
    for pid in tree(root):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, amount = line.split()[:2]
            if name == "Rss:":
                total["rss"] += int(amount)
            elif name in ("Private_Clean:", "Private_Dirty:"):
                total["uss"] += int(amount)
    return total
