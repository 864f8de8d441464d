"""A sampling profiler that any Python program picks up when this directory is on its PYTHONPATH.

Python imports `sitecustomize` at start, so every process of the product is sampled, without a word in its code. A
timer of CPU time (ITIMER_PROF) interrupts the main thread each 2 ms that it computed; the stack it stood in is
counted. Time in C stands under the Python function that called it. Now and then, and at the end, the stacks go to
`BENCH_PROFILE_DIRECTORY/<pid>.stacks`: one a line, outermost first, with `;` between frames, then the line of the
innermost, and the count last (what flame graph programs read).
"""

import atexit
import contextlib
import os
import signal
from collections import Counter
from types import FrameType

PERIOD_SECONDS = 0.002
WRITE_EVERY = 250


class Sampler:
    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._stacks: Counter[tuple[str, ...]] = Counter()
        self._taken = 0

    def start(self) -> None:
        signal.signal(signal.SIGPROF, self._sample)
        signal.siginterrupt(signal.SIGPROF, False)
        signal.setitimer(signal.ITIMER_PROF, PERIOD_SECONDS, PERIOD_SECONDS)

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)  # the interpreter takes the handler away before it ends
        self.write()

    def end(self, _: int, __: FrameType | None) -> None:
        """For a program that does not answer SIGTERM itself: it would end without `atexit`."""
        self.stop()
        os._exit(0)

    def write(self) -> None:
        lines = [f"{';'.join(stack)} {count}\n" for stack, count in self._stacks.most_common()]
        with contextlib.suppress(OSError), open(f"{self._directory}/{os.getpid()}.stacks", "w") as output:
            output.writelines(lines)

    def _sample(self, _: int, frame: FrameType | None) -> None:
        stack: list[str] = [] if frame is None else [f"line {frame.f_lineno}"]
        while frame is not None:
            code = frame.f_code
            stack.append(f"{code.co_filename.rpartition('site-packages/')[2]}:{code.co_qualname}")
            frame = frame.f_back
        self._stacks[tuple(reversed(stack))] += 1
        self._taken += 1
        if self._taken % WRITE_EVERY == 0:
            self.write()


if directory := os.environ.get("BENCH_PROFILE_DIRECTORY"):
    sampler = Sampler(directory)
    sampler.start()
    signal.signal(signal.SIGTERM, sampler.end)
    atexit.register(sampler.stop)
