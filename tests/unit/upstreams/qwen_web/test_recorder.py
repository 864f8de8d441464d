"""A recording tells nothing of the person whose exchange it was."""

import json
from pathlib import Path

import msgspec
import pytest

from qwen_proxy.upstreams.qwen_web.recorder import Exchange, Recording, masked, redact
from tests.recordings.decoding import Facts, recordings
from tests.recordings.decoding import Recording as Read

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJpZCI6IjdjMWYifQ.c2lnbmF0dXJl"
EMAIL = "Alice.Example@mail.example.org"
USER = "7c1f6f3e-0b4a-4f0e-9a55-2d9a0f5b7a10"
CHAT = "605fdeab-bcc7-4b00-ab4c-64acac491286"
COOKIE = "xlly_s-value"
TEXTS = ("Dear Alice", "my diagnosis", "a private search", "Möbius")
CANARIES = (TOKEN, EMAIL, USER, CHAT, COOKIE, "203.0.113.9", "x5secdata=abc", "key=eyJ", "a" * 40)


def lines() -> list[str]:
    image = f"https://cdn.qwenlm.ai/output/{USER}/t2i/{CHAT}/1.png?key={TOKEN}"
    found = {"url": "https://clinic.example/a?patient=7", "title": "a private search", "snippet": "my diagnosis"}
    delta = {"role": "assistant", "content": "Dear Alice, my diagnosis", "phase": "answer", "status": "typing"}
    values: list[object] = [
        {"response.created": {"chat_id": CHAT, "parent_id": USER, "response_id": "r-1", "response_index": "0"}},
        {"choices": [{"delta": delta}], "response_id": "r-1", "usage": {"input_tokens": 3}},
        {"choices": [{"delta": delta | {"extra": {"web_search_info": [found]}}}], "response_id": "r-1"},
        {"choices": [{"delta": delta | {"content": image, "phase": "image_gen"}}], "response_id": "r-2"},
        {"ret": ["FAIL_SYS_USER_VALIDATE"], "data": {"url": "https://chat.qwen.ai/_____tmd_____/punish?x5secdata=abc"}},
        {"data": {"url": "https://[broken", "user_id": "", "details": f"from 203.0.113.9 of {EMAIL}, {'a' * 40}"}},
    ]
    texts = [f"data: {json.dumps(value, ensure_ascii=False)} " for value in values]
    return [
        *texts,
        ": ping",
        f'data: {{"content": "Möbius {EMAIL}',
        f"<html>{TOKEN} {CHAT}",
        f"bare {COOKIE}",
        "data: [DONE]",
    ]


def exchange() -> Exchange:
    body = "\n\n".join(lines()).encode()
    return Exchange(
        status=200,
        headers=(("Content-Type", "text/event-stream"), ("Set-Cookie", f"token={TOKEN}"), ("Server", f"x {EMAIL}")),
        chunks=(body[:57], body[57:200], body[200:]),
        secrets=(TOKEN, COOKIE, "abc"),
    )


@pytest.mark.parametrize("keep_text", [False, True])
def test_nothing_of_the_person_is_left(keep_text: bool) -> None:
    recording = redact(exchange(), keep_text)
    everything = recording.body.decode() + repr(recording.facts)
    assert [canary for canary in CANARIES if canary in everything] == []
    kept = [text for text in TEXTS if text in everything]
    assert kept == (list(TEXTS) if keep_text else [])


def test_the_shape_is_left() -> None:
    recording = redact(exchange(), keep_text=False)
    found = recording.body.decode().split("\n\n")
    created, first, search, image = (json.loads(line[6:]) for line in found[:4])
    assert found[0].endswith("} ") and found[-1] == "data: [DONE]"
    assert created["response.created"]["response_id"] == first["response_id"] == search["response_id"]
    assert first["response_id"] != image["response_id"]
    assert created["response.created"]["response_index"] == "0"
    delta = first["choices"][0]["delta"]
    assert (delta["phase"], delta["status"], delta["content"]) == ("answer", "typing", "xxxx xxxxx, xx xxxxxxxxx")
    assert first["usage"] == {"input_tokens": 3}
    assert image["choices"][0]["delta"]["content"].startswith("https://cdn.qwenlm.ai/")
    assert image["choices"][0]["delta"]["content"].endswith(".png")
    assert "clinic.example" not in found[2]
    assert "_____tmd_____" in found[4]
    assert recording.facts.headers == {
        "Content-Type": "text/event-stream",
        "Set-Cookie": "REDACTED",
        "Server": "x someone@example.com",
    }


def test_with_texts_kept_a_search_keeps_its_host() -> None:
    assert "https://clinic.example/" in redact(exchange(), keep_text=True).body.decode()


@pytest.mark.parametrize("recording", recordings(), ids=lambda recording: recording.name)
def test_a_redacted_recording_decodes_to_the_same_kinds_of_events(recording: Read) -> None:
    redacted = redact(
        Exchange(
            status=recording.facts.status, headers=tuple(recording.facts.headers.items()), chunks=(recording.body,)
        ),
        keep_text=False,
    )
    facts = Facts(source="captured", section="", note="", status=redacted.facts.status, headers=redacted.facts.headers)
    before, after = recording.decode([recording.body]), Read("x", facts, redacted.body).decode([redacted.body])
    assert [type(event) for event in after.events] == [type(event) for event in before.events]
    assert after.error == before.error


def test_it_is_written_as_two_files_and_never_over_another(tmp_path: Path) -> None:
    recording: Recording = redact(exchange(), keep_text=False)
    paths = recording.write(tmp_path, "mine")
    assert [path.name for path in paths] == ["mine.json", "mine.sse"]
    assert paths[1].read_bytes() == recording.body
    assert msgspec.json.decode(paths[0].read_bytes(), type=Facts).source == "captured"
    with pytest.raises(FileExistsError):
        recording.write(tmp_path, "mine")


def test_masking_keeps_prefixes() -> None:
    assert masked("Ab1 é中!") == "xxx éé!"
    assert masked("The capital").startswith(masked("The cap"))
