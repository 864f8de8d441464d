"""Starting programs, and ending all that they started."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Ended(NamedTuple):
    """`code` is None for a program that was ended since its time was over. `output` is what it wrote, both streams."""

    code: int | None
    output: str


def run(command: Sequence[str | Path], *, cwd: Path, environment: Mapping[str, str], seconds: float) -> Ended:
    """One program, in a process group of its own, of which nothing is left when this returns."""
    process = subprocess.Popen(
        [str(word) for word in command],
        cwd=cwd,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds)
        return Ended(process.returncode, output.decode(errors="replace"))
    except subprocess.TimeoutExpired:
        _end(process.pid)
        output, _ = process.communicate()
        return Ended(None, output.decode(errors="replace"))
    finally:
        _end(process.pid)


def plain_environment(home: Path, **more: str) -> dict[str, str]:
    """What a program needs to run at all, and nothing of this machine's own settings."""
    home.mkdir(parents=True, exist_ok=True)
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "TERM": "dumb", "NO_COLOR": "1", **more}


def _end(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
