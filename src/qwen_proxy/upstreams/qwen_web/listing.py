"""The site's model list as our models. Pure, and tolerant of every missing field. Source: upstream protocol §2."""

from typing import Final

from qwen_proxy.chat.models import Mode, Model
from qwen_proxy.upstreams.qwen_web.wire import is_array, items, loads, members, text, whole

MODES: Final = (
    ("t2i", Mode.IMAGE),
    ("t2v", Mode.VIDEO),
    ("image_edit", Mode.IMAGE_EDIT),
    ("deep_research", Mode.DEEP_RESEARCH),
)


def read_models(body: bytes) -> list[Model] | None:
    """Both envelopes and a bare list, in their order; inactive entries are left out. None where no list is."""
    try:
        value = loads(body)
    except ValueError:
        return None
    while "data" in members(value):
        value = members(value)["data"]
    if not is_array(value):
        return None
    found: dict[str, Model] = {}
    for item in value:
        if (model := read_model(members(item))) is not None:
            found.setdefault(model.id, model)
    return list(found.values())


def read_model(entry: dict[str, object]) -> Model | None:
    """One entry (§2.2); None for one without an id or switched off. Without `meta` it is a model that just chats."""
    model_id = text(entry.get("id"))
    info = members(entry.get("info"))
    if not model_id or info.get("is_active") is False:
        return None
    meta = members(info.get("meta"))
    capabilities, abilities = members(meta.get("capabilities")), members(meta.get("abilities"))
    types = {text(item) for item in items(meta.get("chat_type"))}
    skip = members(meta.get("think_skip")).get("enable")
    return Model(
        id=model_id,
        display_name=text(entry.get("name")) or text(info.get("name")) or model_id,
        description=text(meta.get("short_description")) or text(meta.get("description")),
        created_at=whole(info.get("created_at")) or 0,
        thinks=bool(abilities.get("thinking")) or capabilities.get("thinking") is True,
        can_skip_thinking=skip is not False,
        searches="search" in types,
        sees_images=bool(abilities.get("vision")) or capabilities.get("vision") is True,
        modes=frozenset((Mode.CHAT, *(mode for name, mode in MODES if name in types))),
        context_tokens=whole(meta.get("max_context_length")),
        output_tokens=whole(meta.get("max_summary_generation_length")) or whole(meta.get("max_generation_length")),
    )
