"""The commands that go on until they are told to end."""

import asyncio
import errno
import gc
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import uvloop
from msgspec import Struct

import qwen_proxy
from qwen_proxy.accounts.pool import AccountPool
from qwen_proxy.admin.diagnostics import DriftBody, WorkerBody
from qwen_proxy.app.backends import ApiBackends, open_backends
from qwen_proxy.app.commons import DEMO, Commons, bury, live_settings, open_commons, open_pool
from qwen_proxy.app.door import Door, open_door
from qwen_proxy.app.machine import Machine
from qwen_proxy.app.service import open_service
from qwen_proxy.config.backends import BackendSpec
from qwen_proxy.config.choices import SaveMode, SimulatorUse
from qwen_proxy.config.credentials import LoadedKeys, load_keys
from qwen_proxy.config.logs import log_options
from qwen_proxy.config.runtime import LiveSettings
from qwen_proxy.config.settings import Settings, WrongSetting, handed_on, load
from qwen_proxy.operations.local_model import Local, check_local, handed_local, open_local
from qwen_proxy.operations.places import shared_place, worker_place
from qwen_proxy.operations.upstream import Destination, on_loopback, open_destination
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.environment import processors
from qwen_proxy.runtime.logfile import check_folder
from qwen_proxy.runtime.logs import Logs
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.simulator import Scenario, Simulator
from qwen_proxy.state.kinds import ACCOUNT, BACKEND, BATCH
from qwen_proxy.state.store import Record
from qwen_proxy.storage.redis import RedisStore
from qwen_proxy.workers.host import WorkerHost, run_worker
from qwen_proxy.workers.listening import listen
from qwen_proxy.workers.messages import DriftCount
from qwen_proxy.workers.supervisor import WORKER_COMMAND, Supervisor, SupervisorOptions

T = TypeVar("T")
Tell = Callable[[str], None]

ORIGINAL_DATA: Final = "data.json"  # where the Node project of the same idea keeps its accounts
DRIFT_SECONDS: Final = 2.0  # how often a worker tells what it has counted


class Handed(Struct, frozen=True):
    """What the supervisor hands a worker: its place, two inherited descriptors, where the upstream is and whether that
    is the simulated one, and the folder of the data where it is not that of the settings."""

    slot: int
    channel: int
    listener: int
    upstream: str
    is_simulated: bool
    folder: Path | None
    local: str = ""  # the local model's address, where there is one


def run(main: Coroutine[None, None, T]) -> T:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


# --- the supervisor ----------------------------------------------------------------------------------------


def serve(environ: Mapping[str, str], dotenv: Path, *, reload: bool, tell: Tell) -> int:
    """Supervise the workers until SIGTERM or SIGINT; the exit code.

    `tell` gets whole lines for the operator. Raises WrongSetting before anything has begun, also when the address
    can't be listened on or the log can't be written.
    """
    settings = load(environ, dotenv)
    keys = load_keys(settings, Machine().ids)
    for warning in (*settings.warnings, *keys.warnings):
        tell(f"Warning: {warning}")
    if settings.file_log:
        _check_log_folder(settings.log_dir)
    check_local(settings)
    with Logs(log_options(settings, "supervisor", sys.stderr)):
        return run(_supervise(settings, keys, handed_on(environ, dotenv), reload=reload, tell=tell))


async def _supervise(
    settings: Settings, keys: LoadedKeys, environ: Mapping[str, str], *, reload: bool, tell: Tell
) -> int:
    machine = Machine()
    listeners = _listen(settings)
    address: tuple[str, int] = listeners[0].getsockname()[:2]
    with shared_place(settings, machine.ids) as (kept, folder):
        async with (
            open_commons(kept, machine) as commons,
            open_destination(settings, commons, machine) as destination,
            open_local(settings, machine, tell) as local,
            Tasks() as tasks,
        ):
            for warning in (*await _look_after(commons, settings, keys), *await _take_over(commons, keys)):
                tell(f"Warning: {warning}")
            options = SupervisorOptions(
                command=_worker_command(destination.base_url, folder, local, is_simulated=destination.is_simulated),
                environ={**environ, **local.handed_on},
                max_memory_bytes=settings.max_memory_bytes,
                drain_seconds=settings.drain_seconds,
                shutdown_grace_seconds=settings.shutdown_grace_seconds,
                watched=Path(qwen_proxy.__file__).parent if reload else None,
            )

            def started() -> None:
                for line in _welcome(settings, keys, address, len(listeners), destination):
                    tell(line)

            async def ended(pid: int) -> None:
                await bury(commons, pid)

            supervisor = Supervisor(listeners, machine.clock, options, started, ended)
            if destination.is_simulated and settings.simulator is SimulatorUse.AUTO:

                def leave() -> None:
                    tell("There is an account or a backend now: leaving the simulated upstream for the real one.")
                    supervisor.roll(_worker_command(settings.chat_base_url, folder, local, is_simulated=False))

                tasks.spawn(_leave_simulator(commons, leave), name="leave the simulator")
            return await supervisor.run()


