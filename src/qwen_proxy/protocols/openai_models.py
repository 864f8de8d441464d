"""The model list in OpenAI's shape, with what the original adds to it (upstream protocol §2.4). Pure."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

import msgspec
from msgspec import Struct

from qwen_proxy.chat.models import Mode
from qwen_proxy.ground.errors import ProxyError
from qwen_proxy.ground.limits import LimitFacts
from qwen_proxy.protocols.base import ErrorReply, ListedModel
from qwen_proxy.protocols.limit_headers import openai_headers
from qwen_proxy.protocols.openai_errors import error_reply

OWNER: Final = "qwen"  # of the site's models, as the original says
SITE: Final = "web"  # the backend that is the site
ROUTED: Final = "route"
CREATED_WHEN_UNKNOWN: Final = 1677610602  # the original's own constant; OpenAI's shape has no "unknown"


class CapabilitiesBody(Struct, kw_only=True):
    thinking: bool
    thinking_optional: bool
    search: bool
    vision: bool


class ModelBody(Struct, kw_only=True):
    """One entry. `id` and `name` are the two spellings, in the order the operator chose; both may be asked for.

    backend: who serves it, "route" where MODEL_ROUTES decides. upstream_id: what it is called there.
    """

    id: str
    name: str
    upstream_id: str
    display_name: str
    description: str
    capabilities: CapabilitiesBody
    backend: str
    object: str = "model"
    created: int = CREATED_WHEN_UNKNOWN
    owned_by: str = OWNER
    context_length: int | None = None
    max_output_tokens: int | None = None


class ModelListBody(Struct):
    data: list[ModelBody]
    object: str = "list"


class OpenAIModels:
    """Fits `protocols.base.ModelsProtocol`."""

    request_id_header: ClassVar[str] = "x-request-id"

    def all(self, models: Sequence[ListedModel], query: Mapping[str, str]) -> bytes:
        return msgspec.json.encode(ModelListBody([_body(model) for model in models]))

    def one(self, model: ListedModel) -> bytes:
        return msgspec.json.encode(_body(model))

    def error(self, error: ProxyError, request_id: str) -> ErrorReply:
        return error_reply(error, request_id)

    def limit_headers(self, facts: LimitFacts) -> tuple[tuple[str, str], ...]:
        return openai_headers(facts)


def _body(listed: ListedModel) -> ModelBody:
    model = listed.model
    chats = listed.variant.mode is Mode.CHAT
    return ModelBody(
        id=listed.id,
        name=listed.name,
        upstream_id=model.id,
        display_name=model.display_name,
        description=model.description,
        backend=listed.backend or ROUTED,
        owned_by=OWNER if listed.backend == SITE else listed.backend or ROUTED,
        created=model.created_at or CREATED_WHEN_UNKNOWN,
        context_length=model.context_tokens if chats else None,
        max_output_tokens=model.output_tokens if chats else None,
        capabilities=CapabilitiesBody(
            thinking=model.thinks,
            thinking_optional=model.can_skip_thinking,
            search=model.searches,
            vision=model.sees_images,
        ),
    )
