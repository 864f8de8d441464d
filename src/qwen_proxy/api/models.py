"""The catalogue, as each protocol of `protocols.table.MODEL_LISTS` lists it (upstream protocol §2.4)."""

from collections.abc import Callable

from aiohttp import web

from qwen_proxy.chat.models import Model, Variant
from qwen_proxy.gateway.catalogue import Catalogue, CatalogueSource
from qwen_proxy.protocols.base import ListedModel, ModelsProtocol
from qwen_proxy.serving.endpoint import Exchange, Handler


class ModelRoutes:
    """Makes two handlers per protocol.

    display_names: the readable name is `id` (the original's README), else the upstream's (the original's code).
    variants: list `-thinking`, `-search` and so on beside the plain names (SIMPLE_MODEL_MAP switches them off).
    """

    def __init__(self, catalogue: CatalogueSource, *, display_names: bool, variants: bool) -> None:
        self._catalogue = catalogue
        self._display_names = display_names
        self._variants = variants
        self._listed: tuple[Catalogue, dict[ModelsProtocol, bytes]] | None = None

    def configure(self, *, display_names: bool, variants: bool) -> None:
        """From now on."""
        self._display_names = display_names
        self._variants = variants
        self._listed = None

    def all(self, protocol: ModelsProtocol) -> Handler:
        """Those that the caller's key may use."""

        async def handle(exchange: Exchange) -> web.StreamResponse:
            catalogue = await self._catalogue.get()
            caller, query = exchange.caller, exchange.http.query
            if caller is not None and caller.record.allowed_models:
                mine = self._entries(catalogue, lambda model, variant: caller.may_use_model(model.names(variant)))
                return _answer(protocol.all(mine, query))
            if query:
                return _answer(protocol.all(self._all(catalogue), query))
            return _answer(self._whole(catalogue, protocol))

        return handle

    def one(self, protocol: ModelsProtocol) -> Handler:
        """Any spelling that a request may use is found, aliases too. Raises ModelNotFound, NotAllowed."""

        async def handle(exchange: Exchange) -> web.StreamResponse:
            resolved = (await self._catalogue.get()).resolve(exchange.http.match_info["id"])
            if exchange.caller is not None:
                exchange.caller.check_model(resolved.model.names(resolved.name.variant))
            return _answer(protocol.one(self._entry(resolved.model, resolved.name.variant)))

        return handle

    def _whole(self, catalogue: Catalogue, protocol: ModelsProtocol) -> bytes:
        """The list for who may use all of it, which is most callers: written once."""
        if self._listed is None or self._listed[0] is not catalogue:
            self._listed = (catalogue, {})
        written = self._listed[1]
        if protocol not in written:
            written[protocol] = protocol.all(self._all(catalogue), {})
        return written[protocol]

    def _all(self, catalogue: Catalogue) -> list[ListedModel]:
        return self._entries(catalogue, lambda model, variant: True)

    def _entries(self, catalogue: Catalogue, is_listed: Callable[[Model, Variant], bool]) -> list[ListedModel]:
        return [
            self._entry(model, variant)
            for model in catalogue.models
            for _, variant in (model.variants() if self._variants else model.variants()[:1])
            if is_listed(model, variant)
        ]

    def _entry(self, model: Model, variant: Variant) -> ListedModel:
        suffix = next((suffix for suffix, each in model.variants() if each == variant), "")
        names = (model.display_name + suffix, model.id + suffix)
        return ListedModel(
            id=names[0] if self._display_names else names[1],
            name=names[1] if self._display_names else names[0],
            variant=variant,
            model=model,
        )


def _answer(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")
