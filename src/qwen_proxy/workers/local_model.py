"""Keeps the process that runs a local model: one, on one port, started again when it ends by itself."""

import asyncio
import logging
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.workers.llama_server import LlamaOptions

log = logging.getLogger(__name__)

LLAMA_COMMAND: Final = (sys.executable, "-m", "qwen_proxy.workers.llama_server")
END_SECONDS: Final = 5.0  # it ends with its input; this is for one that does not
LONGEST_LINE: Final = 300  # of an error that is told
_ERROR: Final = " E "  # between the time and the text of llama.cpp's lines


class ModelNotLoaded(Exception):
    """The model's process ended before it answered. The message is its first error, or its exit code."""


class Pauses(Struct, frozen=True):
    """Before it is started again, in seconds: doubling while it ends within `steady`."""

    first: float = 1.0
    last: float = 60.0
    steady: float = 60.0


class _Child:
    def __init__(self, process: Process) -> None:
        self.process = process
        self.errors: list[str] = []
        self.is_ready = False

    async def ready(self, options: LlamaOptions) -> str:
        """The address it listens on; empty when it has ended before that."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppress(ConnectionError):  # it has ended already: its code tells
            self.process.stdin.write(msgspec.json.encode(options) + b"\n")
            await self.process.stdin.drain()
        return (await self.process.stdout.readline()).decode().strip()

    async def read_errors(self) -> None:
        """To the end, so that it never waits for a reader. Only those of the start are kept: later lines may tell of
        requests."""
        assert self.process.stderr is not None
        while chunk := await self.process.stderr.read(1 << 16):
            if not self.errors and not self.is_ready:
                lines = chunk.decode(errors="replace").splitlines()
                self.errors += [line.partition(_ERROR)[2].strip()[:LONGEST_LINE] for line in lines if _ERROR in line]

    async def end(self) -> None:
        """By the handle of the process that was started. Returns when it is gone."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), END_SECONDS)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


class LocalModel:
    """What `open_local_model` gives. `address` holds as long as the block."""

    def __init__(self, options: LlamaOptions, clock: Clock, command: Sequence[str], pauses: Pauses) -> None:
        self.address = ""
        self._options = options
        self._clock = clock
        self._command = command
        self._pauses = pauses
        self._child: _Child | None = None
        self._tasks = Tasks()

    @property
    def pid(self) -> int:
        """Of its process now; 0 while there is none."""
        return self._child.process.pid if self._child is not None else 0

    async def start(self) -> None:
        """Returns when it answers. Raises ModelNotLoaded.

        A session of its own: a Ctrl-C in the terminal is not for it, so that requests may be answered to their end.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
            )
        except OSError as error:
            raise ModelNotLoaded(str(error)) from error
        self._child = child = _Child(process)
        reading = self._tasks.spawn(child.read_errors(), name="errors of the local model")
        if not (address := await child.ready(self._options)):
            code = await process.wait()
            self._child = None
            await reading
            raise ModelNotLoaded(child.errors[0] if child.errors else f"it ended with exit code {code}")
        child.is_ready = True
        self.address = address
        self._options = replace(self._options, port=urlsplit(address).port or 0)

    async def keep(self) -> None:
        """Start it again whenever it ends."""
        pause = self._pauses.first
        while True:
            began = self._clock.monotonic()
            if self._child is not None:
                code = await self._child.process.wait()
                self._child = None
                log.error("the local model's server ended by itself", extra={"exit_code": code})
            is_steady = self._clock.monotonic() - began >= self._pauses.steady
            pause = self._pauses.first if is_steady else pause
            await self._clock.sleep(pause)
            pause = min(pause * 2, self._pauses.last)
            try:
                await self.start()
            except ModelNotLoaded as error:
                log.error("the local model can't be started", extra={"reason": str(error)})
            else:
                log.info("the local model answers again", extra={"pid": self.pid})

    async def end(self) -> None:
        if self._child is not None:
            await self._child.end()
        await self._tasks.__aexit__(None, None, None)


@asynccontextmanager
async def open_local_model(
    options: LlamaOptions, clock: Clock, command: Sequence[str] = LLAMA_COMMAND, pauses: Pauses | None = None
) -> AsyncGenerator[LocalModel]:
    """Its process runs, and answers at `address`, while the block lasts. Raises ModelNotLoaded."""
    model = LocalModel(options, clock, command, pauses or Pauses())
    try:
        await model.start()
        async with Tasks() as tasks:
            tasks.spawn(model.keep(), name="local model")
            yield model
    finally:
        await model.end()
