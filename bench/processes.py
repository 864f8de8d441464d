"""What /proc tells of a process and its children: CPU time and memory."""

from pathlib import Path

import psutil


def tree(root: int) -> list[int]:
    """The process and all that descend from it."""
    return [root, *(child.pid for child in psutil.Process(root).children(recursive=True))]


def cpu_seconds(root: int) -> float:
    """User and system time of the tree so far.

    From the scheduler's own account of each living thread (nanoseconds), not from `utime` and `stime`, which tick
    every 10 ms. A thread that ended takes its time with it; none of the measured programs ends threads under load.
    """
    nanoseconds = 0
    for pid in tree(root):
        for task in Path(f"/proc/{pid}/task").iterdir():
            nanoseconds += int((task / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def core_seconds(core: int) -> float:
    """How long a core has been busy, with whatever; what a hypervisor took from it included."""
    times = psutil.cpu_times(percpu=True)[core]
    return sum(times[:9]) - times.idle - times.iowait - times.guest  # `user` has the guests' in it


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
