"""An upstream and a lease desk that play from a script, for tests of what stands between."""

from collections.abc import AsyncGenerator, Sequence, Set
from contextlib import asynccontextmanager

from qwen_proxy.accounts.leasing import Lease
from qwen_proxy.accounts.model import Credential, Feature, Outcome, OutcomeKind
from qwen_proxy.chat.events import Batch
from qwen_proxy.chat.models import Model
from qwen_proxy.chat.request import ChatRequest
from qwen_proxy.ground.errors import NoAccountUsable, ProxyError
from qwen_proxy.ground.secret import Secret

Script = Sequence[Batch | ProxyError]


class ScriptedUpstream:
    """Plays one script per `open`, in order; the last one again and again. An error in a script is raised there."""

    name: str = "scripted"
    has_native_tools: bool = False
    has_native_output: bool = False
    forwards_fields: bool = False

    def __init__(self, *scripts: Script, models: Sequence[Model] = (), refusal: ProxyError | None = None) -> None:
        self.refusal = refusal
        self.scripts = list(scripts)
        self.model_list = list(models)
        self.requests: list[ChatRequest] = []
        self.accounts: list[str] = []
        self.open_now = 0

    def check(self, request: ChatRequest) -> None:
        if self.refusal is not None:
            raise self.refusal

    @asynccontextmanager
    async def open(
        self, request: ChatRequest, model: Model, credential: Credential, deadline: float
    ) -> AsyncGenerator[AsyncGenerator[Batch]]:
        script = self.scripts[min(len(self.requests), len(self.scripts) - 1)]
        self.requests.append(request)
        self.accounts.append(credential.account_id)
        self.open_now += 1
        try:
            yield self._play(script)
        finally:
            self.open_now -= 1

    async def _play(self, script: Script) -> AsyncGenerator[Batch]:
        for step in script:
            if isinstance(step, ProxyError):
                raise step
            yield step

    async def models(self, credential: Credential | None, deadline: float) -> list[Model]:
        return self.model_list


class Desk:
    """A Leasing over a fixed row of accounts, `id` or `id@exit`; remembers what was asked and reported."""

    def __init__(
        self,
        *accounts: str,
        renewal: ProxyError | None = None,
        empty: ProxyError | None = None,
        shortage: ProxyError | None = None,
        shortages: int = 1_000_000,
    ) -> None:
        self.credentials = [
            Credential(account_id=name.partition("@")[0], token=Secret("t"), exit=name.partition("@")[2])
            for name in accounts
        ]
        self.renewal = renewal
        self.empty = empty  # raised instead of leasing an account that is to be avoided
        self.shortage = shortage  # raised by so many leases
        self.shortages = shortages
        self.deadlines: list[float] = []
        self.renewed: list[str] = []
        self.outcomes: list[tuple[str, OutcomeKind]] = []
        self.held = 0
        self.sessions: list[str] = []

    @property
    def follows_sessions(self) -> bool:
        return True

    @asynccontextmanager
    async def lease(
        self,
        feature: Feature,
        *,
        deadline: float,
        avoid_accounts: Set[str] = frozenset(),
        avoid_exits: Set[str] = frozenset(),
        only_account: str | None = None,
        session: str = "",
    ) -> AsyncGenerator[Lease]:
        self.sessions.append(session)
        self.deadlines.append(deadline)
        if self.shortage is not None and self.shortages > 0:
            self.shortages -= 1
            raise self.shortage
        wanted = [each for each in self.credentials if only_account in (None, each.account_id)]
        if not wanted:
            raise NoAccountUsable("no account is configured")
        wanted.sort(key=lambda each: (each.exit in avoid_exits, each.account_id in avoid_accounts))
        if self.empty is not None and wanted[0].account_id in avoid_accounts:
            raise self.empty
        self.held += 1
        lease = DeskLease(wanted[0], self)
        try:
            yield lease
        finally:
            self.held -= 1

    async def renew(self, stale: Credential, *, deadline: float) -> None:
        self.renewed.append(stale.account_id)
        if self.renewal is not None:
            raise self.renewal


class DeskLease:
    def __init__(self, credential: Credential, desk: Desk) -> None:
        self.credential = credential
        self._desk = desk

    def report(self, outcome: Outcome) -> None:
        self._desk.outcomes.append((self.credential.account_id, outcome.kind))