async def _look_after(commons: Commons, settings: Settings, keys: LoadedKeys) -> list[str]:
    """What an operator should know of the store before anything is served. Raises WrongSetting when it is broken."""
    if (broken := await commons.store.check()) is not None:
        right = f"a folder whose data is whole ({broken}); 'qwen-proxy import' brings an export back, or copy a backup"
        raise WrongSetting("DATA_DIR", str(settings.data_dir), right)
    warnings: list[str] = []
    if isinstance(commons.store, RedisStore):
        warnings += await commons.store.warnings()
        if keys.file is not None:
            warnings.append("several machines that share a Redis need the same API_KEY; here one was generated")
    return warnings


async def _take_over(commons: Commons, keys: LoadedKeys) -> list[str]:
    """The keys of API_KEY, as they are known from now on."""
    adopted = await commons.key_book.adopt(keys.keys)
    warnings = [
        f"key {number} of API_KEY was revoked while the server ran, and stays so; 'qwen-proxy keys restore {key.id}'"
        for number, key in enumerate(adopted.listed, 1)
        if key.record.revoked_at is not None
    ]
    return warnings + [f"{key.name} is not in API_KEY any more, and does not work" for key in adopted.dropped]


def _worker_command(upstream: str, folder: Path | None, local: Local, *, is_simulated: bool) -> tuple[str, ...]:
    simulated = ("--simulated",) if is_simulated else ()
    told = () if folder is None else ("--folder", str(folder))
    model = ("--local", local.address) if local.address else ()
    return (*WORKER_COMMAND, "--upstream", upstream, *simulated, *told, *model)


async def _leave_simulator(commons: Commons, leave: Callable[[], None]) -> None:
    """Wait until somebody adds an account, a batch of them, or a backend; the simulated one goes then."""
    added = asyncio.Event()

    def look(records: Sequence[Record], gone: Sequence[str]) -> None:
        if any(record.id != DEMO for record in records):
            added.set()

    commons.watch.subscribe(ACCOUNT, look)
    commons.watch.subscribe(BATCH, look)
    commons.watch.subscribe(BACKEND, look)
    await commons.watch.load()
    async with Tasks() as tasks:
        tasks.spawn(commons.watch.run(), name="watch")
        await added.wait()
    await commons.book.remove(DEMO)
    leave()


def _listen(settings: Settings) -> list[socket.socket]:
    host, port = settings.host, settings.port
    try:
        return listen(host, port, settings.workers or processors())
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise WrongSetting("SERVICE_PORT", str(port), f"a free port ({host}:{port} is taken)") from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise WrongSetting("SERVICE_PORT", str(port), "a port this user may listen on, such as 3000") from error
        raise WrongSetting("LISTEN_ADDRESS", host, f"an address of this machine ({error.strerror})") from error


def _check_log_folder(folder: Path) -> None:
    try:
        check_folder(folder)
    except OSError as error:
        raise WrongSetting("LOG_DIR", str(folder), f"a folder that can be written ({error.strerror})") from error


