"""The command `qwen-proxy` as a person runs it: a process of its own, in a folder of its own."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

ENTRY = Path(sys.executable).with_name("qwen-proxy")


class Ran(Struct, frozen=True):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What --json printed: the whole of stdout."""
        return msgspec.json.decode(self.out)


async def run_command(folder: Path, *arguments: str, feed: str = "", **environ: str) -> Ran:
    """Keyword arguments are variables; nothing else of this process's environment is handed on but PATH and HOME.

    feed: what a pipe gives it; empty for nothing.
    """
    process = await asyncio.create_subprocess_exec(
        str(ENTRY),
        *arguments,
        cwd=folder,
        env={"PATH": os.defpath, "HOME": str(folder), **environ},
        stdin=asyncio.subprocess.PIPE if feed else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(feed.encode() or None)
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())
