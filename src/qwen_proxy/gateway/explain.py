"""Where a request would go now, and why: told without asking anybody but for lists of models."""

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

from qwen_proxy.accounts.report import clock_time
from qwen_proxy.config.keys import ClientKey
from qwen_proxy.gateway.admission import Admission
from qwen_proxy.gateway.backend import Backend, BackendKind
from qwen_proxy.gateway.permission import find_route, may_use, names_of
from qwen_proxy.gateway.router import Router
from qwen_proxy.gateway.routing import Found, Route, Target
from qwen_proxy.ground.errors import (
    AccountsBusy,
    AccountsChallenged,
    AccountsOutOfQuota,
    NoAccountUsable,
    NotAllowed,
)


class State(StrEnum):
    """Of a target, or of a backend. MISSING: the backend or its model is not there."""

    OK = "ok"
    PARKED = "parked"
    CHALLENGED = "challenged"
    FULL = "full"
    UNUSABLE = "unusable"
    NOT_ALLOWED = "not allowed"
    MISSING = "missing"


class Standing(Struct, frozen=True, kw_only=True):
    """reason: a clause, empty where all is well. until: Unix seconds, None where nobody knows."""

    state: State = State.OK
    reason: str = ""
    until: float | None = None


class TargetFacts(Struct, frozen=True, kw_only=True):
    """In the order in which they are tried; with weights, any may be the first."""

    backend: str
    model: str
    weight: int | None
    standing: Standing


class Explained(Struct, frozen=True, kw_only=True):
    """found: by which line of `gateway.routing`'s table. via: the name that stands for the one asked.

    goes_to: the backend, None where the request would be refused; refusal: with which sentence.
    """

    asked: str
    name: str
    found: Found
    via: str
    targets: tuple[TargetFacts, ...]
    goes_to: str | None
    refusal: str


async def explain(router: Router, admission: Admission, asked: str, caller: ClientKey | None, now: float) -> Explained:
    """caller: None for a key that may do everything. now: Unix seconds.

    Raises ModelNotFound, or why there is no list.
    """
    everywhere = (await router.directory(router.backends(), asked)).find(asked)
    route, refusal = everywhere, ""
    try:
        route = await find_route(router, asked, caller)
    except (NotAllowed, NoAccountUsable) as error:
        refusal = str(error)
    facts = [_target(router, admission, route, target, caller, now) for target in _each(route, everywhere)]
    facts += [
        TargetFacts(
            backend=each.backend,
            model=each.model,
            weight=None,
            standing=Standing(state=State.MISSING, reason=each.why),
        )
        for each in everywhere.missing
    ]
    chosen = _first(facts, State.OK) or _first(facts, State.FULL)  # which would be waited for
    if chosen is None and not refusal:
        refusal = next(each.standing.reason for each in facts)
    return Explained(
        asked=asked,
        name=route.name,
        found=route.found,
        via=route.via,
        targets=tuple(facts),
        goes_to=None if refusal or chosen is None else chosen.backend,
        refusal=refusal,
    )


def backend_standing(backend: Backend, now: float) -> Standing:
    """Whether it would take a request now."""
    shortage = backend.shortage()
    if shortage is None:
        return Standing()
    match shortage:
        case AccountsOutOfQuota():
            state = State.PARKED
        case AccountsChallenged():
            state = State.CHALLENGED
        case AccountsBusy():
            state = State.FULL
        case _:
            state = State.UNUSABLE
    rest = None if isinstance(shortage, AccountsBusy) else shortage.retry_after_seconds
    return Standing(state=state, reason=str(shortage), until=None if rest is None else now + rest)


def _first(facts: Sequence[TargetFacts], state: State) -> TargetFacts | None:
    """The likeliest of them, where there are weights."""
    fitting = [each for each in facts if each.standing.state is state]
    return max(fitting, key=lambda each: each.weight or 0, default=None)


def _each(route: Route, everywhere: Route) -> list[Target]:
    """Those of the key's own route, then those that it may not use."""
    places = {(target.backend, target.name) for target in route.targets}
    return [*route.targets, *(each for each in everywhere.targets if (each.backend, each.name) not in places)]


def _target(
    router: Router, admission: Admission, route: Route, target: Target, caller: ClientKey | None, now: float
) -> TargetFacts:
    backend = router.find(target.backend)
    if backend is None:
        standing = Standing(state=State.MISSING, reason="the backend is not here any more")
    else:
        standing = _refused(admission, backend, route, target, caller, now) or backend_standing(backend, now)
    return TargetFacts(backend=target.backend, model=target.model.id, weight=target.weight, standing=standing)


def _refused(
    admission: Admission, backend: Backend, route: Route, target: Target, caller: ClientKey | None, now: float
) -> Standing | None:
    """What the key says against it."""
    if caller is None:
        return None
    if not may_use(caller, backend):
        return Standing(state=State.NOT_ALLOWED, reason="the key may not use this backend")
    if not caller.may_use_model(names_of(route, target)):
        return Standing(state=State.NOT_ALLOWED, reason="the key may not use this model")
    left = admission.api_standing(caller) if backend.kind is BackendKind.API else None
    if left is not None and left.remaining <= 0:
        reason = f"the key's API tokens of the day are used up until {clock_time(left.ends_at, now)}"
        return Standing(state=State.NOT_ALLOWED, reason=reason, until=left.ends_at)
    return None
