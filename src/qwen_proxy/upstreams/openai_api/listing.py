"""A server's list of models as ours. Pure, and tolerant of every missing field.

Source: OpenAI's `GET /models` (`id`, `created`), and where a size is told: `max_model_len` (vLLM), `meta.n_ctx_train`
(llama.cpp, which tells what the model was trained for; `meta.n_ctx`, what the server was started with, comes first),
`context_length` and `top_provider.max_completion_tokens` (OpenRouter), `architecture.input_modalities` (OpenRouter).
"""

from collections.abc import Sequence

import msgspec

from qwen_proxy.chat.models import Model
from qwen_proxy.upstreams.openai_api.wire import count, is_array, members, word


def read_models(body: bytes) -> list[Model] | None:
    """In their order, each id once; None where no list is. Under `data`, or bare."""
    try:
        value: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    entries = value if is_array(value) else members(value).get("data")
    if not is_array(entries):
        return None
    found: dict[str, Model] = {}
    for entry in entries:
        if (model := _read(members(entry))) is not None:
            found.setdefault(model.id, model)
    return list(found.values())


def named(ids: Sequence[str]) -> list[Model]:
    """Models of which only the id is known."""
    return [Model(id=id, display_name=id) for id in ids]


def _read(entry: dict[str, object]) -> Model | None:
    id = word(entry.get("id"))
    if not id:
        return None
    meta, provider = members(entry.get("meta")), members(entry.get("top_provider"))
    sees = members(entry.get("architecture")).get("input_modalities")
    return Model(
        id=id,
        display_name=word(entry.get("name")) or id,
        description=word(entry.get("description"))[:500],
        created_at=count(entry.get("created")) or 0,
        sees_images=is_array(sees) and "image" in sees,
        context_tokens=count(entry.get("max_model_len"))
        or count(meta.get("n_ctx"))
        or count(entry.get("context_length"))
        or count(meta.get("n_ctx_train")),
        output_tokens=count(provider.get("max_completion_tokens")),
    )
