"""/api/admin/routes: where names of models lead, how the backends are, and where a request would go."""

from contextlib import suppress
from typing import Annotated

from msgspec import Meta, Struct

from qwen_proxy.admin.audit import audit_line
from qwen_proxy.admin.diagnostics import UnmappedBody
from qwen_proxy.admin.reading import Nothing
from qwen_proxy.admin.routing import AdminRoute, Call, route
from qwen_proxy.config.keybook import KeyBook
from qwen_proxy.config.routes import Rule, WrongRoute, make_rule, read_rules, rules_text
from qwen_proxy.config.runtime import LiveSettings
from qwen_proxy.gateway.admission import Admission
from qwen_proxy.gateway.backend import WEB, Backend, BackendKind
from qwen_proxy.gateway.explain import Standing, State, backend_standing, explain
from qwen_proxy.gateway.router import Router
from qwen_proxy.gateway.routing import Found
from qwen_proxy.ground.errors import InvalidRequest, NotFound, ProxyError
from qwen_proxy.runtime.clock import Clock

PATH = "/api/admin/routes"
TAG = "routes"
VARIABLE = "MODEL_ROUTES"
MOST_UNMAPPED = 100  # that are told


class StandingBody(Struct, frozen=True, kw_only=True):
    """reason: a clause, empty where all is well. until: Unix seconds, null where nobody knows."""

    state: State
    reason: str
    until: float | None


class BackendBody(Struct, frozen=True, kw_only=True):
    """models: how many it has, null while its list could not be fetched. prefix: before its models' public ids."""

    name: str
    kind: BackendKind
    prefix: str
    models: int | None
    standing: StandingBody


class RouteTargetBody(Struct, frozen=True, kw_only=True):
    """problem: why it is not there, empty where it is."""

    backend: str
    model: str
    weight: int | None
    problem: str


class RouteBody(Struct, frozen=True, kw_only=True):
    name: str
    targets: tuple[RouteTargetBody, ...]


class RoutesBody(Struct, frozen=True, kw_only=True):
    """backends: in the order in which they are tried where no route says otherwise. unmapped: names asked for that
    nobody gave a meaning, the most frequent first, as the process that answers has counted since its start."""

    routes: tuple[RouteBody, ...]
    backends: tuple[BackendBody, ...]
    unmapped: tuple[UnmappedBody, ...]


class RoutePutBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """targets: such as "web:qwen3.7-plus", or "web:qwen3.8-max*3" with a weight."""

    targets: tuple[str, ...]


class ExplainQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """model: empty for a request that names none. key: an id, for what that key may do."""

    model: Annotated[str, Meta(max_length=500)] = ""
    key: str = ""


class ExplainedTargetBody(Struct, frozen=True, kw_only=True):
    backend: str
    model: str
    weight: int | None
    standing: StandingBody


class ExplainedBody(Struct, frozen=True, kw_only=True):
    """found: how the name was found. via: the name that stands for the one asked. targets: in the order in which they
    are tried. goes_to: the backend that would be asked first, null where the request would be refused: see refusal."""

    model: str
    name: str
    found: Found
    via: str
    targets: tuple[ExplainedTargetBody, ...]
    goes_to: str | None
    refusal: str


