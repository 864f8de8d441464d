"""/api/admin/backends: servers that speak OpenAI's API; looking at them, adding, changing, testing, removing them."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from msgspec import Struct

from qwen_proxy.accounts.key_health import KeyState
from qwen_proxy.accounts.key_pool import KeyReport, Tried
from qwen_proxy.accounts.report import exit_name
from qwen_proxy.admin.audit import audit_line
from qwen_proxy.admin.reading import Nothing
from qwen_proxy.admin.routing import AdminRoute, Call, route
from qwen_proxy.config.backend_book import BackendBook, BackendOrigin, KnownBackend
from qwen_proxy.config.backends import BackendForm, BackendSpec, ServerKind, Thinking
from qwen_proxy.gateway.backend import Backend
from qwen_proxy.ground.redact import redacted
from qwen_proxy.ground.secret import MASK
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.state.store import Store

PATH: Final = "/api/admin/backends"
TAG: Final = "backends"


class Desk(Protocol):
    """What is needed of `app.backends.ApiBackends`. test raises NotFound."""

    @property
    def book(self) -> BackendBook: ...
    def current(self) -> Sequence[Backend]: ...
    def reports(self, name: str) -> list[KeyReport]: ...
    async def test(self, name: str) -> list[Tried]: ...


class BackendKeyBody(Struct, frozen=True, kw_only=True):
    """One API key, never itself. hint: its end, empty for a short one. until: when it is used again by itself, Unix
    seconds; null where nobody knows, or it is used now. reason: the server's word, empty where all is well."""

    id: str
    hint: str
    state: KeyState
    in_use: int
    until: float | None
    reason: str


class KnownBackendBody(Struct, frozen=True, kw_only=True):
    """models: its ids as configured; empty: its server is asked. listed: how many it has, null while that is unknown.

    origin: one of the environment is changed there, but for `enabled`. headers: names only. exit: without its login,
    empty where none was set. concurrency: requests at a time over all processes, 0 for no limit.
    """

    name: str
    kind: ServerKind
    base_url: str
    preset: str
    origin: BackendOrigin
    enabled: bool
    models: tuple[str, ...]
    listed: int | None
    prefix: str
    headers: tuple[str, ...]
    exit: str
    concurrency: int
    key_concurrency: int
    thinking: Thinking
    keys: tuple[BackendKeyBody, ...]


class KnownBackendsBody(Struct, frozen=True, kw_only=True):
    """The environment's first, in the order in which they are preferred; then the added ones by name."""

    backends: tuple[KnownBackendBody, ...]


class MoreKeysBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """keys: API keys; one that is there already stays as it is."""

    keys: tuple[str, ...]

    def __repr__(self) -> str:
        return f"MoreKeysBody({len(self.keys)})"


class TriedKeyBody(Struct, frozen=True, kw_only=True):
    """models: what the server lists for it. problem: why it lists none, empty where it does."""

    id: str
    hint: str
    models: tuple[str, ...]
    problem: str


class BackendTestBody(Struct, frozen=True, kw_only=True):
    """works: whether every key does. keys: one with the id "none" where the server is asked without."""

    works: bool
    keys: tuple[TriedKeyBody, ...]
    took_seconds: float
    backend: KnownBackendBody


