"""OpenAI's older completions: what is asked, what is refused, and how the reply is told."""

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from qwen_proxy.chat.events import (
    Batch,
    Finish,
    FinishReason,
    MediaKind,
    MediaOutput,
    ReasoningDelta,
    ReplyStart,
    TextDelta,
    Usage,
)
from qwen_proxy.chat.request import Message, Role, TextPart
from qwen_proxy.chat.result import ChatResult, Folder, Said
from qwen_proxy.ground.errors import InvalidRequest, ReplyCut, UnsupportedParameter
from qwen_proxy.ground.limits import LimitFacts
from qwen_proxy.protocols.base import Incoming, ParseOptions, ReplyFacts
from qwen_proxy.protocols.openai_completions import CompletionCall, OpenAICompletions

FACTS = ReplyFacts(reply_id="r1", request_id="req_1", created_at=7, model="qwen3.7-plus")
USAGE = Usage(prompt_tokens=3, completion_tokens=4, reasoning_tokens=1)
EVENTS: Batch = [
    ReplyStart(),
    ReasoningDelta("Hm"),
    TextDelta("Good "),
    TextDelta("day"),
    MediaOutput(MediaKind.IMAGE, "https://x.example/a.png"),
    USAGE,
    Finish(FinishReason.STOP),
]
SAID = "Good day\n![image](https://x.example/a.png)\n"


def parsed(options: ParseOptions | None = None, **fields: Any) -> CompletionCall:
    body = msgspec.json.encode({"prompt": "Once", **fields})
    incoming = Incoming(path="/v1/completions", query={}, headers={}, body=body)
    return OpenAICompletions().parse(incoming, options or ParseOptions())


def folded(events: Batch) -> ChatResult:
    folder = Folder()
    folder.feed(events)
    return folder.result()


def chunks(written: bytes) -> list[Any]:
    *frames, rest = written.split(b"\n\n")
    assert rest == b""
    return [msgspec.json.decode(frame.removeprefix(b"data: ")) for frame in frames if frame != b"data: [DONE]"]


def test_a_prompt_is_what_a_user_says() -> None:
    call = parsed(model="m", max_tokens=5, stop="END", n=2, best_of=2, temperature=0.5, seed=3, user="u")
    assert call.request.messages == (Message(Role.USER, (TextPart("Once"),)),)
    assert (call.request.model.base, call.choices, call.stream) == ("m", 2, False)
    sampling = call.request.sampling
    assert (sampling.max_tokens, sampling.stop, sampling.temperature, sampling.seed) == (5, ("END",), 0.5, 3)
    assert call.ignored_fields == ("temperature", "seed", "user") and list(call.request.extra) == ["user"]
    assert parsed(prompt=["Once"], stop=["a", "b"]).request.sampling.stop == ("a", "b")
    assert parsed(prompt=["Once"]).request.messages == call.request.messages


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1], [2]]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"suffix": "the end"}, "suffix"),
        ({"logprobs": 0, "echo": True}, "logprobs"),
        ({"best_of": 3, "n": 2}, "best_of"),
    ],
)
def test_what_can_not_be_done_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(UnsupportedParameter) as refused:
        parsed(**fields)
    assert refused.value.param == param


def test_log_probabilities_are_asked_for_as_chat_does() -> None:
    def wish(**fields: Any) -> tuple[bool, int | None]:
        sampling = parsed(**fields).request.sampling
        return sampling.logprobs, sampling.top_logprobs

    assert (wish(), wish(logprobs=0), wish(logprobs=3)) == ((False, None), (True, None), (True, 3))
    with pytest.raises(InvalidRequest) as refused:
        parsed(logprobs=-1)
    assert refused.value.param == "logprobs"


