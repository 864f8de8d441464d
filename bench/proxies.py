"""The programs of a run: the upstream, and the proxies that are compared. Each is entered with `with`."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

KEY = "sk-bench-0123456789abcdef0123456789abcdef"
"""Long and of its own, so that no check for sample keys applies."""

_NGINX = """
daemon off; worker_processes 1; pid {home}/nginx.pid; error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
  access_log off; default_type application/octet-stream;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  upstream site {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024; keepalive_requests 1000000; keepalive_timeout 300s;
    location = /v1/chat/completions {{
      proxy_pass http://site{target};
      proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; proxy_read_timeout 300s;
    }}
  }}
}}
"""


class Door(Enum):
    """What the upstream plays."""

    SITE = "site"  # chat.qwen.ai
    API = "api"  # a server that speaks OpenAI's chat completions

    @property
    def target(self) -> str:
        """Where the upstream takes a completion."""
        return "/v1/chat/completions" if self is Door.API else "/api/v2/chat/completions?chat_id=bench"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_answering(port: int, path: str) -> bool:
    """Whether something speaks HTTP there; with a path, whether it says 200."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2):
            return True
    except urllib.error.HTTPError:
        return not path
    except OSError:
        return False


@contextmanager
def running(
    command: Sequence[str], *, core: int, ready: tuple[int, str], home: Path, environment: Mapping[str, str]
) -> Iterator[int]:
    """Start a program on a core, wait until `ready` (port, path) answers, hand out its pid, end it politely.

    Its output goes to a file in `home`, named in the error if it does not start within 30 seconds.
    """
    log = home / f"{Path(command[0]).name}-{ready[0]}.log"
    own = os.sched_getaffinity(0)
    with log.open("wb") as output:
        # A child inherits the affinity of its parent, and hands it on to its own children.
        os.sched_setaffinity(0, {core})
        try:
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=home,
                env=dict(environment),
                process_group=0,
            )
        finally:
            os.sched_setaffinity(0, own)
    try:
        give_up_at = time.monotonic() + 30
        while not is_answering(*ready):
            if process.poll() is not None or time.monotonic() > give_up_at:
                raise SystemExit(f"{command[0]} did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Programs:
    """How to start each, given the place of this run."""

    def __init__(
        self,
        checkout: Path,
        home: Path,
        proxy_core: int,
        load_core: int,
        *,
        product: Sequence[str],
        profile: Path | None = None,
    ) -> None:
        """`product`: its command. `profile`: where the proxies in Python leave their stacks (bench/sampling), if so."""
        self._product_command = list(product)
        self._checkout = checkout
        self._home = home
        self._proxy_core = proxy_core
        self._load_core = load_core
        self._environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(home), "PYTHONPATH": str(checkout)}
        self._sampling: dict[str, str] = {}
        if profile is not None:
            path = f"{checkout / 'bench' / 'sampling'}:{checkout}"
            self._sampling = {"PYTHONPATH": path, "BENCH_PROFILE_DIRECTORY": str(profile)}

    @contextmanager
    def upstream(self, port: int) -> Iterator[int]:
        command = [sys.executable, "-m", "bench.upstream", "--port", str(port)]
        with running(
            command, core=self._load_core, ready=(port, "/bench/counts"), home=self._home, environment=self._environment
        ) as pid:
            yield pid

    @contextmanager
    def proxy(self, name: str, door: Door, port: int, upstream_port: int) -> Iterator[int]:
        """One of `nginx`, `bare` (for the site only), `product`."""
        start = {"nginx": self._nginx, "bare": self._bare, "product": self._product}[name]
        command, path, environment = start(door, port, upstream_port)
        with running(
            command,
            core=self._proxy_core,
            ready=(port, path),
            home=self._home,
            environment=environment | self._sampling,
        ) as pid:
            yield pid

    def load(self, task: str) -> str:
        """Run one measurement on the load's core; its result as JSON."""
        own = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {self._load_core})
        try:
            return subprocess.run(
                [sys.executable, "-m", "bench.load", task],
                cwd=self._checkout, env=self._environment, check=True, stdout=subprocess.PIPE, text=True, timeout=180,
            ).stdout  # fmt: skip
        finally:
            os.sched_setaffinity(0, own)

    def _nginx(self, door: Door, port: int, upstream_port: int) -> tuple[list[str], str, dict[str, str]]:
        program = nginx()
        assert program is not None
        configuration = self._home / f"nginx-{port}.conf"
        configuration.write_text(_NGINX.format(home=self._home, port=port, upstream=upstream_port, target=door.target))
        return [program, "-p", str(self._home), "-c", str(configuration)], "", self._environment

    def _bare(self, door: Door, port: int, upstream_port: int) -> tuple[list[str], str, dict[str, str]]:
        upstream = f"http://127.0.0.1:{upstream_port}"
        command = [sys.executable, "-m", "bench.bare", "--port", str(port), "--upstream", upstream]
        return command, "", self._environment

    def _product(self, door: Door, port: int, upstream_port: int) -> tuple[list[str], str, dict[str, str]]:
        upstream = f"http://127.0.0.1:{upstream_port}"
        backends = [{"name": "bench", "base_url": f"{upstream}/v1", "key": KEY}]
        environment = self._environment | {
            "LISTEN_ADDRESS": "127.0.0.1", "SERVICE_PORT": str(port), "PM2_INSTANCES": "1", "API_KEY": KEY,
            "LOG_LEVEL": "INFO", "DATA_DIR": str(self._home / f"data-{port}"),
        } | ({
            "ACCOUNTS": "bench@example.com:password", "ACCOUNT_CONCURRENCY": "0", "QWEN_CHAT_PROXY_URL": upstream,
        } if door is Door.SITE else {"BACKENDS": json.dumps(backends)})  # fmt: skip
        return self._product_command, "/readyz", environment


def nginx() -> str | None:
    """Where nginx is, None where it is not."""
    return shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def install_nginx() -> None:
    """Debian's package; as root."""
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "nginx-light"], check=True)