class BackendRoutes:
    """catch_up: after a change this process knows of it too; the others do within a second."""

    def __init__(self, desk: Desk, store: Store, catch_up: Callable[[], Awaitable[None]], clock: Clock) -> None:
        self._desk = desk
        self._store = store
        self._catch_up = catch_up
        self._clock = clock

    def table(self) -> tuple[AdminRoute, ...]:
        one = f"{PATH}/{{name}}"
        return (
            route("GET", PATH, "The backends besides the site, and how their keys are", self.all, tag=TAG),
            route("POST", PATH, "Add a backend, in every worker within a second", self.add, tag=TAG, status=201),
            route("GET", one, "One backend", self.show, tag=TAG),
            route("PATCH", one, "Change a backend; switch it off or on", self.edit, tag=TAG),
            route("POST", f"{one}/test", "Ask its server for the models with every key", self.test, tag=TAG),
            route("POST", f"{one}/keys", "Give a backend more API keys", self.add_keys, tag=TAG),
            route("DELETE", f"{one}/keys/{{id}}", "Forget one API key of a backend", self.remove_key, tag=TAG),
            route("DELETE", one, "Forget a backend and its keys", self.remove, tag=TAG),
        )

    async def all(self, call: Call[Nothing, Nothing]) -> KnownBackendsBody:
        await self._catch_up()
        return KnownBackendsBody(backends=tuple(self._body(known) for known in await self._desk.book.all()))

    async def show(self, call: Call[Nothing, Nothing]) -> KnownBackendBody:
        await self._catch_up()
        return self._body(await self._desk.book.get(call.path["name"]))

    async def add(self, call: Call[Nothing, BackendForm]) -> KnownBackendBody:
        """Raises InvalidRequest, AlreadyExists."""
        form = call.body
        target = form.name or form.preset or ""
        known = await self._desk.book.add(form, audit_line(call.by, "backend.add", target, told(form)))
        await self._catch_up()
        return self._body(known)

    async def edit(self, call: Call[Nothing, BackendForm]) -> KnownBackendBody:
        """Raises NotFound, InvalidRequest."""
        name, form = call.path["name"], call.body
        known = await self._desk.book.edit(name, form, audit_line(call.by, "backend.change", name, told(form)))
        await self._catch_up()
        return self._body(known)

    async def add_keys(self, call: Call[Nothing, MoreKeysBody]) -> KnownBackendBody:
        """Raises NotFound, InvalidRequest."""
        name, keys = call.path["name"], call.body.keys
        line = audit_line(call.by, "backend.add_keys", name, {"keys": len(keys)})
        known = await self._desk.book.add_keys(name, keys, line)
        await self._catch_up()
        return self._body(known)

    async def remove_key(self, call: Call[Nothing, Nothing]) -> KnownBackendBody:
        """What runs with it goes on. Raises NotFound, InvalidRequest."""
        name, id = call.path["name"], call.path["id"]
        line = audit_line(call.by, "backend.remove_key", name, {"key": id})
        known = await self._desk.book.remove_keys(name, [id], line)
        await self._catch_up()
        return self._body(known)

    async def remove(self, call: Call[Nothing, Nothing]) -> None:
        """Raises NotFound, InvalidRequest."""
        name = call.path["name"]
        await self._desk.book.remove(name, audit_line(call.by, "backend.remove", name))
        await self._catch_up()

    async def test(self, call: Call[Nothing, Nothing]) -> BackendTestBody:
        """Also one that is switched off. Costs no tokens. A key that works is used again, one that is refused is not.
        Raises NotFound."""
        name, started_at = call.path["name"], self._clock.monotonic()
        found = await self._desk.test(name)
        taken = sum(not each.problem for each in found)
        await self._store.write([audit_line(call.by, "backend.test", name, {"keys": len(found), "taken": taken})])
        await self._catch_up()
        known = await self._desk.book.get(name)
        hints = {report.id: report.hint for report in self._desk.reports(name)}
        return BackendTestBody(
            works=taken == len(found),
            keys=tuple(
                TriedKeyBody(
                    id=each.key,
                    hint=hints.get(each.key, ""),
                    models=each.models,
                    problem=without_keys(each.problem, known.spec),
                )
                for each in found
            ),
            took_seconds=round(self._clock.monotonic() - started_at, 3),
            backend=self._body(known),
        )

    def _body(self, known: KnownBackend) -> KnownBackendBody:
        name = known.spec.name
        running = next((each for each in self._desk.current() if each.name == name), None)
        catalogue = None if running is None else running.catalogue.current
        return backend_body(known, self._desk.reports(name), None if catalogue is None else len(catalogue.models))


def backend_body(known: KnownBackend, reports: Sequence[KeyReport], listed: int | None) -> KnownBackendBody:
    spec = known.spec
    return KnownBackendBody(
        name=spec.name,
        kind=spec.kind,
        base_url=redacted(spec.base_url),
        preset=spec.preset,
        origin=known.origin,
        enabled=spec.enabled,
        models=spec.models,
        listed=listed,
        prefix=spec.prefix,
        headers=tuple(name for name, _ in spec.headers),
        exit=exit_name(spec.exit) if spec.exit else "",
        concurrency=spec.concurrency,
        key_concurrency=spec.key_concurrency,
        thinking=spec.thinking,
        keys=tuple(
            BackendKeyBody(
                id=report.id,
                hint=report.hint,
                state=report.state,
                in_use=report.in_use,
                until=report.until,
                reason=without_keys(report.reason, spec),
            )
            for report in reports
        ),
    )


def told(form: BackendForm) -> dict[str, object]:
    """What a form says, for the audit log: keys as their number, headers as their names."""
    keys = (form.key,) if form.key is not None else form.keys
    return {
        "preset": form.preset,
        "base_url": form.base_url,
        "kind": None if form.kind is None else form.kind.value,
        "keys": None if keys is None else len(keys),
        "models": None if form.models is None else ", ".join(form.models),
        "prefix": form.prefix,
        "headers": None if form.headers is None else ", ".join(form.headers),
        "exit": form.exit and exit_name(form.exit),
        "concurrency": form.concurrency,
        "key_concurrency": form.key_concurrency,
        "thinking": None if form.thinking is None else form.thinking.value,
        "enabled": form.enabled,
    }


def without_keys(text: str, spec: BackendSpec) -> str:
    """A server may repeat the key that it refuses, and not every key has a shape that is known."""
    for secret in (*spec.keys, *(value for _, value in spec.headers)):
        if len(secret.reveal()) >= 6:  # shorter ones are words that may stand there by chance
            text = text.replace(secret.reveal(), MASK)
    return redacted(text)
