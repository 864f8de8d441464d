"""Whether a key's limits let a request in: all of it is reserved before anything is sent, and settled afterwards.

| of a key's limits | a request reserves | and keeps |
|---|---|---|
| requests per minute | 1 | 1 |
| tokens per minute, day, month | its prompt, estimated, and the most its replies may have | what it has used |
| requests at a time | 1 | 1 until it ends |

What it may spend on paid backends is reserved when it gets there (`api_budget`), since most requests never do.

Either everything is reserved or nothing. Who can't be let in is refused at once, not queued.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, Protocol, Self

from msgspec import Struct

from qwen_proxy.config.keys import ClientKey, KeyRecord, Role
from qwen_proxy.gateway.api_budget import ApiBudget
from qwen_proxy.gateway.sizing import Size
from qwen_proxy.ground.errors import KeyLimitReached, LimitTooSmall
from qwen_proxy.ground.limits import LimitFacts, LimitName, WindowFacts
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.state.allowances import Allowance, Allowances, AllowanceSpent, Share, Standing, Want
from qwen_proxy.state.purse import NoPlace, Purse
from qwen_proxy.state.windows import Period

MOST_KNOWN: Final = 10_000  # keys whose limits are kept at hand


class LimitDefaults(Struct, frozen=True, kw_only=True):
    """For users' keys, where their record says nothing; 0 is no limit. token_reserve: for a reply, where the client
    does not say how long it may be."""

    requests_per_minute: int = 300
    tokens_per_minute: int = 0
    tokens_per_day: int = 0
    tokens_per_month: int = 0
    api_tokens_per_day: int = 0
    concurrent_requests: int = 20
    token_reserve: int = 1024


class Permit(Protocol):
    """One request's. Leaving its block ends the request; what was not settled then was not used."""

    def facts(self) -> LimitFacts | None:
        """Where the key stands now; None for one without limits that have windows."""
        ...

    def settle(self, tokens: int) -> None:
        """What was used in the end, prompt and replies."""
        ...

    @property
    def api(self) -> ApiBudget | None:
        """What tries on paid backends are to be reserved of; None for no limit."""
        ...


class Admission:
    """`defaults` may be replaced at any time."""

    def __init__(self, allowances: Allowances, purse: Purse, clock: Clock, defaults: LimitDefaults) -> None:
        self.defaults = defaults
        self.allowances: Final = allowances
        self.purse: Final = purse
        self.clock: Final = clock
        self._known: dict[str, tuple[KeyRecord, LimitDefaults, Limits | None]] = {}

    def admit(self, key: ClientKey, size: Callable[[], Size]) -> AbstractAsyncContextManager[Permit]:
        """The block in which the request runs. size: asked only where tokens are limited.

        Raises KeyLimitReached and, for a key with limits, StoreUnavailable.
        """
        limits = self._limits_of(key)
        return UNLIMITED if limits is None else LimitedPermit(self, limits, size)

    def api_standing(self, key: ClientKey) -> Standing | None:
        """What is left of its tokens on paid backends today; None for no limit."""
        limits = self._limits_of(key)
        return None if limits is None or limits.api is None else self.allowances.standing(limits.api)

    def _limits_of(self, key: ClientKey) -> "Limits | None":
        known = self._known.get(key.id)
        if known is not None and known[0] is key.record and known[1] is self.defaults:
            return known[2]
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        limits = limits_of(key, self.defaults)
        self._known[key.id] = (key.record, self.defaults, limits)
        return limits


class Limits(Struct, frozen=True, kw_only=True):
    """Of one key. place: the name of its requests at a time, of which there are `places`; 0 for no limit."""

    place: str
    places: int
    requests: Allowance | None
    tokens: tuple[tuple[LimitName, Allowance], ...]
    api: Allowance | None
    token_reserve: int