def _welcome(
    settings: Settings, keys: LoadedKeys, address: tuple[str, int], workers: int, destination: Destination
) -> Sequence[str]:
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    processes = "1 worker" if workers == 1 else f"{workers} workers"
    lines = [f"Qwen-Proxy {qwen_proxy.__version__} serves OpenAI's API at http://{host}:{address[1]}/v1 ({processes})"]
    if destination.is_simulated:
        lines.append("No account is configured: the built-in simulated upstream answers, and no real model.")
        lines.append("Put ACCOUNTS=email:password into .env for your own; 'qwen-proxy doctor' says what works.")
        lines.append("Or an API key, such as MODEL_STUDIO_API_KEY=sk-..., or OLLAMA_BASE_URL=http://127.0.0.1:11434.")
        lines.append("Or a model in a file: pip install 'qwen-proxy[local]' and LOCAL_MODEL_PATH=model.gguf.")
    if settings.save_mode is SaveMode.NONE:
        lines.append("DATA_SAVE_MODE=none: what is added while the server runs is gone when it ends.")
    elif (settings.data_dir / ORIGINAL_DATA).is_file() and destination.is_simulated:
        lines.append(f"'qwen-proxy migrate {settings.data_dir / ORIGINAL_DATA}' takes over the original's accounts.")
    if keys.file is not None:
        made = "was made and is" if keys.created else "is"
        lines.append(f"The admin key {made} in {keys.file}; 'qwen-proxy key' shows it.")
    return lines


# --- a worker ----------------------------------------------------------------------------------------------


def work(environ: Mapping[str, str], handed: Handed) -> None:
    """Be one worker process until the supervisor retires it. `.env` is in what the supervisor has handed on."""
    settings = load(environ, None)
    if handed.is_simulated:
        settings = on_loopback(settings)
    with Logs(log_options(settings, f"worker-{handed.slot}", sys.stderr)):
        run(_work(settings, handed, handed_local(settings, handed.local, environ)))


async def _work(settings: Settings, handed: Handed, local: Sequence[BackendSpec]) -> None:
    machine = Machine()
    place = worker_place(settings, handed.folder, machine.ids)

    async def serve(host: WorkerHost) -> None:
        async with (
            open_commons(place, machine) as commons,
            open_door(settings, handed.upstream, machine, is_simulated=handed.is_simulated) as door,
        ):
            live = live_settings(settings, commons)
            async with (
                open_backends(live, commons, machine, chat_base_url=door.base_url, local=local) as others,
                open_pool(live, door, machine, commons) as pool,
                Tasks() as tasks,
            ):
                tasks.spawn(_tell_drift(host, door, machine.clock), name="drift")
                await _serve(live, commons, door, pool, others, host, machine)

    await run_worker(handed.slot, handed.channel, handed.listener, serve, drain_seconds=settings.drain_seconds)


async def _serve(
    live: LiveSettings,
    commons: Commons,
    door: Door,
    pool: AccountPool,
    others: ApiBackends,
    host: WorkerHost,
    machine: Machine,
) -> None:
    async def drift() -> Sequence[DriftBody]:
        _report_drift(host, door)  # our own latest; the channel keeps the order
        survey = await host.line.survey()
        return [DriftBody(kind=each.kind, name=each.name, count=each.count) for each in survey.drift]

    async def workers() -> Sequence[WorkerBody]:
        survey = await host.line.survey()
        return [
            WorkerBody(
                slot=each.slot,
                pid=each.pid,
                state=each.state,
                uptime_seconds=round(each.uptime_seconds, 1),
                memory_bytes=each.memory_bytes,
            )
            for each in survey.workers
        ]

    async with open_service(
        live, commons, door, pool, others, host.listener, machine, drift=drift, workers=workers
    ) as server:
        # What has been made by now stays: it need not be looked through for garbage again and again. And a request
        # makes about two hundred objects that live as long as it does: the usual thresholds find them all alive.
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 50)
        host.ready()
        await host.retired.wait()
        await server.drain(host.drain_seconds)


def _report_drift(host: WorkerHost, door: Door) -> None:
    notes = door.drift.snapshot()
    host.report_drift(
        DriftCount(kind=note.kind, name=note.name, count=note.count, first_at=note.first_at) for note in notes
    )


async def _tell_drift(host: WorkerHost, door: Door, clock: Clock) -> None:
    told = 0
    while True:
        await clock.sleep(DRIFT_SECONDS)
        counted = sum(note.count for note in door.drift.snapshot())
        if counted != told:
            told = counted
            _report_drift(host, door)


# --- the simulated upstream --------------------------------------------------------------------------------


async def simulate(host: str, port: int, pause_seconds: float, started: Callable[[str], None]) -> None:
    """Play chat.qwen.ai until SIGTERM or SIGINT; `started` gets the address."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    async with Simulator(Scenario(pause_seconds=pause_seconds), host=host, port=port) as simulator:
        started(simulator.base_url)
        await ended.wait()
