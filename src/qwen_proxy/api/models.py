"""The catalogue, as each protocol of `protocols.table.MODEL_LISTS` lists it (upstream protocol §2.4)."""

from collections.abc import Callable

from aiohttp import web

from qwen_proxy.chat.models import Variant
from qwen_proxy.gateway.permission import EVERYWHERE, Scope, find_route, open_to
from qwen_proxy.gateway.router import Router
from qwen_proxy.gateway.routing import Directory, Entry
from qwen_proxy.protocols.base import ListedModel, ModelsProtocol, ShowProtocol
from qwen_proxy.serving.endpoint import Exchange, Handler, incoming


class ModelRoutes:
    """Makes two handlers per protocol.

    display_names: the readable name is `id` (the original's README), else the upstream's (the original's code).
    variants: list `-thinking`, `-search` and so on beside the plain names (SIMPLE_MODEL_MAP switches them off).
    """

    def __init__(self, router: Router, *, display_names: bool, variants: bool) -> None:
        self._router = router
        self._display_names = display_names
        self._variants = variants
        self._listed: tuple[Directory, dict[ModelsProtocol, bytes]] | None = None

    def configure(self, *, display_names: bool, variants: bool) -> None:
        """From now on."""
        self._display_names = display_names
        self._variants = variants
        self._listed = None

    def all(self, protocol: ModelsProtocol, scope: Scope = EVERYWHERE) -> Handler:
        """Those that the caller's key may use, of all backends of the scope."""

        async def handle(exchange: Exchange) -> web.StreamResponse:
            caller, query = exchange.caller, exchange.http.query
            directory = await self._router.directory(open_to(self._router, caller, scope))
            if caller is not None and caller.record.allowed_models:
                mine = self._models(directory, lambda entry, variant: caller.may_use_model(entry.names(variant)))
                return _answer(protocol.all(mine, query))
            if query:
                return _answer(protocol.all(self._all(directory), query))
            return _answer(self._whole(directory, protocol))

        return handle

    def one(self, protocol: ModelsProtocol) -> Handler:
        """Any spelling that a request may use is found, aliases too. Raises ModelNotFound, NotAllowed."""

        async def handle(exchange: Exchange) -> web.StreamResponse:
            return _answer(protocol.one(await self._found(exchange, exchange.http.match_info["id"])))

        return handle

    def shown(self, protocol: ShowProtocol) -> Handler:
        """As `one`, for a route whose body names the model. Raises InvalidRequest too."""

        async def handle(exchange: Exchange) -> web.StreamResponse:
            name = protocol.asked(await incoming(exchange))
            return _answer(protocol.one(await self._found(exchange, name)))

        return handle

    async def _found(self, exchange: Exchange, name: str) -> ListedModel:
        route = await find_route(self._router, name, exchange.caller)
        return self._model(route.entry(), route.targets[0].name.variant)

    def _whole(self, directory: Directory, protocol: ModelsProtocol) -> bytes:
        """The list for who may use all of it, which is most callers: written once."""
        if self._listed is None or self._listed[0] is not directory:
            self._listed = (directory, {})
        written = self._listed[1]
        if protocol not in written:
            written[protocol] = protocol.all(self._all(directory), {})
        return written[protocol]

    def _all(self, directory: Directory) -> list[ListedModel]:
        return self._models(directory, lambda entry, variant: True)

    def _models(self, directory: Directory, is_listed: Callable[[Entry, Variant], bool]) -> list[ListedModel]:
        return [
            self._model(entry, variant)
            for entry in directory.entries()
            for variant in self._variants_of(entry)
            if is_listed(entry, variant)
        ]

    def _variants_of(self, entry: Entry) -> list[Variant]:
        variants = [variant for _, variant in entry.model.variants()]
        return variants if self._variants and entry.has_variants else variants[:1]

    def _model(self, entry: Entry, variant: Variant) -> ListedModel:
        suffix = next((suffix for suffix, each in entry.model.variants() if each == variant), "")
        names = (entry.display_name + suffix, entry.id + suffix)
        return ListedModel(
            id=names[0] if self._display_names else names[1],
            name=names[1] if self._display_names else names[0],
            variant=variant,
            model=entry.model,
            backend=entry.backend,
        )


def _answer(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")
