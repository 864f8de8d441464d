"""Models and chats: upstream protocol §2 and §3."""

from qwen_proxy.simulator import Fault, Scenario, Simulator, default_models, plain
from qwen_proxy.simulator.replies import empty_body, unavailable
from tests.unit.simulator.visitor import Visitor, completion

IDS = ["qwen3.7-plus", "qwen3.8-max", "qwen3.7-max", "qwen3.6-plus", "qwen3.5-plus", "qwen3.5-omni-plus"]


async def test_models_are_listed_flat_and_enveloped_without_a_token(stranger: Visitor) -> None:
    flat = await stranger.call("GET", "/api/models", drop="cookie")
    enveloped = await stranger.call("GET", "/api/v2/models/", drop="cookie")
    assert [model["id"] for model in flat.json["data"]] == IDS
    assert enveloped.json["data"]["data"] == flat.json["data"]
    assert enveloped.json["success"] is True
    assert flat.json["data"][1]["info"]["meta"]["think_skip"] == {"enable": False}


async def test_model_list_can_be_empty_spoiled_or_down(stranger: Visitor, simulator: Simulator) -> None:
    simulator.scenario.models = []
    assert (await stranger.call("GET", "/api/models")).json == {"data": []}
    simulator.scenario.models = [*default_models()[:1], plain("no-meta"), plain("off", active=False)]
    listed = (await stranger.call("GET", "/api/models")).json["data"]
    assert ["meta" in model["info"] for model in listed] == [True, False, False]
    assert listed[2]["info"]["is_active"] is False
    simulator.scenario.faults = [Fault(unavailable(), "models")]
    assert (await stranger.call("GET", "/api/models")).status == 503
    assert (await stranger.call("GET", "/api/v2/models/")).status == 200


async def test_new_chat_takes_cookie_or_bearer_and_refuses_nothing(visitor: Visitor) -> None:
    path = "/api/v2/chats/new"
    by_cookie = await visitor.call("POST", path, {}, drop="version")
    by_bearer = await visitor.call("POST", path, {}, drop="cookie", authorization=f"Bearer {visitor.token}")
    nobody = await visitor.call("POST", path, {}, drop="cookie")
    assert by_cookie.json["data"].keys() == by_bearer.json["data"].keys() == {"id"}
    assert (nobody.status, nobody.actual_status, nobody.json["success"]) == (200, 401, False)
    assert nobody.json["data"]["code"] == "Unauthorized"


async def test_new_chat_refuses_what_is_no_object(visitor: Visitor) -> None:
    answer = await visitor.call("POST", "/api/v2/chats/new", [])
    assert (answer.actual_status, answer.json["data"]["code"]) == (400, "RequestValidationError")


async def test_new_chat_can_answer_with_an_empty_body(visitor: Visitor, simulator: Simulator) -> None:
    simulator.scenario.faults = [Fault(empty_body(), "chats_new")]
    answer = await visitor.call("POST", "/api/v2/chats/new", {})
    assert (answer.status, answer.body) == (200, b"")


async def test_chats_are_listed_by_page_newest_first(visitor: Visitor) -> None:
    made = [await visitor.new_chat() for _ in range(3)]
    listed = (await visitor.call("GET", "/api/v2/chats/?page=1&exclude_project=true")).json["data"]
    paged = (await visitor.call("GET", "/api/v2/chats?limit=2&page=2")).json["data"]
    assert {chat["id"] for chat in listed} == set(made)
    assert listed[0].keys() == {"id", "title", "updated_at", "created_at", "chat_type"}
    assert len(paged) == 1
    assert (await visitor.call("GET", "/api/v2/chats?limit=2", drop="cookie")).actual_status == 401


async def test_deleted_chat_is_gone(visitor: Visitor, simulator: Simulator) -> None:
    chat_id = await visitor.new_chat()
    path = f"/api/v2/chats/{chat_id}"
    deleted = await visitor.call("DELETE", path)
    assert deleted.json["data"] == {"status": True}
    assert simulator.chats[chat_id].deleted
    assert (await visitor.call("DELETE", path)).actual_status == 404
    assert (await visitor.call("GET", path)).actual_status == 404
    assert (await visitor.call("DELETE", path, drop="cookie")).actual_status == 401
    assert (await visitor.call("GET", path, drop="cookie")).actual_status == 401


async def test_chat_belongs_to_its_account(visitor: Visitor) -> None:
    chat_id = await visitor.new_chat()
    await visitor.sign_in("other@x")
    assert (await visitor.call("GET", f"/api/v2/chats/{chat_id}")).actual_status == 404


async def test_detail_holds_the_exchange_and_continuation_links_it(visitor: Visitor) -> None:
    chat_id = await visitor.new_chat()
    first = await visitor.complete(chat_id, completion(chat_id, "one"))
    created = first.frames[0]["response.created"]
    second = await visitor.complete(chat_id, completion(chat_id, "two", parent_id=created["response_id"]))
    chat = (await visitor.call("GET", f"/api/v2/chats/{chat_id}")).json["data"]["chat"]
    messages = chat["history"]["messages"]
    assert messages[created["parent_id"]]["content"] == "one"
    assert messages[created["parent_id"]]["childrenIds"] == [created["response_id"]]
    assert messages[created["response_id"]]["content"] == first.text()
    assert messages[created["response_id"]]["content_list"][0]["phase"] == "answer"
    assert messages[second.frames[0]["response.created"]["parent_id"]]["parentId"] == created["response_id"]
    assert chat["history"]["currentId"] == second.frames[0]["response.created"]["response_id"]
    assert "turn 2" in second.text()


async def test_detail_of_a_new_chat_is_empty(visitor: Visitor) -> None:
    chat_id = await visitor.new_chat()
    chat = (await visitor.call("GET", f"/api/v2/chats/{chat_id}")).json["data"]["chat"]
    assert chat == {"history": {"currentId": None, "messages": {}}, "messages": []}


async def test_unknown_route_answers_flat_404(visitor: Visitor) -> None:
    answer = await visitor.call("GET", "/api/v2/nothing")
    assert (answer.status, answer.json) == (404, {"detail": "Not Found"})


async def test_site_may_live_below_a_path(visitor: Visitor) -> None:
    simulator = visitor.simulator
    await simulator.stop()
    simulator.scenario = Scenario(path_prefix="/qwen")
    await simulator.start()
    assert simulator.base_url.endswith("/qwen")
    assert (await visitor.call("GET", "/api/models")).status == 200
    simulator.base_url = simulator.base_url.removesuffix("/qwen")
    assert (await visitor.call("GET", "/api/models")).status == 404
