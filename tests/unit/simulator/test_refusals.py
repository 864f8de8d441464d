"""Completions refuse what upstream protocol §4, §9 and §3.2 call required, each in the form of §4.7."""

import asyncio
from typing import Any

import pytest

from qwen_proxy.simulator import Simulator
from tests.unit.simulator.visitor import Fields, Visitor, completion, until


async def test_the_complete_request_is_answered(visitor: Visitor, simulator: Simulator) -> None:
    answer = await visitor.ask("hello")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert "x-actual-status-code" not in answer.headers
    assert simulator.warnings == []


async def test_missing_version_header_is_a_bad_request_at_top_level(visitor: Visitor) -> None:
    chat_id = await visitor.new_chat()
    answer = await visitor.complete(chat_id, completion(chat_id, "x"), drop="version")
    assert answer.status == 200
    assert (answer.json["success"], answer.json["code"]) == (False, "Bad_Request")


async def test_bearer_alone_meets_the_captcha_and_nothing_is_unauthorized(visitor: Visitor) -> None:
    chat_id = await visitor.new_chat()
    body = completion(chat_id, "x")
    bearer = await visitor.complete(chat_id, body, drop="cookie", authorization=f"Bearer {visitor.token}")
    nothing = await visitor.complete(chat_id, body, drop="cookie")
    both = await visitor.complete(chat_id, body, authorization=f"Bearer {visitor.token}")
    assert bearer.status == 200
    assert bearer.headers["content-type"] == "application/json;charset=utf-8"
    assert bearer.json["ret"][0] == "FAIL_SYS_USER_VALIDATE"
    assert "_____tmd_____/punish?" in bearer.json["data"]["url"]
    assert nothing.actual_status == 401
    assert both.text()


async def test_a_bad_token_is_unauthorized_by_header_only(visitor: Visitor) -> None:
    chat_id = await visitor.new_chat()
    answer = await visitor.complete(chat_id, completion(chat_id, "x"), cookie="token=a.b.c")
    assert (answer.status, answer.actual_status, answer.json["data"]["code"]) == (200, 401, "Unauthorized")


async def test_missing_timezone_hangs_without_an_answer(visitor: Visitor, simulator: Simulator) -> None:
    chat_id = await visitor.new_chat()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await visitor.complete(chat_id, completion(chat_id, "x"), drop="timezone")
    simulator.scenario.missing_timezone = "challenge"
    challenged = await visitor.complete(chat_id, completion(chat_id, "x"), drop="timezone")
    assert "ret" in challenged.json
    simulator.scenario.missing_timezone = "ignore"
    assert (await visitor.complete(chat_id, completion(chat_id, "x"), drop="timezone")).text()


async def test_missing_user_agent_meets_the_firewall_page(visitor: Visitor) -> None:
    answer = await visitor.call("GET", "/api/models", drop="user-agent")
    assert (answer.status, answer.headers["content-type"]) == (403, "text/html")
    assert b"<!doctypehtml>" in answer.body


async def test_body_of_128_kib_meets_the_captcha(visitor: Visitor) -> None:
    assert "ret" in (await visitor.ask("x" * 131_072)).json
    assert (await visitor.ask("x" * 120_000)).text()


def without(body: Fields, *path: str | int) -> Fields:
    """The body less one field."""
    place: Any = body
    for step in path[:-1]:
        place = place[step]
    del place[path[-1]]
    return body


@pytest.mark.parametrize(
    "path", [("chat_id",), ("model",), ("messages",), ("stream",), ("messages", 0, "role"), ("messages", 0, "content")]
)
async def test_each_required_field_is_missed_by_name(visitor: Visitor, path: tuple[str | int, ...]) -> None:
    chat_id = await visitor.new_chat()
    answer = await visitor.complete(chat_id, without(completion(chat_id, "x"), *path))
    assert (answer.status, answer.actual_status) == (200, 400)
    assert answer.json["data"]["code"] == "RequestValidationError"
    assert str(path[-1]) in answer.json["data"]["details"]


async def test_without_output_schema_deltas_carry_only_role_and_content(visitor: Visitor) -> None:
    chat_id = await visitor.new_chat()
    body = without(completion(chat_id, "x", thinking=True), "messages", 0, "feature_config", "output_schema")
    answer = await visitor.complete(chat_id, body)
    assert {frozenset(delta) for delta in answer.deltas} == {frozenset({"role", "content"})}
    assert answer.text(None).startswith("You said")


async def test_query_must_name_the_same_chat(visitor: Visitor) -> None:
    chat_id, other = await visitor.new_chat(), await visitor.new_chat()
    absent = await visitor.call("POST", "/api/v2/chat/completions", completion(chat_id, "x"))
    different = await visitor.complete(other, completion(chat_id, "x"))
    assert "chat_id" in absent.json["data"]["details"]
    assert (different.actual_status, different.json["data"]["code"]) == (404, "Not_Found")


async def test_invented_foreign_and_deleted_chats_are_not_found(visitor: Visitor) -> None:
    own = await visitor.new_chat()
    await visitor.call("DELETE", f"/api/v2/chats/{own}")
    foreign = await visitor.new_chat()
    await visitor.sign_in("other@x")
    for chat_id in (own, foreign, "0d3f2a9c-1f5b-4f6f-9d9c-0a3f5b1f7b11"):
        answer = await visitor.complete(chat_id, completion(chat_id, "x"))
        assert answer.actual_status == 404
        assert "CHAT_NOT_FOUND" in answer.json["data"]["details"]


