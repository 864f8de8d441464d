"""The backends that are kept, and those of the environment: what there is in all.

A kept document with a spec is a backend that an operator added. One without is about a backend of the environment,
which is described there alone: it only says whether it is switched off.
"""

from collections.abc import Container, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.config.backends import OPENAI, BackendForm, BackendSpec, WrongBackend, spec_of
from qwen_proxy.ground.errors import AlreadyExists, InvalidRequest, NotFound
from qwen_proxy.state.collection import Collection
from qwen_proxy.state.kinds import BACKEND
from qwen_proxy.state.store import Append, Store
from qwen_proxy.state.vault import Vault


class BackendOrigin(StrEnum):
    ENVIRONMENT = "environment"  # a variable or BACKENDS
    ADDED = "added"  # by an operator, while the program ran


class KeptBackend(Struct, frozen=True, kw_only=True):
    """A document of kind `backend`; its id is the name."""

    spec: BackendSpec | None = None
    enabled: bool = True


class KnownBackend(Struct, frozen=True, kw_only=True):
    spec: BackendSpec
    origin: BackendOrigin


def together(environment: Sequence[BackendSpec], kept: Mapping[str, KeptBackend]) -> list[KnownBackend]:
    """All of them: the environment's first, in its order, then the added ones by name. The environment wins a name."""
    found: dict[str, KnownBackend] = {}
    for spec in environment:
        is_enabled = spec.enabled and (spec.name not in kept or kept[spec.name].enabled)
        found[spec.name] = KnownBackend(spec=replace(spec, enabled=is_enabled), origin=BackendOrigin.ENVIRONMENT)
    for name in sorted(kept):
        spec = kept[name].spec
        if spec is not None and name not in found:
            found[name] = KnownBackend(spec=replace(spec, enabled=kept[name].enabled), origin=BackendOrigin.ADDED)
    return list(found.values())


class BackendBook:
    """Adds, changes and removes; raises StoreUnavailable, and a client's error that names the field."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        environment: Sequence[BackendSpec],
        *,
        protocols: Container[str] = (OPENAI,),
    ) -> None:
        self._records = Collection(store, BACKEND, KeptBackend, vault)
        self._protocols = protocols
        self._environment = {spec.name: spec for spec in environment}

    @property
    def records(self) -> Collection[KeptBackend]:
        return self._records

    async def all(self) -> list[KnownBackend]:
        kept = {entry.id: entry.value for entry in await self._records.all_readable()}
        return together(list(self._environment.values()), kept)

    async def get(self, name: str) -> KnownBackend:
        found = next((each for each in await self.all() if each.spec.name == name), None)
        if found is None:
            raise NotFound(f"backend {name!r}")
        return found

    async def add(self, form: BackendForm, *also: Append) -> KnownBackend:
        spec = self._spoken(checked(form))
        if spec.name in self._environment:
            raise AlreadyExists(f"the backend {spec.name!r}")

        def change(before: KeptBackend | None) -> KeptBackend:
            if before is not None and before.spec is not None:
                raise AlreadyExists(f"the backend {spec.name!r}")
            return KeptBackend(spec=spec, enabled=spec.enabled)

        await self._records.update(spec.name, change, *also)
        return await self.get(spec.name)

    async def edit(self, name: str, form: BackendForm, *also: Append) -> KnownBackend:
        """What the form leaves out stays. Only `enabled` of one of the environment can be changed, and not of one that
        is switched off there."""
        known = await self.get(name)
        if known.origin is BackendOrigin.ENVIRONMENT:
            if form != BackendForm(enabled=form.enabled):
                raise InvalidRequest(
                    f"the backend {name!r} is described in the environment: change it there", param="name"
                )
            if form.enabled and not self._environment[name].enabled:
                raise InvalidRequest(
                    f"the backend {name!r} is switched off in the environment: change it there", param="enabled"
                )
        if form == BackendForm():
            return known

        def change(before: KeptBackend | None) -> KeptBackend:
            if known.origin is BackendOrigin.ENVIRONMENT:
                spec = None if before is None else before.spec  # an added one that is behind this one's name
                return KeptBackend(spec=spec, enabled=form.enabled is not False)
            if before is None or before.spec is None:
                raise NotFound(f"backend {name!r}")
            enabled = before.enabled if form.enabled is None else form.enabled
            return KeptBackend(spec=self._spoken(checked(form, before.spec)), enabled=enabled)

        await self._records.update(name, change, *also)
        return await self.get(name)

    async def remove(self, name: str, *also: Append) -> KnownBackend:
        known = await self.get(name)
        if known.origin is BackendOrigin.ENVIRONMENT:
            raise InvalidRequest(
                f"the backend {name!r} is described in the environment: take it out there, or disable it", param="name"
            )
        await self._records.update(name, lambda before: None, *also)
        return known

    def _spoken(self, spec: BackendSpec) -> BackendSpec:
        if spec.protocol not in self._protocols:
            raise InvalidRequest(f"nobody here speaks {spec.protocol!r}", param="protocol")
        return spec


def checked(form: BackendForm, before: BackendSpec | None = None) -> BackendSpec:
    """As `spec_of`, for a client."""
    try:
        return spec_of(form, before)
    except WrongBackend as error:
        raise InvalidRequest(str(error), param=error.field) from error
