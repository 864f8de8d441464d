"""What of all backends and models a caller's key, and the route of the API that it calls, leave."""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct, structs

from qwen_proxy.config.keys import ClientKey
from qwen_proxy.gateway.backend import Backend, BackendKind
from qwen_proxy.gateway.router import Router
from qwen_proxy.gateway.routing import Route, Target
from qwen_proxy.ground.errors import ModelNotFound, NoAccountUsable, NotAllowed


class Scope(Struct, frozen=True, kw_only=True):
    """What a route of the API serves. kinds: of backends; empty is all. names: what some models are called there too.

    missing: the sentence where no backend of these kinds is there.
    """

    kinds: frozenset[BackendKind] = frozenset()
    names: tuple[tuple[str, str], ...] = ()
    missing: str = ""

    def takes(self, backend: Backend) -> bool:
        return not self.kinds or backend.kind in self.kinds


EVERYWHERE: Final = Scope()


def may_use(caller: ClientKey | None, backend: Backend) -> bool:
    return caller is None or caller.may_use_backend(backend.name, backend.kind.value)


def open_to(router: Router, caller: ClientKey | None, scope: Scope) -> Sequence[Backend]:
    """At least one. Raises NoAccountUsable, NotAllowed."""
    if scope is EVERYWHERE and (caller is None or not caller.record.allowed_backends):
        return router.backends()
    served = [backend for backend in router.backends() if scope.takes(backend)]
    if not served:
        raise NoAccountUsable(scope.missing)
    mine = [backend for backend in served if may_use(caller, backend)]
    if not mine:
        raise _not_allowed(caller, served[0].name)
    return mine


async def find_route(router: Router, asked: str, caller: ClientKey | None, scope: Scope = EVERYWHERE) -> Route:
    """The route with the targets that may be used, at least one.

    Raises ModelNotFound, NotAllowed, NoAccountUsable (of a route nothing is there), or why there is no list.
    """
    mine = open_to(router, caller, scope)
    route = None if scope.names else router.settled(asked, mine)
    if route is None:
        route = await _found(router, asked, mine, scope, caller)
    if caller is None or not caller.record.allowed_models:
        return route
    targets = tuple(target for target in route.targets if caller.may_use_model(names_of(route, target)))
    if not targets:
        raise NotAllowed("model", names_of(route, route.targets[0])[0], caller.record.allowed_models)
    return structs.replace(route, targets=targets)


def names_of(route: Route, target: Target) -> tuple[str, ...]:
    """All that a key's patterns may know a target of this route by."""
    return (*target.names(), route.name)


async def _found(router: Router, asked: str, mine: Sequence[Backend], scope: Scope, caller: ClientKey | None) -> Route:
    for name, other in scope.names:
        if asked.strip().casefold() == name:
            directory = await router.directory(mine, other)
            if directory.has(other):
                asked = other
    try:
        route = await router.route(asked, mine)
    except ModelNotFound:
        _refuse_if_elsewhere(router, asked, mine, scope, caller)
        raise
    if not route.targets:
        _refuse_if_elsewhere(router, asked, mine, scope, caller)
        raise NoAccountUsable(_why_none(route))
    return route


def _refuse_if_elsewhere(
    router: Router, asked: str, mine: Sequence[Backend], scope: Scope, caller: ClientKey | None
) -> None:
    """Raises NotAllowed where a backend that the key may not use has the model."""
    served = [backend for backend in router.backends() if scope.takes(backend)]
    if len(served) > len(mine):
        directory = router.known(served)
        if directory.has(asked) and (targets := directory.find(asked).targets):
            raise _not_allowed(caller, targets[0].backend)


def _not_allowed(caller: ClientKey | None, backend: str) -> NotAllowed:
    assert caller is not None  # who has no key may use all
    return NotAllowed("backend", backend, caller.record.allowed_backends)


def _why_none(route: Route) -> str:
    told = "; ".join(f"{each.backend}:{each.model} ({each.why})" for each in route.missing)
    return f"nothing that {route.name!r} leads to is there now: {told}"
