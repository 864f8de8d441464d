"""The gateway under test: the real program, over its built-in simulated upstream."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

START_SECONDS = 30


class Gateway(NamedTuple):
    """`url` has no path behind it."""

    url: str
    key: str
    model: str

    def models(self) -> list[str]:
        request = urllib.request.Request(f"{self.url}/v1/models", headers={"Authorization": f"Bearer {self.key}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return [entry["id"] for entry in json.load(answer)["data"]]


@contextmanager
def running_gateway(folder: Path) -> Generator[Gateway]:
    """Started on a free port of loopback with data of its own, and ended by the id that it was started with."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    key = "sk-clients-" + secrets.token_hex(16)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "API_KEY": key,
        "LISTEN_ADDRESS": "127.0.0.1",
        "SERVICE_PORT": str(port),
        "DATA_DIR": str(folder / "data"),
        "SIMULATOR": "always",
    }
    with (folder / "gateway.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "qwen_proxy", "serve"], cwd=folder, env=environment, stdout=log, stderr=log
        )
        try:
            gateway = Gateway(f"http://127.0.0.1:{port}", key, "")
            yield gateway._replace(model=_await_models(process, gateway)[0])
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


def _await_models(process: subprocess.Popen[bytes], gateway: Gateway) -> list[str]:
    for _ in range(START_SECONDS * 10):
        if process.poll() is not None:
            break
        try:
            return gateway.models()
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the gateway did not start; see its log")