class RouteRoutes:
    """Routes that are set here are the setting MODEL_ROUTES, with its history and undo."""

    def __init__(self, live: LiveSettings, router: Router, admission: Admission, keys: KeyBook, clock: Clock) -> None:
        self._live = live
        self._router = router
        self._admission = admission
        self._keys = keys
        self._clock = clock

    def table(self) -> tuple[AdminRoute, ...]:
        one = f"{PATH}/{{name}}"
        return (
            route("GET", PATH, "Where names lead, and how the backends are", self.show, tag=TAG),
            route("GET", f"{PATH}/explain", "Where a request would go now, and why", self.explain, tag=TAG),
            route("PUT", one, "Have a name lead somewhere, in every worker within a second", self.put, tag=TAG),
            route("DELETE", one, "Forget a route", self.remove, tag=TAG),
        )

    async def show(self, call: Call[Nothing, Nothing]) -> RoutesBody:
        """Lists of models that were never fetched are waited for."""
        await self._lists()
        return RoutesBody(
            routes=tuple(self._route(rule) for rule in self._live.current.model_routes),
            backends=tuple(self._backend(backend) for backend in self._router.backends()),
            unmapped=unmapped(self._router),
        )

    async def explain(self, call: Call[ExplainQuery, Nothing]) -> ExplainedBody:
        """Raises ModelNotFound, NotFound."""
        query, now = call.query, self._clock.now()
        key = await self._keys.get(query.key) if query.key else None
        told = await explain(self._router, self._admission, query.model, key, now)
        return ExplainedBody(
            model=told.asked,
            name=told.name,
            found=told.found,
            via=told.via,
            targets=tuple(
                ExplainedTargetBody(
                    backend=each.backend, model=each.model, weight=each.weight, standing=_standing(each.standing)
                )
                for each in told.targets
            ),
            goes_to=told.goes_to,
            refusal=told.refusal,
        )

    async def put(self, call: Call[Nothing, RoutePutBody]) -> RouteBody:
        """Raises InvalidRequest."""
        try:
            rule = make_rule(call.path["name"], call.body.targets)
        except WrongRoute as error:
            raise InvalidRequest(str(error), param="targets") from error
        known = {WEB, *(backend.name for backend in self._router.backends())}
        for index, each in enumerate(rule.destinations):
            if each.backend not in known:
                right = ", ".join(sorted(known))
                raise InvalidRequest(
                    f"there is no backend {each.backend!r}; there are {right}", param=f"targets[{index}]"
                )

        def change(text: str) -> str:
            rules = {each.name.casefold(): each for each in read_rules(text)}
            return rules_text({**rules, rule.name.casefold(): rule}.values())

        line = audit_line(call.by, "route.set", rule.name, {"targets": ", ".join(map(str, rule.destinations))})
        await self._live.amend(VARIABLE, change, line, by=call.by.key_name, request_id=call.by.request_id)
        await self._lists()
        return self._route(rule)

    async def remove(self, call: Call[Nothing, Nothing]) -> None:
        """Raises NotFound."""
        name = call.path["name"].strip()

        def change(text: str) -> str:
            rules = read_rules(text)
            left = [each for each in rules if each.name.casefold() != name.casefold()]
            if len(left) == len(rules):
                raise NotFound(f"route {name[:100]!r}")
            return rules_text(left)

        line = audit_line(call.by, "route.remove", name)
        await self._live.amend(VARIABLE, change, line, by=call.by.key_name, request_id=call.by.request_id)

    async def _lists(self) -> None:
        with suppress(ProxyError):  # told as what is not known
            await self._router.directory(self._router.backends())

    def _route(self, rule: Rule) -> RouteBody:
        directory = self._router.known(self._router.backends())
        return RouteBody(
            name=rule.name,
            targets=tuple(
                RouteTargetBody(
                    backend=each.backend, model=each.model, weight=each.weight, problem=directory.why_missing(each)
                )
                for each in rule.destinations
            ),
        )

    def _backend(self, backend: Backend) -> BackendBody:
        catalogue = backend.catalogue.current
        return BackendBody(
            name=backend.name,
            kind=backend.kind,
            prefix=backend.prefix,
            models=None if catalogue is None else len(catalogue.models),
            standing=_standing(backend_standing(backend, self._clock.now())),
        )


def unmapped(router: Router) -> tuple[UnmappedBody, ...]:
    """The most frequent first."""
    counted = sorted(router.unmapped.items(), key=lambda item: (-item[1], item[0]))
    return tuple(UnmappedBody(name=name, count=count) for name, count in counted[:MOST_UNMAPPED])


def _standing(standing: Standing) -> StandingBody:
    return StandingBody(state=standing.state, reason=standing.reason, until=standing.until)
