"""GET /v1/models, /v1/models/{id} and /models: the catalogue in OpenAI's shape (upstream protocol §2.4)."""

from collections.abc import Callable

import msgspec
from aiohttp import web
from msgspec import Struct

from qwen_proxy.chat.models import Mode, Model, Variant
from qwen_proxy.gateway.catalogue import Catalogue, CatalogueSource, Resolved
from qwen_proxy.serving.endpoint import Exchange

CREATED_WHEN_UNKNOWN = 1677610602  # the original's own constant; OpenAI's shape has no "unknown"


class CapabilitiesBody(Struct, kw_only=True):
    thinking: bool
    thinking_optional: bool
    search: bool
    vision: bool


class ModelBody(Struct, kw_only=True):
    """One entry. `id` and `name` are the two spellings, in the order the operator chose; both may be asked for."""

    id: str
    name: str
    upstream_id: str
    display_name: str
    description: str
    capabilities: CapabilitiesBody
    object: str = "model"
    created: int = CREATED_WHEN_UNKNOWN
    owned_by: str = "qwen"
    context_length: int | None = None
    max_output_tokens: int | None = None


class ModelListBody(Struct):
    data: list[ModelBody]
    object: str = "list"


class ModelRoutes:
    """display_names: the readable name is `id` (the original's README), else the upstream's (the original's code).

    variants: list `-thinking`, `-search` and so on beside the plain names (SIMPLE_MODEL_MAP switches them off).
    """

    def __init__(self, catalogue: CatalogueSource, *, display_names: bool, variants: bool) -> None:
        self._catalogue = catalogue
        self._display_names = display_names
        self._variants = variants
        self._encoder = msgspec.json.Encoder()
        self._listed: tuple[Catalogue, bytes] | None = None

    def configure(self, *, display_names: bool, variants: bool) -> None:
        """From now on."""
        self._display_names = display_names
        self._variants = variants
        self._listed = None

    async def list(self, exchange: Exchange) -> web.StreamResponse:
        """Those that the caller's key may use."""
        catalogue = await self._catalogue.get()
        caller = exchange.caller
        if caller is not None and caller.record.allowed_models:
            return _answer(self._list(catalogue, lambda model, variant: caller.may_use_model(model.names(variant))))
        if self._listed is None or self._listed[0] is not catalogue:
            self._listed = (catalogue, self._list(catalogue, lambda model, variant: True))
        return _answer(self._listed[1])

    async def one(self, exchange: Exchange) -> web.StreamResponse:
        """Any spelling that a request may use is found, aliases too. Raises ModelNotFound, NotAllowed."""
        resolved = (await self._catalogue.get()).resolve(exchange.http.match_info["id"])
        if exchange.caller is not None:
            exchange.caller.check_model(resolved.model.names(resolved.name.variant))
        return _answer(self._encoder.encode(self._named(resolved)))

    def _list(self, catalogue: Catalogue, is_listed: Callable[[Model, Variant], bool]) -> bytes:
        bodies = [
            self._body(model, suffix, variant)
            for model in catalogue.models
            for suffix, variant in (model.variants() if self._variants else model.variants()[:1])
            if is_listed(model, variant)
        ]
        return self._encoder.encode(ModelListBody(bodies))

    def _named(self, resolved: Resolved) -> ModelBody:
        suffix = next((suffix for suffix, variant in resolved.model.variants() if variant == resolved.name.variant), "")
        return self._body(resolved.model, suffix, resolved.name.variant)

    def _body(self, model: Model, suffix: str, variant: Variant) -> ModelBody:
        names = (model.display_name + suffix, model.id + suffix)
        chats = variant.mode is Mode.CHAT
        return ModelBody(
            id=names[0] if self._display_names else names[1],
            name=names[1] if self._display_names else names[0],
            upstream_id=model.id,
            display_name=model.display_name,
            description=model.description,
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


def _answer(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")