def test_each_of_several_prompts_is_asked_for_itself() -> None:
    call = parsed(prompt=["a", "b", ""], n=2, max_tokens=5)
    asked = [call.request, *call.further]
    assert [each.messages for each in asked] == [(Message(Role.USER, (TextPart(text),)),) for text in ("a", "b", "")]
    assert {each.sampling.max_tokens for each in asked} == {5}
    assert (call.choices, parsed().further) == (2, ())


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a"] * 65}, "prompt"),
        ({"prompt": ["a"] * 33, "n": 4}, "n"),
    ],
)
def test_lists_of_prompts_have_bounds(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parsed(**fields)
    assert refused.value.param == param
    assert len(parsed(prompt=["a"] * 64, n=2).further) == 63


def test_choices_come_prompt_by_prompt_and_every_prompt_counts() -> None:
    call = parsed(prompt=["A", "B"], n=2, echo=True)
    results = [folded([ReplyStart(), TextDelta(f"-{text}"), USAGE, Finish(FinishReason.STOP)]) for text in "wxyz"]
    reply = msgspec.json.decode(call.result(FACTS, results))
    assert [(choice["index"], choice["text"]) for choice in reply["choices"]] == [
        (0, "A-w"),
        (1, "A-x"),
        (2, "B-y"),
        (3, "B-z"),
    ]
    assert (reply["usage"]["prompt_tokens"], reply["usage"]["completion_tokens"]) == (6, 16)
    (begun,) = chunks(call.encoder(FACTS, 2).start())
    assert (begun["choices"][0]["index"], begun["choices"][0]["text"]) == (2, "B")


def test_too_many_choices_are_refused() -> None:
    with pytest.raises(InvalidRequest) as refused:
        parsed(n=3, options=ParseOptions(max_choices=2))
    assert refused.value.param == "n"


def test_what_a_strict_server_refuses_is_known_once_the_upstream_is() -> None:
    assert parsed(top_p=0.5, options=ParseOptions(strict=True)).ignored_fields == ("top_p",)


@pytest.mark.parametrize("echo", [True, False])
def test_a_whole_reply(echo: bool) -> None:
    call = parsed(echo=echo)
    reply = msgspec.json.decode(call.result(FACTS, [folded(EVENTS)]))
    assert (reply["id"], reply["object"], reply["created"]) == ("cmpl-r1", "text_completion", 7)
    (choice,) = reply["choices"]
    assert choice == {"index": 0, "text": ("Once" if echo else "") + SAID, "logprobs": None, "finish_reason": "stop"}
    assert (reply["usage"]["total_tokens"], reply["usage"]["origin"]) == (7, "upstream")


def test_a_reply_without_usage() -> None:
    result = ChatResult(parts=(Said("x"),), sources=(), usage=None, finish=Finish(FinishReason.LENGTH))
    reply = msgspec.json.decode(parsed().result(FACTS, [result]))
    assert (reply["usage"], reply["choices"][0]["finish_reason"]) == (None, "length")


@pytest.mark.parametrize("echo", [True, False])
def test_a_stream(echo: bool) -> None:
    call = parsed(stream=True, echo=echo, n=2, stream_options={"include_usage": True})
    writer = call.encoder(FACTS, 1)
    written = writer.start() + writer.encode(EVENTS[:4]) + writer.encode(EVENTS[4:]) + call.trailer(FACTS, USAGE)
    *texts, end, usage = chunks(written)
    told = [each["choices"][0]["text"] for each in texts]
    assert told == (["Once"] if echo else []) + ["Good day", "\n![image](https://x.example/a.png)\n"]
    assert end["choices"] == [{"index": 1, "text": "", "logprobs": None, "finish_reason": "stop"}]
    assert end["usage"] is None and usage["choices"] == [] and usage["usage"]["completion_tokens"] == 4
    assert written.endswith(b"data: [DONE]\n\n")
    assert writer.encode([TextDelta("")]) == b""


def token(text: str) -> TextDelta:
    return TextDelta(text, Raw(msgspec.json.encode([{"token": text, "logprob": -0.5}])))


def test_log_probabilities_stand_with_their_text() -> None:
    pieces: Batch = [token("Good"), EVENTS[4], token("day"), TextDelta("!")]
    picture = len("\n![image](https://x.example/a.png)\n")
    told = {"tokens": ["Good", "day"], "token_logprobs": [-0.5, -0.5], "top_logprobs": [{"Good": -0.5}, {"day": -0.5}]}
    whole = msgspec.json.decode(parsed(logprobs=0).result(FACTS, [folded([*pieces, Finish(FinishReason.STOP)])]))
    assert whole["choices"][0]["logprobs"] == told | {"text_offset": [0, 4 + picture]}
    writer = parsed(logprobs=0).encoder(FACTS, 0)
    choices = [each["choices"][0] for each in chunks(b"".join(writer.encode([piece]) for piece in pieces))]
    assert [choice["text"] for choice in choices][::2] == ["Good", "day"]
    assert [choice["logprobs"] and choice["logprobs"]["text_offset"] for choice in choices] == [
        [0],
        None,
        [4 + picture],
        None,
    ]


def test_without_the_wish_for_usage_chunks_have_none() -> None:
    call = parsed(stream=True)
    assert call.trailer(FACTS, USAGE) == b"data: [DONE]\n\n"
    (chunk,) = chunks(call.encoder(FACTS, 0).encode([TextDelta("x")]))
    assert "usage" not in chunk


def test_a_failure_is_told_in_openais_words() -> None:
    (told,) = chunks(parsed(stream=True).encoder(FACTS, 0).fail(ReplyCut()))
    assert told["error"]["code"] == "upstream_unavailable"
    protocol = OpenAICompletions()
    assert protocol.error(ReplyCut(), "req_1").status == 502
    assert protocol.limit_headers(LimitFacts(at=0.0)) == ()