@pytest.mark.parametrize("count", [0, 2])
async def test_exactly_one_message_is_taken(visitor: Visitor, count: int) -> None:
    chat_id = await visitor.new_chat()
    body = completion(chat_id, "x")
    body["messages"] *= count
    assert "exactly one" in (await visitor.complete(chat_id, body)).json["data"]["details"]


async def test_role_must_be_user(visitor: Visitor) -> None:
    chat_id = await visitor.new_chat()
    body = completion(chat_id, "x")
    body["messages"][0]["role"] = "system"
    assert "role" in (await visitor.complete(chat_id, body)).json["data"]["details"]


async def test_content_list_is_tolerated(visitor: Visitor) -> None:
    chat_id = await visitor.new_chat()
    body = completion(chat_id, "x")
    body["messages"][0]["content"] = [{"type": "text", "text": "[[sim say parts]]"}, {"type": "image", "image": "u"}]
    assert (await visitor.complete(chat_id, body)).text() == "parts"


async def test_unknown_and_inactive_models_are_not_found(visitor: Visitor, simulator: Simulator) -> None:
    unknown = await visitor.ask("x", model="qwen9")
    assert (unknown.actual_status, unknown.json["data"]["details"]) == (404, "Model not found")
    info: Any = simulator.scenario.models[0]["info"]
    info["is_active"] = False
    assert (await visitor.ask("x", model="qwen3.7-plus")).actual_status == 404


async def test_model_that_must_think_answers_an_error_in_the_stream(visitor: Visitor) -> None:
    answer = await visitor.ask("x", model="qwen3.8-max", thinking=False)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.frames[-1]["error"]["code"] == "invalid_input"
    assert (await visitor.ask("x", model="qwen3.8-max", thinking=True)).text()


async def test_chat_in_progress_refuses_a_second_generation(visitor: Visitor, simulator: Simulator) -> None:
    simulator.scenario.dropped_generation_seconds = 60.0
    async with visitor.open("[[sim stall]]") as response:
        assert response.status == 200
        (chat,) = simulator.chats.values()
        assert chat.in_progress
        busy = await visitor.complete(chat.id, completion(chat.id, "again"))
    assert (busy.actual_status, busy.json["data"]["details"]) == (400, "The chat is in progress!")
    await until(lambda: not chat.in_progress)
    dropped = await visitor.complete(chat.id, completion(chat.id, "again"))
    assert dropped.json["data"]["details"] == "The chat is in progress!"
    await visitor.call("POST", "/api/v2/chat/completions/stop", {"chat_id": chat.id})
    assert (await visitor.complete(chat.id, completion(chat.id, "again"))).text()


async def test_chat_is_free_at_once_after_a_whole_answer(visitor: Visitor) -> None:
    chat_id = await visitor.new_chat()
    for _ in range(2):
        assert (await visitor.complete(chat_id, completion(chat_id, "x"))).text()


@pytest.mark.parametrize("chat_type", ["image_gen", "t2v"])
async def test_modes_not_played_are_internal_errors(visitor: Visitor, chat_type: str) -> None:
    answer = await visitor.ask("x", chat_type=chat_type)
    assert (answer.actual_status, answer.json["data"]["code"]) == (400, "internal_error")


async def test_stop_ends_the_running_answer(visitor: Visitor, simulator: Simulator) -> None:
    async with visitor.open("[[sim slow 20ms]] [[sim repeat 10000]]") as response:
        await response.content.readany()
        (chat,) = simulator.chats.values()
        stopped = await visitor.call("POST", "/api/v2/chat/completions/stop", {"chat_id": chat.id})
        rest = await response.content.read()
    assert stopped.json["data"] == {"status": True}
    assert b"word10000" not in rest


async def test_stop_needs_a_token_a_body_and_a_chat(visitor: Visitor) -> None:
    path = "/api/v2/chat/completions/stop"
    assert (await visitor.call("POST", path, {"chat_id": "x"}, drop="cookie")).actual_status == 401
    assert (await visitor.call("POST", path, {})).actual_status == 400
    assert (await visitor.call("POST", path, {"chat_id": "x"})).actual_status == 404


async def test_departures_from_the_ordinary_client_are_noted_not_refused(
    visitor: Visitor, simulator: Simulator
) -> None:
    chat_id = await visitor.new_chat()
    body: Fields = {"chat_id": chat_id, "model": "qwen3.7-plus", "stream": True}
    body["messages"] = [{"role": "user", "content": "x"}]
    odd = {"x_request_id": "1", "timezone": "today", "sec_fetch_mode": "navigate", "content_type": "text/plain"}
    await visitor.complete(chat_id, body, drop="x-accel-buffering", **odd)
    await visitor.complete(chat_id, [1], drop="accept-language")
    await visitor.call("POST", "/api/v2/chats/new", {"title": "api_1", "timestamp": 5})
    for part in (
        "x-request-id is not a UUIDv4",
        "timezone is not",
        "sec-fetch-mode",
        "content-type",
        "x-accel-buffering",
        "accept-language is missing",
        "incremental_output",
        "version is missing in the body",
        "timestamp is not in seconds",
        "fid",
        "models does not name",
        "body differs",
        "title starts with api_",
        "timestamp is not in milliseconds",
    ):
        assert any(part in warning for warning in simulator.warnings), part


async def test_chat_types_that_differ_and_foreign_letters_are_noted(visitor: Visitor, simulator: Simulator) -> None:
    chat_id = await visitor.new_chat()
    body = completion(chat_id, "x")
    body["messages"][0]["sub_chat_type"] = "search"
    await visitor.complete(chat_id, body, referer="é")
    assert sorted(warning.partition(": ")[2] for warning in simulator.warnings) == [
        "a header is not ASCII",
        "chat_type, sub_chat_type and extra.meta.subChatType differ (§4.3)",
    ]