def limits_of(key: ClientKey, defaults: LimitDefaults) -> Limits | None:
    """What its record says, else the defaults, which are for users; None for no limit at all."""
    if key.role is Role.ADMIN:
        defaults = LimitDefaults(requests_per_minute=0, concurrent_requests=0, token_reserve=defaults.token_reserve)
    own = key.record.limits

    def allowance(word: str, period: Period, limit: int | None, default: int) -> Allowance | None:
        limit = default if limit is None else limit
        return Allowance(f"{word}:{key.id}", period, limit) if limit else None

    requests = allowance("rpm", Period.MINUTE, own.requests_per_minute, defaults.requests_per_minute)
    minute = allowance("tpm", Period.MINUTE, own.tokens_per_minute, defaults.tokens_per_minute)
    day = allowance("day", Period.DAY, own.tokens_per_day, defaults.tokens_per_day)
    month = allowance("month", Period.MONTH, own.tokens_per_month, defaults.tokens_per_month)
    api = allowance("api", Period.DAY, own.api_tokens_per_day, defaults.api_tokens_per_day)
    tokens = tuple(
        (name, each)
        for name, each in (
            (LimitName.TOKENS_PER_MINUTE, minute),
            (LimitName.TOKENS_PER_DAY, day),
            (LimitName.TOKENS_PER_MONTH, month),
        )
        if each is not None
    )
    places = defaults.concurrent_requests if own.concurrent_requests is None else own.concurrent_requests
    if not places and requests is None and not tokens and api is None:
        return None
    return Limits(
        place=f"key:{key.id}",
        places=places,
        requests=requests,
        tokens=tokens,
        api=api,
        token_reserve=defaults.token_reserve,
    )


class UnlimitedPermit:
    """Costs nothing; one for all."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def facts(self) -> LimitFacts | None:
        return None

    def settle(self, tokens: int) -> None:
        pass

    @property
    def api(self) -> ApiBudget | None:
        return None


UNLIMITED: Final = UnlimitedPermit()


class LimitedPermit:
    """Fits `Permit`."""

    def __init__(self, admission: Admission, limits: Limits, size: Callable[[], Size]) -> None:
        self._admission = admission
        self._limits = limits
        self._size = size
        self._shares: list[Share] = []  # of tokens

    async def __aenter__(self) -> Self:
        purse, limits = self._admission.purse, self._limits
        if limits.places:
            try:
                await purse.take(limits.place, limits.places)
            except NoPlace:
                name, places = LimitName.CONCURRENT_REQUESTS, limits.places
                raise KeyLimitReached(name, places, places, 1, facts=self._facts(), resets_at=None) from None
        is_admitted = False
        try:
            await self._reserve()
            is_admitted = True
        finally:
            if not is_admitted:
                self._give_back()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.settle(0)
        self._give_back()

    def facts(self) -> LimitFacts | None:
        return self._facts() if self._limits.requests is not None or self._limits.tokens else None

    def settle(self, tokens: int) -> None:
        shares, self._shares = self._shares, []
        for share in shares:
            self._admission.allowances.correct(share, tokens)

    @property
    def api(self) -> ApiBudget | None:
        limits = self._limits
        if limits.api is None:
            return None
        return ApiBudget(self._admission.allowances, limits.api, self._size, limits.token_reserve, self._facts)

    async def _reserve(self) -> None:
        limits = self._limits
        wants: list[Want] = []
        names: list[LimitName] = []
        if limits.requests is not None:
            wants.append(Want(limits.requests, 1))
            names.append(LimitName.REQUESTS_PER_MINUTE)
        if limits.tokens:
            size = self._size()
            reply_tokens = limits.token_reserve if size.reply_tokens is None else size.reply_tokens
            amount = size.prompt_tokens + size.choices * reply_tokens
            for name, allowance in limits.tokens:
                if size.prompt_tokens > allowance.limit:
                    raise LimitTooSmall(name, allowance.limit, size.prompt_tokens, facts=self._facts())
                wants.append(Want(allowance, min(amount, allowance.limit)))
                names.append(name)
        if not wants:
            return
        try:
            shares = await self._admission.allowances.reserve(wants)
        except AllowanceSpent as spent:
            name = names[wants.index(spent.want)]
            standing = spent.standing
            raise KeyLimitReached(
                name,
                standing.limit,
                standing.limit - standing.remaining,
                spent.want.amount,
                facts=self._facts(),
                resets_at=standing.ends_at,
            ) from None
        self._shares = shares[-len(limits.tokens) :] if limits.tokens else []

    def _give_back(self) -> None:
        if self._limits.places:
            self._admission.purse.give_back(self._limits.place)

    def _facts(self) -> LimitFacts:
        standing = self._admission.allowances.standing
        requests = self._limits.requests
        tokens = [_window(standing(allowance)) for _, allowance in self._limits.tokens]
        return LimitFacts(
            at=self._admission.clock.now(),
            requests=None if requests is None else _window(standing(requests)),
            tokens=min(tokens, key=lambda window: window.remaining, default=None),
        )


def _window(standing: Standing) -> WindowFacts:
    return WindowFacts(standing.limit, standing.remaining, standing.ends_at)
