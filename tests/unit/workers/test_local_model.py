"""The process of a local model: started, kept, ended."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.workers import local_model
from qwen_proxy.workers.llama_server import LlamaOptions
from qwen_proxy.workers.local_model import ModelNotLoaded, Pauses, open_local_model
from tests.support import fake_llama
from tests.support.waiting import until

OPTIONS = LlamaOptions(path="m.gguf", model="m", key="sk-secret", context_tokens=512, slots=2, threads=1)
QUICK = Pauses(first=0.01, last=0.05)


def command(manner: str, folder: Path) -> tuple[str, ...]:
    return (sys.executable, str(Path(fake_llama.__file__)), manner, str(folder))


async def reach(address: str) -> None:
    split = urlsplit(address)
    _, writer = await asyncio.open_connection(split.hostname, split.port)
    writer.close()
    await writer.wait_closed()


async def test_it_answers_while_the_block_lasts_and_is_gone_after_it(tmp_path: Path) -> None:
    async with open_local_model(OPTIONS, SystemClock(), command("well", tmp_path)) as model:
        await reach(model.address)
        pid = model.pid
        assert psutil.Process(pid).ppid() == os.getpid()
        assert "sk-secret" not in " ".join(psutil.Process(pid).cmdline())
    assert not psutil.pid_exists(pid)
    with pytest.raises(ConnectionRefusedError):
        await reach(model.address)


async def test_one_that_dies_is_started_again_at_the_same_address(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_local_model(OPTIONS, SystemClock(), command("well", tmp_path), QUICK) as model:
        address, pid = model.address, model.pid
        (tmp_path / "broken").touch()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: "can't be started" in caplog.text, 20)
        (tmp_path / "broken").unlink()
        starts = (tmp_path / "starts").read_bytes().count(b"\n")
        await until(lambda: "answers again" in caplog.text or model.pid not in (0, pid), 20)
        await until(lambda: _is_listening(model.pid), 20)
        assert model.address == address and (tmp_path / "starts").read_bytes().count(b"\n") > starts >= 2
        await reach(address)
        last = model.pid
    assert not psutil.pid_exists(last)
    reasons = {record.__dict__.get("reason") for record in caplog.records}
    assert "model: no such architecture" in reasons and "sk-secret" not in caplog.text
    assert {record.__dict__.get("exit_code") for record in caplog.records} >= {-signal.SIGKILL}


def _is_listening(pid: int) -> bool:
    try:
        return pid > 0 and any(each.status == psutil.CONN_LISTEN for each in psutil.Process(pid).net_connections())
    except psutil.Error:
        return False


@pytest.mark.parametrize(
    ("manner", "reason"), [("broken", "model: no such architecture"), ("silent", "it ended with exit code 4")]
)
async def test_one_that_can_t_be_loaded_tells_why(tmp_path: Path, manner: str, reason: str) -> None:
    with pytest.raises(ModelNotLoaded, match=reason):
        async with open_local_model(OPTIONS, SystemClock(), command(manner, tmp_path)):
            pass


async def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelNotLoaded, match="No such file"):
        async with open_local_model(OPTIONS, SystemClock(), (str(tmp_path / "none"),)):
            pass


async def test_one_that_does_not_end_with_its_input_is_killed(tmp_path: Path) -> None:
    async with open_local_model(OPTIONS, SystemClock(), command("deaf", tmp_path)) as model:
        pid = model.pid
        began = SystemClock().monotonic()
    assert not psutil.pid_exists(pid)
    assert SystemClock().monotonic() - began >= local_model.END_SECONDS


def test_its_key_is_not_shown() -> None:
    assert "sk-secret" not in repr(OPTIONS)
