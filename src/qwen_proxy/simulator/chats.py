"""Models and chats: rows 5 to 10 and 12 of the endpoint index (upstream protocol §0.5, §2.1, §3, §4.9)."""

import msgspec

from qwen_proxy.simulator.auths import refused, visitor_of
from qwen_proxy.simulator.records import SeenRequest, SimulatedChat, StoredMessage
from qwen_proxy.simulator.replies import Reply, json_reply, not_found, success, unauthorized, validation_error
from qwen_proxy.simulator.site import Site


class NewChatBody(msgspec.Struct, frozen=True):
    """§3.1, every variant: nothing in it is known to be required."""

    title: str = "New Chat"
    models: list[str] = []
    chat_type: str = "t2t"


class StopBody(msgspec.Struct, frozen=True):
    """§4.9: presumably just the chat."""

    chat_id: str


def models(site: Site, seen: SeenRequest) -> Reply:
    """`GET /api/models`: flat, no token needed (§2.1)."""
    return json_reply({"data": site.scenario.models})


def models_v2(site: Site, seen: SeenRequest) -> Reply:
    """`GET /api/v2/models/`: enveloped twice (§2.1)."""
    return success({"data": site.scenario.models})


def new_chat(site: Site, seen: SeenRequest) -> Reply:
    """`POST /api/v2/chats/new`: cookie or bearer; no `version` header needed (§3.1, §9.1, §9.2)."""
    visitor = visitor_of(site, seen)
    refusal = refused(site, visitor)
    if refusal is not None or visitor is None:
        return refusal or unauthorized()
    try:
        body = msgspec.json.decode(seen.body, type=NewChatBody)
    except msgspec.MsgspecError as error:
        return validation_error(str(error))
    chat = site.add_chat(visitor.email, body.title, body.chat_type, body.models[0] if body.models else "")
    return success({"id": chat.id})


def list_chats(site: Site, seen: SeenRequest) -> Reply:
    """`GET /api/v2/chats/?page=N` and `GET /api/v2/chats?limit=N`: newest first (§3.3)."""
    visitor = visitor_of(site, seen)
    refusal = refused(site, visitor)
    if refusal is not None or visitor is None:
        return refusal or unauthorized()
    limit = _number(seen.query.get("limit"), 50)
    page = _number(seen.query.get("page"), 1)
    own = [chat for chat in site.chats.values() if chat.account == visitor.email and not chat.deleted]
    own.sort(key=lambda chat: chat.updated, reverse=True)
    return success([_line(chat) for chat in own[(page - 1) * limit : page * limit]])


def chat_detail(site: Site, seen: SeenRequest) -> Reply:
    """`GET /api/v2/chats/{id}`: the whole history (§3.4)."""
    visitor = visitor_of(site, seen)
    refusal = refused(site, visitor)
    if refusal is not None or visitor is None:
        return refusal or unauthorized()
    chat = site.chat(_id(seen), visitor.email)
    if chat is None:
        return not_found("CHAT_NOT_FOUND: the chat does not exist.")
    history = {message.id: _message(chat, message) for message in chat.messages}
    current = chat.messages[-1].id if chat.messages else None
    older: list[object] = []  # empty in the captures
    inner = {"history": {"currentId": current, "messages": history}, "messages": older}
    return success(_line(chat) | {"chat": inner})


def delete_chat(site: Site, seen: SeenRequest) -> Reply:
    """`DELETE /api/v2/chats/{id}`: 404 if it is gone already (§3.5)."""
    visitor = visitor_of(site, seen)
    refusal = refused(site, visitor)
    if refusal is not None or visitor is None:
        return refusal or unauthorized()
    chat = site.chat(_id(seen), visitor.email)
    if chat is None:
        return not_found("CHAT_NOT_FOUND: the chat does not exist.")
    chat.deleted = True
    return success({"status": True})


def stop(site: Site, seen: SeenRequest) -> Reply:
    """`POST /api/v2/chat/completions/stop`: the running answer ends at its next delta (§4.9; answer not published)."""
    visitor = visitor_of(site, seen)
    refusal = refused(site, visitor)
    if refusal is not None or visitor is None:
        return refusal or unauthorized()
    try:
        body = msgspec.json.decode(seen.body, type=StopBody)
    except msgspec.MsgspecError as error:
        return validation_error(str(error))
    chat = site.chat(body.chat_id, visitor.email)
    if chat is None:
        return not_found("CHAT_NOT_FOUND: the chat does not exist.")
    chat.stop_asked = chat.in_progress
    chat.busy_until = 0.0
    return success({"status": True})


def _id(seen: SeenRequest) -> str:
    return seen.path.rpartition("/")[2]


def _number(text: str | None, default: int) -> int:
    return int(text) if text and text.isdecimal() and int(text) > 0 else default


def _line(chat: SimulatedChat) -> dict[str, object]:
    times: dict[str, object] = {"updated_at": int(chat.updated), "created_at": int(chat.created)}
    return {"id": chat.id, "title": chat.title, "chat_type": chat.chat_type} | times


def _message(chat: SimulatedChat, message: StoredMessage) -> dict[str, object]:
    children = [other.id for other in chat.messages if other.parent_id == message.id]
    return {
        "id": message.id,
        "role": message.role,
        "content": message.content,
        "content_list": message.content_list,
        "parentId": message.parent_id,
        "childrenIds": children,
    }
