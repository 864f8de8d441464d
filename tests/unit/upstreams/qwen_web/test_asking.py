"""Our request as the site's bodies."""

import re

import msgspec
import pytest

from qwen_proxy.chat.models import PLAIN, Mode, Model, ModelName, Variant
from qwen_proxy.chat.request import (
    ChatRequest,
    FilePart,
    ImagePart,
    Message,
    Part,
    Reasoning,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from qwen_proxy.chat.transcript import render
from qwen_proxy.ground.errors import PromptTooLong, UnsupportedParameter
from qwen_proxy.upstreams.qwen_web.asking import (
    chat_type,
    check_size,
    encode_completion,
    encode_new_chat,
    features,
    refuse_attachments,
    surely_fits,
)

MODEL = Model(id="qwen3.7-plus", display_name="Qwen3.7-Plus", thinks=True)
STUBBORN = Model(id="qwen3.8-max", display_name="Qwen3.8-Max", thinks=True, can_skip_thinking=False)
FAST = {
    "thinking_enabled": False,
    "output_schema": "phase",
    "research_mode": "normal",
    "auto_thinking": False,
    "thinking_mode": "Fast",
    "auto_search": False,
}
THINKING = FAST | {"thinking_enabled": True, "thinking_mode": "Thinking", "thinking_format": "summary"}


def request(variant: Variant = PLAIN, reasoning: Reasoning | None = None) -> ChatRequest:
    return ChatRequest(
        model=ModelName("qwen3.7-plus", variant),
        messages=(Message(Role.USER, (TextPart("Hi"),)),),
        reasoning=reasoning or Reasoning(),
    )


@pytest.mark.parametrize(
    ("variant", "word"),
    [
        (PLAIN, "t2t"),
        (Variant(search=True), "search"),
        (Variant(mode=Mode.IMAGE), "t2i"),
        (Variant(mode=Mode.IMAGE, search=True), "t2i"),
        (Variant(mode=Mode.IMAGE_EDIT), "image_edit"),
        (Variant(mode=Mode.DEEP_RESEARCH), "deep_research"),
    ],
)
def test_modes(variant: Variant, word: str) -> None:
    assert chat_type(request(variant)) == word


def test_a_video_is_not_asked_for_in_a_chat() -> None:
    with pytest.raises(UnsupportedParameter):
        chat_type(request(Variant(mode=Mode.VIDEO)))


@pytest.mark.parametrize(
    ("asked", "model", "gear"),
    [
        (request(), MODEL, FAST),
        (request(Variant(thinking=True)), MODEL, THINKING),
        (request(reasoning=Reasoning(enabled=True, budget_tokens=500)), MODEL, THINKING | {"thinking_budget": 500}),
        (request(Variant(thinking=True), Reasoning(enabled=False)), MODEL, FAST),
        (request(), STUBBORN, THINKING),
        (request(reasoning=Reasoning(enabled=False)), STUBBORN, THINKING),
        (request(Variant(thinking=True, mode=Mode.IMAGE)), MODEL, FAST),
    ],
)
def test_gears(asked: ChatRequest, model: Model, gear: dict[str, object]) -> None:
    assert msgspec.json.decode(msgspec.json.encode(features(asked, model))) == gear


def test_a_new_chat_has_the_front_ends_form() -> None:
    assert msgspec.json.decode(encode_new_chat("m", "t2t", 1790000000.5)) == {
        "chatId": "",
        "models": ["m"],
        "project_id": "",
        "timestamp": 1790000000500,
        "chat_type": "t2t",
        "chat_mode": "normal",
    }


def test_a_completion_has_the_front_ends_form() -> None:
    body = encode_completion(
        "Name the capital.", model_id="m", mode="search", gear=features(request(), MODEL), chat_id="c", ids=("f", "k"),
        now=1790000000.5,
    )  # fmt: skip
    assert msgspec.json.decode(body) == {
        "stream": True,
        "version": "2.1",
        "incremental_output": True,
        "chatId": "c",
        "chat_id": "c",
        "parentId": "",
        "parent_id": None,
        "chat_mode": "normal",
        "model": "m",
        "messages": [
            {
                "id": None,
                "fid": "f",
                "parentId": None,
                "parent_id": None,
                "childrenIds": ["k"],
                "role": "user",
                "content": "Name the capital.",
                "user_action": "chat",
                "files": [],
                "timestamp": 1790000000,
                "models": ["m"],
                "model": "",
                "chat_type": "search",
                "sub_chat_type": "search",
                "feature_config": FAST,
                "extra": {"meta": {"subChatType": "search"}},
            }
        ],
        "timestamp": 1790000000,
    }


@pytest.mark.parametrize("character", ["x", "\u4e2d", "\n", "\U0001f5fc"])
def test_a_prompt_that_passes_the_check_makes_a_body_within_the_limit(character: str) -> None:
    limit, prompt = 10_000, ""
    while True:
        try:
            check_size(prompt + character * 50, limit)
        except PromptTooLong as error:
            assert "10000 maximum" in str(error) and "bytes" in str(error)
            break
        prompt += character * 50
    body = encode_completion(
        prompt, model_id="m" * 64, mode="deep_research", gear=features(request(), STUBBORN), chat_id="c" * 36,
        ids=("f" * 36, "k" * 36), now=1e10,
    )  # fmt: skip
    assert len(prompt) > 500
    assert len(body) <= limit


@pytest.mark.parametrize(
    ("parts", "fits"),
    [
        ((TextPart("x" * 19_000),), True),
        ((TextPart("x" * 20_000),), False),  # it may: a closer look will tell
        ((TextPart("x" * 10_000), TextPart("x" * 10_000)), False),
        ((ToolCallPart("1", "f", "{}"),), False),
    ],
)
def test_a_quick_look_never_says_that_too_much_fits(parts: tuple[Part, ...], fits: bool) -> None:
    messages = (Message(Role.USER, parts),)
    assert surely_fits(messages, 120 * 1024) is fits
    if fits:
        check_size(render(messages), 120 * 1024)


@pytest.mark.parametrize(
    ("part", "param"),
    [
        (ImagePart("https://x.example/a.png", place="input[3].content[1]"), "input[3].content[1]"),
        (FilePart("document", "https://x.example/a.pdf"), "messages"),
    ],
)
def test_an_attachment_is_refused_by_its_place_in_the_clients_body(part: Part, param: str) -> None:
    said = Message(Role.USER, (TextPart("look"),))
    refuse_attachments([said, Message(Role.USER, (ToolResultPart("c1", (ImagePart("data:,"),)),))])
    with pytest.raises(UnsupportedParameter, match=re.escape(f"{param}: this upstream takes no images")) as refused:
        refuse_attachments([said, Message(Role.USER, (TextPart("look"), part))])
    assert refused.value.param == param
