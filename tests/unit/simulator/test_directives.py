"""Directives in the text, and which part of a folded conversation they are read from."""

from typing import Any

import aiohttp
import pytest

from qwen_proxy.simulator import Simulator
from qwen_proxy.simulator.directives import last_part, read, spoken
from tests.unit.simulator.visitor import Visitor

FOLDED = """The conversation so far.
[[system 7f3a]]
Be brief. [[sim empty]]
[[user 7f3a]]
hi [[sim cut 3]]
[[assistant 7f3a]]
[[sim hang]]
[[user 7f3a]]
go on [[sim slow 5ms]]
[[end 7f3a]]
Answer the last message of the user."""


def names(text: str) -> list[str]:
    return [directive.name for directive in read(text)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[[sim think]] hello\n\n[[sim slow 1s]]", ["think", "slow"]),
        (FOLDED, ["slow"]),
        ("User: a [[sim cut]]\nAssistant: b\nUser: c [[sim drop]]", ["drop"]),
        ("## History\n[[sim cut]]\n## Current message\n[[sim drop]]", ["drop"]),
        ('{"role": "user", "content": "[[sim cut]]"}\n{"role": "user", "content": "[[sim drop]]"}', ["drop"]),
        ("[User] [[sim cut]]", ["cut"]),
        ("<user>\n[[sim cut]]\n</user>", ["cut"]),
        ("**User:** [[sim cut]]\n**Assistant:**", ["cut"]),
        ("--- user 1 ---\r\n[[sim cut]]\r\n--- assistant ---\r\nx", ["cut"]),
        ("[[system 1a2b]]\n[[sim cut]]", ["cut"]),
        ("[[user 1a2b]]\n[[sim cut]]\n[[user 1a2b]]\n \n", ["cut"]),
        ("user guide and [[sim cut]]\nan assistant said: x", ["cut"]),
        ("nothing here", []),
    ],
)
def test_directives_come_from_the_last_turn_of_a_user(text: str, found: list[str]) -> None:
    assert names(text) == found


def test_spoken_is_the_last_turn_without_directives() -> None:
    assert spoken(FOLDED) == "go on"
    assert last_part("plain") == "plain"


def test_arguments_are_words_and_named_values() -> None:
    (directive,) = read('[[sim error RateLimited num=6 details="two words"]]')
    assert directive.words == ("RateLimited",)
    assert directive.named == {"num": "6", "details": "two words"}


@pytest.mark.parametrize(("word", "seconds"), [("200ms", 0.2), ("3s", 3.0), ("50", 0.05), ("x", 9.0)])
def test_durations(word: str, seconds: float) -> None:
    assert read(f"[[sim slow {word}]]")[0].seconds(9.0) == pytest.approx(seconds)


async def phases(visitor: Visitor, text: str) -> list[str]:
    return [delta.get("phase", "") for delta in (await visitor.ask(text)).deltas]


@pytest.mark.parametrize(
    ("text", "phase"),
    [
        ("[[sim think]]", "thinking_summary"),
        ("[[sim think append]]", "thinking_summary"),
        ("[[sim think detail]]", "think"),
        ("[[sim search]]", "web_search"),
        ("[[sim search both]]", "web_search"),
        ("[[sim image]]", "image_gen_tool"),
        ("[[sim phase meta]]", "meta"),
        ("[[sim phase]]", ""),
    ],
)
async def test_phases(visitor: Visitor, text: str, phase: str) -> None:
    assert phase in await phases(visitor, text)


async def test_texts(visitor: Visitor) -> None:
    assert (await visitor.ask("[[sim say exactly this]]")).text() == "exactly this"
    assert (await visitor.ask("[[sim repeat 3]]")).text() == "word1 word2 word3"
    assert (await visitor.ask("[[sim no-text]]")).text() == ""
    assert (await visitor.ask("[[sim unheard-of]] x")).text().startswith("You said: “x”")


async def test_empty_and_thinking_only(visitor: Visitor) -> None:
    empty = await visitor.ask("[[sim empty]]")
    assert (empty.status, empty.body) == (200, b"")
    assert set(await phases(visitor, "[[sim think-only]]")) == {"thinking_summary"}
    assert set(await phases(visitor, "[[sim think detail]] [[sim think-only]]")) == {"think"}


async def test_refusals_before_the_stream(visitor: Visitor) -> None:
    limited = await visitor.ask("[[sim error RateLimited num=6]]")
    assert (limited.status, limited.actual_status) == (200, 429)
    assert limited.json["data"] | {"template": ""} == {
        "code": "RateLimited",
        "details": "You've reached the upper limit for today's usage.",
        "template": "",
        "num": 6,
    }
    silent = await visitor.ask("[[sim error RateLimited status=none top]]")
    assert "x-actual-status-code" not in silent.headers
    assert silent.json["code"] == "RateLimited"
    other = await visitor.ask('[[sim error status=500 details="It broke"]]')
    assert (other.actual_status, other.json["data"]["details"]) == (500, "It broke")
    assert "ret" in (await visitor.ask("[[sim challenge json]]")).json
    assert b"aliyun_waf" in (await visitor.ask("[[sim challenge html]]")).body
    assert (await visitor.ask("[[sim status 502]]")).status == 502
    assert (await visitor.ask("[[sim empty-body]]")).body == b""


