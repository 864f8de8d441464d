"""A supervisor over toy servers, as a process of its own for tests.

`python -m tests.support.fake_supervisor '{"workers": 2, ...}'` prints one line, the port, once all workers accept.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

import msgspec
import uvloop
from msgspec import Struct

from qwen_proxy.accounts.model import Account
from qwen_proxy.app.commons import Kept, bury, open_commons
from qwen_proxy.app.machine import Machine
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.storage.opening import FilePlace
from qwen_proxy.workers.listening import listen
from qwen_proxy.workers.supervisor import Supervisor, SupervisorOptions
from tests.support.fake_worker import SECRET

CLOCK = SystemClock()


class Setup(Struct, frozen=True, forbid_unknown_fields=True):
    workers: int = 2
    accounts: int = 1
    concurrency: int = 1
    port: int = 0
    folder: str | None = None  # workers fail while it has a file `fail`, hang while `hang`; its *.py are watched
    max_memory_megabytes: int | None = None
    grace_seconds: float = 10.0


async def run(setup: Setup) -> int:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as data:
        return await supervise(setup, Kept(FilePlace(Path(data) / "data.db"), SECRET))


async def supervise(setup: Setup, kept: Kept) -> int:
    folder = None if setup.folder is None else Path(setup.folder)
    faults = () if folder is None else ("--fail-if", str(folder / "fail"), "--hang-if", str(folder / "hang"))
    assert isinstance(kept.place, FilePlace)
    notes = (folder or kept.place.path.parent) / "notes"
    told = ("--data", str(kept.place.path), "--concurrency", str(setup.concurrency), "--notes", str(notes))
    options = SupervisorOptions(
        command=(sys.executable, "-m", "tests.support.fake_worker", *faults, *told),
        watched=folder,
        watch_seconds=0.1,
        ready_seconds=5,
        max_memory_bytes=setup.max_memory_megabytes and setup.max_memory_megabytes * 1024 * 1024,
        memory_check_seconds=0.1,
        drain_seconds=20,
        shutdown_grace_seconds=setup.grace_seconds,
        first_backoff_seconds=0.05,
        steady_seconds=0.2,
    )
    listeners = listen("127.0.0.1", setup.port, setup.workers)
    port = listeners[0].getsockname()[1]
    async with open_commons(kept, Machine()) as commons:
        for number in range(setup.accounts):
            await commons.book.put(Account(id=f"a{number}", email=f"a{number}", password=Secret("p")))
        supervisor = Supervisor(
            listeners,
            CLOCK,
            options,
            lambda: print(port, flush=True),  # noqa: T201
            lambda pid: bury(commons, pid),
        )
        return await supervisor.run()


def main() -> int:
    setup = msgspec.json.decode(sys.argv[1], type=Setup)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run(setup))


if __name__ == "__main__":
    sys.exit(main())
