"""Lists of models of OpenAI-compatible servers."""

import msgspec
import pytest

from qwen_proxy.chat.models import Model
from qwen_proxy.upstreams.openai_api.listing import named, read_models


def test_sizes_are_read_where_each_server_tells_them() -> None:
    listed = [
        {"id": "vllm", "object": "model", "created": 5, "max_model_len": 8192},
        {"id": "llama", "meta": {"n_ctx": 2048, "n_ctx_train": 32768}},
        {"id": "llama-idle", "meta": {"n_ctx_train": 32768}},
        {
            "id": "qwen/qwen3.7-plus",
            "name": "Qwen: Qwen3.7 Plus",
            "description": "d" * 600,
            "context_length": 1000000,
            "architecture": {"input_modalities": ["text", "image"]},
            "top_provider": {"max_completion_tokens": 65536},
        },
        {"id": "vllm", "max_model_len": 1},
        {"object": "model"},
        "odd",
    ]
    assert read_models(msgspec.json.encode({"object": "list", "data": listed})) == [
        Model(id="vllm", display_name="vllm", created_at=5, context_tokens=8192),
        Model(id="llama", display_name="llama", context_tokens=2048),
        Model(id="llama-idle", display_name="llama-idle", context_tokens=32768),
        Model(
            id="qwen/qwen3.7-plus",
            display_name="Qwen: Qwen3.7 Plus",
            description="d" * 500,
            sees_images=True,
            context_tokens=1000000,
            output_tokens=65536,
        ),
    ]


def test_a_bare_list_is_one_too() -> None:
    assert read_models(b'[{"id": "a", "created": true, "max_model_len": -1}]') == named(["a"])


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"data": 5}', b"[" * 5000, b'"x"'])
def test_anything_else_is_none(body: bytes) -> None:
    assert read_models(body) is None