@pytest.mark.parametrize(
    ("form", "part"),
    [
        ("object", b'data: {"error": {"code": "boom", "details": "Internal error..."}'),
        ("string", b'data: {"error": "Internal error..."}'),
        ("failure", b'data: {"success": false'),
        ("bare", b'\n\n{"success": false'),
        ("captcha", b'\n\n{"ret": ["FAIL_SYS_USER_VALIDATE"'),
        ("html", b"\n\n<!doctypehtml>"),
    ],
)
async def test_errors_inside_the_stream(visitor: Visitor, form: str, part: bytes) -> None:
    answer = await visitor.ask(f"[[sim stream-error boom after=2 form={form}]]")
    assert part in answer.body
    assert len([line for line in answer.body.split(b"\n") if b'"answer"' in line]) == 2


async def test_cut_ends_cleanly_after_so_many_deltas(visitor: Visitor) -> None:
    answer = await visitor.ask("[[sim cut 3]] [[sim repeat 9]]")
    assert answer.text() == "word1 word2 word3"
    assert answer.deltas[-1]["status"] == "typing"
    assert len((await visitor.ask("[[sim cut 0]]")).frames) == 1
    assert set(await phases(visitor, "[[sim think-only]] [[sim cut]]")) == {"thinking_summary"}


@pytest.mark.parametrize("name", ["drop", "reset"])
async def test_broken_ends(visitor: Visitor, name: str) -> None:
    async with visitor.open(f"[[sim {name} 3]] [[sim repeat 9]]") as response:
        received = b""
        with pytest.raises(aiohttp.ClientPayloadError):
            while True:
                received += await response.content.readany()
        assert b"word3" in received
        assert b"word4" not in received


@pytest.mark.parametrize("order", ["zero-first", "one-first", "zero-silent"])
async def test_candidates(visitor: Visitor, order: str) -> None:
    answer = await visitor.ask(f"[[sim candidates {order}]] [[sim say a b]]")
    ids = [frame["response.created"]["response_id"] for frame in answer.frames[:2]]
    by_id: dict[str, str] = dict.fromkeys(ids, "")
    for frame in answer.frames[2:]:
        by_id[frame["response_id"]] += frame["choices"][0]["delta"]["content"]
    assert list(by_id.values()) == (["", "A B"] if order == "zero-silent" else ["a b", "A B"])
    first: Any = answer.frames[2]["response_id"]
    assert first == (ids[0] if order == "zero-first" else ids[1])


async def test_quirks_and_drift_keep_the_text(visitor: Visitor) -> None:
    quirks = await visitor.ask("[[sim quirks]] [[sim say fine]]")
    drift = await visitor.ask("[[sim drift]] [[sim say fine]]")
    assert quirks.text() == drift.text() == "fine"
    assert b": keep-alive" in quirks.body
    assert {"choices": [], "response_id": quirks.frames[0]["response.created"]["response_id"]} in quirks.frames
    assert "response.metrics" in drift.frames[1]
    assert "mood" in drift.deltas[0]
    assert drift.headers["x-simulated-drift"] == "1"


async def test_keep_alives_and_delays(visitor: Visitor) -> None:
    answer = await visitor.ask("[[sim keep-alive 3]] [[sim delay 1ms]]")
    assert len([frame for frame in answer.frames if "response.info" in frame]) == 3


async def test_line_ends(visitor: Visitor) -> None:
    crlf = await visitor.ask("[[sim crlf]]")
    assert crlf.body.count(b"\r\n\r\n") == crlf.body.count(b"data: ") == crlf.body.count(b"\n") // 2
    assert (await visitor.ask("[[sim no-blank-line]]")).body.endswith(b"} \n")
    assert not (await visitor.ask("[[sim no-blank-line]]")).body.endswith(b"\n\n")
    assert (await visitor.ask("[[sim done]]")).body.endswith(b"data: [DONE]\n\n")
    assert (await visitor.ask("[[sim done]] [[sim no-blank-line]]")).body.endswith(b"data: [DONE]\n")


async def test_once_makes_the_other_directives_hold_only_the_first_time(visitor: Visitor, simulator: Simulator) -> None:
    text = "[[sim once]] [[sim status 503]] x"
    assert [(await visitor.ask(text)).status for _ in range(3)] == [503, 200, 200]
    assert (await visitor.ask(text + "y")).status == 503
