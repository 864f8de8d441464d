"""The site's list as our models."""

import json
from importlib import resources

import pytest

from qwen_proxy.chat.models import Mode, Model
from qwen_proxy.upstreams.qwen_web.listing import read_models

ENTRY = {
    "id": "qwen3.8-max",
    "name": "Qwen3.8-Max",
    "info": {
        "is_active": True,
        "created_at": 1780000000,
        "meta": {
            "short_description": "Flagship.",
            "capabilities": {"vision": True, "thinking": True},
            "abilities": {"thinking": 3},
            "max_context_length": 1000000,
            "max_summary_generation_length": 131072,
            "chat_type": ["t2t", "t2v", "t2i", "image_edit", "search", "deep_research"],
            "think_skip": {"enable": False},
        },
    },
}
MODEL = Model(
    id="qwen3.8-max",
    display_name="Qwen3.8-Max",
    description="Flagship.",
    created_at=1780000000,
    thinks=True,
    can_skip_thinking=False,
    searches=True,
    sees_images=True,
    modes=frozenset((Mode.CHAT, Mode.VIDEO, Mode.IMAGE, Mode.IMAGE_EDIT, Mode.DEEP_RESEARCH)),
    context_tokens=1000000,
    output_tokens=131072,
)


@pytest.mark.parametrize("value", [[ENTRY], {"data": [ENTRY]}, {"success": True, "data": {"data": [ENTRY]}}])
def test_every_envelope(value: object) -> None:
    assert read_models(json.dumps(value).encode()) == [MODEL]


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"success": false, "data": {"code": "x"}}', b'{"data": 3}'])
def test_what_is_no_list(body: bytes) -> None:
    assert read_models(body) is None


def test_an_empty_list() -> None:
    assert read_models(b'{"data": []}') == []


def test_inactive_and_nameless_entries_go_and_those_without_meta_stay() -> None:
    entries = [{"id": "a"}, {"id": "b", "info": {"is_active": False}}, {}, 3, {"id": "c", "info": None, "name": 7}]
    assert read_models(json.dumps(entries).encode()) == [
        Model(id="a", display_name="a"),
        Model(id="c", display_name="c"),
    ]


def test_an_id_is_listed_once_in_the_order_of_the_list() -> None:
    found = read_models(b'[{"id": "a", "name": "A"}, {"id": "b"}, {"id": "a", "name": "again"}]')
    assert [(model.id, model.display_name) for model in found or ()] == [("a", "A"), ("b", "b")]


def test_the_simulated_list_is_read() -> None:
    text = resources.files("qwen_proxy.simulator").joinpath("models.json").read_bytes()
    assert len(read_models(text) or ()) >= 5
