"""LOCAL_MODEL_PATH: what is checked, what is run, and what a worker makes of it."""

import sys
from pathlib import Path

import msgspec
import pytest

from qwen_proxy.app.commons import open_commons
from qwen_proxy.app.machine import Machine
from qwen_proxy.config.backends import ServerKind
from qwen_proxy.config.settings import Settings, WrongSetting, load
from qwen_proxy.operations.local_model import KEY_VARIABLE, check_local, handed_local, model_id, open_local
from qwen_proxy.operations.places import memory_place
from qwen_proxy.operations.upstream import open_destination
from tests.support import fake_llama

INSTALLED = "msgspec"  # stands for the package that runs models


def settings(folder: Path, **variables: str) -> Settings:
    path = folder / "Qwen3 0.6B-Q4_K_M.gguf"
    path.write_bytes(b"GGUF\x03\x00\x00\x00")
    return load({"LOCAL_MODEL_PATH": str(path)} | variables, None)


def command(manner: str, folder: Path) -> tuple[str, ...]:
    return (sys.executable, str(Path(fake_llama.__file__)), manner, str(folder))


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "there is none"), (b"GGML", "something else"), (b"", "something else")]
)
def test_a_path_that_leads_to_no_model(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "m.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WrongSetting, match=f"LOCAL_MODEL_PATH=.*m.gguf.* the path of a GGUF file.*{problem}"):
        load({"LOCAL_MODEL_PATH": str(path)}, None)


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(WrongSetting, match="that can be read"):
        load({"LOCAL_MODEL_PATH": str(tmp_path)}, None)


def test_without_the_extra_the_start_stops_with_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(WrongSetting, match=r"LOCAL_MODEL_PATH=.*pip install 'qwen-proxy\[local\]'"):
        check_local(settings(tmp_path), "no_such_package_here")
    check_local(settings(tmp_path), INSTALLED)
    check_local(load({}, None), "no_such_package_here")


def test_its_name_can_t_be_another_backend_s(tmp_path: Path) -> None:
    other = '{"name": "local", "base_url": "http://127.0.0.1:1/v1"}'
    with pytest.raises(WrongSetting, match="another backend 'local'"):
        check_local(settings(tmp_path, BACKENDS=other), INSTALLED)


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("qwen3-8b-q4_k_m.gguf", "qwen3-8b-q4_k_m"),
        ("Big-00001-of-00003.gguf", "Big"),
        ("my model, (v1.5).gguf", "my-model-v1.5"),
        ("模型.gguf", "local"),
    ],
)
def test_the_model_is_named_as_its_file(name: str, id: str) -> None:
    assert model_id(Path("/models") / name) == id


async def test_what_runs_is_what_the_workers_are_told_of(tmp_path: Path) -> None:
    given = settings(tmp_path, LOCAL_CONTEXT_TOKENS="1024", LOCAL_THREADS="3")
    told: list[str] = []
    async with open_local(given, Machine(), told.append, command("well", tmp_path)) as local:
        (spec,) = handed_local(given, local.address, local.handed_on)
        started = msgspec.json.decode((tmp_path / "starts").read_bytes())
    assert started == {
        "path": str(given.local_model),
        "model": "Qwen3-0.6B-Q4_K_M",
        "key": spec.keys[0].reveal(),
        "port": 0,
        "context_tokens": 1024,
        "slots": 2,
        "threads": 3,
    }
    assert len(spec.keys[0].reveal()) == 48 and list(local.handed_on) == [KEY_VARIABLE]
    assert (spec.name, spec.kind, spec.base_url) == ("local", ServerKind.LOCAL, f"{local.address}/v1")
    assert spec.models == ("Qwen3-0.6B-Q4_K_M",) and spec.concurrency == 2
    assert spec.keys[0].reveal() not in "".join(told) and "Qwen3-0.6B-Q4_K_M" in told[-1]


async def test_a_model_that_can_t_be_loaded_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(WrongSetting, match=r"llama\.cpp can load \(model: no such architecture\)"):
        async with open_local(settings(tmp_path), Machine(), lambda line: None, command("broken", tmp_path)):
            pass


async def test_nothing_runs_where_none_is_named() -> None:
    async with open_local(load({}, None), Machine(), lambda line: None, ("/nowhere",)) as local:
        assert not local.address and not local.handed_on
    assert handed_local(load({}, None), "", {}) == ()


async def test_with_a_local_model_nothing_is_simulated(tmp_path: Path) -> None:
    machine = Machine()
    async with open_commons(memory_place(machine.ids), machine) as commons:
        async with open_destination(settings(tmp_path), commons, machine) as destination:
            assert not destination.is_simulated
