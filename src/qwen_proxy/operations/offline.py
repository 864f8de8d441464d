"""What is kept, opened by a command itself: no server has to run, and one that runs is not disturbed."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from msgspec import Struct

from qwen_proxy.admin.audit import Author, audit_line
from qwen_proxy.app.machine import Machine
from qwen_proxy.config.choices import SaveMode
from qwen_proxy.config.secret_key import load_secret
from qwen_proxy.config.settings import Settings, WrongSetting
from qwen_proxy.state.kinds import VAULT
from qwen_proxy.state.store import Append, ProcessRow, Store
from qwen_proxy.state.vault import Vault, new_document
from qwen_proxy.storage.memory import MemoryStore
from qwen_proxy.storage.opening import VAULT_ID, FilePlace, Place, load_vault, open_store, place_of

NOTHING_KEPT: Final = "file or redis: with none nothing outlives the server, so there is nothing to work on"


class Opened(Struct, frozen=True):
    store: Store
    vault: Vault


class ServersRunning(Exception):
    """What was asked for can't be done under the feet of running processes."""

    def __init__(self, what: str, processes: list[ProcessRow]) -> None:
        them = ", ".join(f"{row.host}:{row.pid}" for row in processes[:5])
        super().__init__(f"{what} while processes work with this data ({them}): stop them first")


def kept_place(settings: Settings) -> Place:
    """Raises WrongSetting where nothing is kept."""
    if settings.save_mode is SaveMode.NONE:
        raise WrongSetting("DATA_SAVE_MODE", settings.save_mode.value, NOTHING_KEPT)
    return place_of(settings)


@asynccontextmanager
async def open_kept(settings: Settings, machine: Machine) -> AsyncGenerator[Opened]:
    """Made when it is not there yet. Raises WrongSetting, StoreUnavailable."""
    place = kept_place(settings)
    async with open_store(place, machine.clock) as store:
        yield Opened(store, await load_vault(store, load_secret(settings, machine.ids).secret))


@asynccontextmanager
async def open_to_look(
    settings: Settings, machine: Machine, *, has_to_be_there: bool = False
) -> AsyncGenerator[Opened]:
    """The same for who only reads: what is not there is not made either. Raises WrongSetting, StoreUnavailable."""
    place = kept_place(settings)
    if isinstance(place, FilePlace) and not place.path.exists():
        if has_to_be_there:
            raise WrongSetting("DATA_DIR", str(settings.data_dir), f"the folder that holds {place.path.name}")
        yield Opened(MemoryStore(machine.clock), Vault(new_document()))
        return
    async with open_store(place, machine.clock) as store:
        if await store.get(VAULT, VAULT_ID) is None:
            yield Opened(store, Vault(new_document()))
        else:
            yield Opened(store, await load_vault(store, load_secret(settings, machine.ids).secret))


async def require_alone(store: Store, what: str) -> None:
    """what: such as "the data can't be replaced". Raises ServersRunning."""
    if processes := await store.processes():
        raise ServersRunning(what, processes)


def by_command(action: str, details: Mapping[str, object] | None = None) -> Append:
    """The line of the audit log for what a command does without a server."""
    author = Author(key_id="", key_name="command line", address="", request_id="")
    return audit_line(author, action, details=details)
