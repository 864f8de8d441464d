"""Backends as an operator describes them."""

from pathlib import Path

import msgspec
import pytest

from qwen_proxy.config.backend_settings import environment_backends
from qwen_proxy.config.backends import (
    PRESETS,
    BackendForm,
    BackendSpec,
    ServerKind,
    Thinking,
    WrongBackend,
    read_forms,
    spec_of,
)
from qwen_proxy.config.settings import WrongSetting, load
from qwen_proxy.ground.secret import Secret

BASE = "https://api.example.com/v1"


@pytest.mark.parametrize(
    ("variable", "name", "base_url"),
    [
        ("MODEL_STUDIO_API_KEY", "model-studio", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"),
        ("MODEL_STUDIO_CN_API_KEY", "model-studio-cn", "https://dashscope.aliyuncs.com/compatible-mode/v1"),
        ("CODING_PLAN_API_KEY", "coding-plan", "https://coding-intl.dashscope.aliyuncs.com/v1"),
        ("CODING_PLAN_CN_API_KEY", "coding-plan-cn", "https://coding.dashscope.aliyuncs.com/v1"),
        (
            "TOKEN_PLAN_API_KEY",
            "token-plan",
            "https://token-plan.ap-southeast-1.maas.aliyuncs.com/compatible-mode/v1",
        ),
        (
            "TOKEN_PLAN_CN_API_KEY",
            "token-plan-cn",
            "https://token-plan.cn-beijing.maas.aliyuncs.com/compatible-mode/v1",
        ),
        ("MODELSCOPE_API_KEY", "modelscope", "https://api-inference.modelscope.cn/v1"),
        ("OPENROUTER_API_KEY", "openrouter", "https://openrouter.ai/api/v1"),
    ],
)
def test_one_variable_sets_an_offer_up(variable: str, name: str, base_url: str) -> None:
    (spec,) = environment_backends(load({variable: "sk-1, sk-2,sk-1"}, None))
    assert (spec.name, spec.base_url, spec.kind, spec.preset) == (name, base_url, ServerKind.API, name)
    assert [key.reveal() for key in spec.keys] == ["sk-1", "sk-2"]


@pytest.mark.parametrize(
    ("variable", "name", "thinking"),
    [
        ("VLLM_BASE_URL", "vllm", Thinking.TEMPLATE),
        ("OLLAMA_BASE_URL", "ollama", Thinking.EFFORT),
        ("LLAMA_CPP_BASE_URL", "llama-cpp", Thinking.TEMPLATE),
    ],
)
@pytest.mark.parametrize("given", ["http://gpu:8000", "http://gpu:8000/", "http://gpu:8000/v1"])
def test_a_local_server_needs_only_its_address(variable: str, name: str, thinking: Thinking, given: str) -> None:
    (spec,) = environment_backends(load({variable: given}, None))
    assert spec == BackendSpec(
        name=name, base_url="http://gpu:8000/v1", kind=ServerKind.LOCAL, thinking=thinking, preset=name
    )


def test_any_other_server_and_the_full_form(tmp_path: Path) -> None:
    forms = [
        {"preset": "openrouter", "name": "router", "key": "sk-or", "prefix": "or/", "headers": {"X-Title": "t"}},
        {"name": "lab", "base_url": BASE, "kind": "local", "models": ["a"], "concurrency": 2, "enabled": False},
    ]
    file = tmp_path / "backends.json"
    file.write_bytes(msgspec.json.encode(forms))
    other = {"OPENAI_COMPATIBLE_BASE_URL": f"{BASE}/chat/completions|sk-x"}
    specs = environment_backends(load({"BACKENDS": str(file)} | other, None))
    assert specs == environment_backends(load({"BACKENDS": file.read_text()} | other, None))
    router, lab, any_server = specs
    assert (router.name, router.prefix, router.thinking) == ("router", "or/", Thinking.OPENROUTER)
    assert router.headers == (("X-Title", Secret("t")),)
    assert (lab.kind, lab.models, lab.concurrency, lab.enabled) == (ServerKind.LOCAL, ("a",), 2, False)
    assert (any_server.name, any_server.base_url) == ("openai-compatible", BASE)


def test_of_two_with_one_name_the_full_form_holds() -> None:
    form = msgspec.json.encode({"name": "ollama", "base_url": BASE}).decode()
    (spec,) = environment_backends(load({"BACKENDS": form, "OLLAMA_BASE_URL": "http://x"}, None))
    assert spec.base_url == BASE


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({}, "name"),
        ({"name": "Big", "base_url": BASE}, "name"),
        ({"name": "web", "base_url": BASE}, "name"),
        ({"name": "x"}, "base_url"),
        ({"name": "x", "base_url": "ftp://x"}, "base_url"),
        ({"name": "x", "preset": "nope"}, "preset"),
        ({"preset": "openrouter"}, "keys"),
        ({"preset": "openrouter", "key": "a", "keys": ["b"]}, "keys"),
        ({"name": "x", "base_url": BASE, "key": "a b"}, "keys"),
        ({"name": "x", "base_url": BASE, "exit": "nope"}, "exit"),
        ({"name": "x", "base_url": BASE, "prefix": "a b"}, "prefix"),
        ({"name": "x", "base_url": BASE, "models": [""]}, "models"),
        ({"name": "x", "base_url": BASE, "headers": {"Host": "x"}}, "headers"),
        ({"name": "x", "base_url": BASE, "headers": {"X": "a\nb"}}, "headers"),
        ({"name": "x", "base_url": BASE, "concurrency": -1}, "concurrency"),
        ({"name": "x", "base_url": BASE, "colour": "red"}, "BACKENDS"),
        ("x", "BACKENDS"),
    ],
)
def test_what_is_wrong_is_named(form: object, field: str) -> None:
    with pytest.raises(WrongBackend) as wrong:
        read_forms(msgspec.json.encode([form]))
    assert wrong.value.field == field


def test_two_with_one_name_are_refused() -> None:
    form = {"name": "x", "base_url": BASE}
    with pytest.raises(WrongBackend, match="two backends"):
        read_forms(msgspec.json.encode([form, form]))


def test_a_change_keeps_what_it_does_not_name() -> None:
    before = spec_of(BackendForm(preset="openrouter", key="sk-1", prefix="or/"))
    after = spec_of(BackendForm(models=("a",)), before)
    assert msgspec.structs.replace(before, models=("a",)) == after
    other = spec_of(BackendForm(preset="model-studio"), before)
    assert (other.name, other.keys, other.base_url) == ("openrouter", before.keys, PRESETS["model-studio"].base_url)
    with pytest.raises(WrongBackend, match="keeps its name"):
        spec_of(BackendForm(name="new"), before)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BACKENDS", "/does/not/exist.json"),
        ("BACKENDS", '[{"name": "x"}]'),
        ("OLLAMA_BASE_URL", "gpu"),
        ("OPENROUTER_API_KEY", "sk 1"),
        ("OPENAI_COMPATIBLE_BASE_URL", "x|sk-secret-1234"),
    ],
)
def test_a_wrong_variable_stops_the_start_and_shows_no_secret(variable: str, value: str) -> None:
    with pytest.raises(WrongSetting) as wrong:
        load({variable: value}, None)
    assert wrong.value.variable == variable and "sk-secret-1234" not in str(wrong.value)


def test_a_form_prints_no_key() -> None:
    assert "sk-1" not in repr(BackendForm(name="x", key="sk-1"))
