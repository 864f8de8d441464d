"""Looks at an installation from the configuration to one chat, and says what to do about what it finds.

Asks the running server where one runs; else it serves for a moment itself, so that both ways see the same.
"""

import os
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Final

from msgspec import Struct

from qwen_proxy.accounts.model import DIRECT
from qwen_proxy.accounts.report import exit_name
from qwen_proxy.app.commons import accounts_of
from qwen_proxy.app.door import general_exits, open_door, transport_options
from qwen_proxy.app.machine import Machine
from qwen_proxy.config.choices import SaveMode
from qwen_proxy.config.credentials import LoadedKeys, load_keys
from qwen_proxy.config.settings import Settings, WrongSetting, load
from qwen_proxy.ground.errors import StoreUnavailable, UpstreamChallenged
from qwen_proxy.operations import integrity
from qwen_proxy.operations.administration import Administration
from qwen_proxy.operations.advice import (
    Check,
    Trouble,
    failed,
    judge_account,
    judge_clock,
    judge_drift,
    judge_exit,
    passed,
    skipped,
    trouble_of,
    warned,
)
from qwen_proxy.operations.backends import judge_backend
from qwen_proxy.operations.client import Diagnostics, Question, ServerClient, ServerRefused, ServerSilent
from qwen_proxy.operations.offline import open_to_look
from qwen_proxy.operations.probe import Probed, probe
from qwen_proxy.operations.reach import LocalServer, Port, Reached, address, probe_port, reach
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.ids import Ids
from qwen_proxy.upstreams.transport import Transport

SETTLE_SECONDS: Final = 30.0  # for one sign-in; spacing comes on top
MOST_SETTLE_SECONDS: Final = 300.0
POLL_SECONDS: Final = 0.2
UNUSABLE: Final = (Trouble.STORE_UNAVAILABLE, Trouble.WRONG_SECRET, Trouble.DATA_DAMAGED)  # no server starts with that

_REFUSED_CODES: Final[Mapping[str, Trouble]] = {
    "upstream_quota": Trouble.OUT_OF_QUOTA,
    "upstream_verification_required": Trouble.EXIT_CHALLENGED,
    "upstream_unavailable": Trouble.UPSTREAM_DOWN,
    "upstream_timeout": Trouble.UPSTREAM_DOWN,
    "upstream_auth": Trouble.SIGN_IN_FAILED,
}


def _exits_of(settings: Settings) -> list[str]:
    return [account.exit or settings.proxy_url or DIRECT for account in accounts_of(settings)]


class DoctorOptions(Struct, frozen=True, kw_only=True):
    """chats: whether to spend one request on a chat."""

    chats: bool = True
    prompt: str = "Say OK."


class Doctor:
    def __init__(self, clock: Clock, ids: Ids, local: LocalServer, options: DoctorOptions) -> None:
        self._clock = clock
        self._ids = ids
        self._local = local
        self._options = options

    async def examine(self, environ: Mapping[str, str], dotenv: Path | None) -> AsyncGenerator[Check]:
        """Every check, as soon as it is done. What depends on a failed one is skipped. Raises nothing of its own."""
        try:
            settings = load(environ, dotenv)
            keys = load_keys(settings, self._ids)
        except WrongSetting as error:
            folder = error.variable == "DATA_DIR"
            yield failed("configuration", Trouble.DATA_FOLDER if folder else Trouble.CONFIGURATION, str(error))
            return
        for check in (*_configuration(settings, keys), _data_folder(settings.data_dir)):
            yield check
        yield (data := await self._data(settings))
        if data.trouble in UNUSABLE:
            return
        async with (
            Transport(self._clock, transport_options(settings)) as transport,
            reach(settings, keys, transport, self._clock, self._local) as reached,
        ):
            yield _port(settings, reached.is_running)
            async with aclosing(self._through(reached, settings)) as checks:
                async for check in checks:
                    yield check

    async def _data(self, settings: Settings) -> Check:
        """What is kept: whether it can be opened, and all of it read."""
        if settings.save_mode is SaveMode.NONE:
            return skipped("data", "nothing is kept with DATA_SAVE_MODE=none")
        try:
            async with open_to_look(settings, Machine(self._clock, self._ids)) as opened:
                seen = await integrity.examine(opened)
        except StoreUnavailable as error:
            return failed("data", Trouble.STORE_UNAVAILABLE, str(error))
        except WrongSetting as error:
            trouble = Trouble.WRONG_SECRET if error.variable == "SECRET_KEY" else Trouble.STORE_UNAVAILABLE
            return failed("data", trouble, str(error))
        if seen.faults:
            return failed("data", Trouble.DATA_DAMAGED, "; ".join(seen.faults))
        if seen.notes:
            return warned("data", Trouble.ROTATION_UNFINISHED, "; ".join(seen.notes))
        return passed("data", f"{sum(seen.records.values())} records, all can be read")

    async def _through(self, reached: Reached, settings: Settings) -> AsyncGenerator[Check]:
        client = reached.client
        try:
            before = await self._settled(client, settings)
        except ServerRefused as error:
            yield failed(
                "server", Trouble.KEY_REFUSED, f"the server at {client.base_url} refuses the admin key: {error}"
            )
            return
        except ServerSilent as error:
            yield failed("server", Trouble.SERVER_SILENT, str(error))
            return
        if reached.is_running:
            yield passed("server", f"version {before.version} runs at {client.base_url}")
        if before.upstream.simulated:
            yield warned("upstream", Trouble.NO_ACCOUNT, "the simulated upstream answers; no real model is behind it")
        probed = [check async for check in self._exits(before, settings)]
        models = await self._models(client)
        chat = await self._chat(client)
        after = await self._again(client, before)  # what the chat has shown of its account is known only now
        now = self._clock.now()
        for facts in after.accounts:
            yield judge_account(facts, now)
        backends = [check async for check in self._backends(client)]
        for check in backends:
            yield check
        if not after.accounts and backends:
            yield skipped("accounts", "there is no account; the backends serve")
        elif not after.accounts:
            yield failed("accounts", Trouble.NO_ACCOUNT, "there is no account")
        states = {facts.exit: judge_exit(facts, now) for facts in after.exits}
        offset = after.upstream.clock_offset_seconds
        exits: list[Check] = []
        for name, found in probed:
            known = states.pop(name, None)
            offset = found.clock_offset_seconds if offset is None else offset
            exits.append(known if known is not None and known.trouble else _probed(name, found))
        for check in (*exits, *states.values()):
            yield check
            if check.trouble and chat.trouble is Trouble.UPSTREAM_DOWN:
                chat = failed("chat", Trouble.CHAT_FAILED, chat.says)  # it follows from the exit, whose line tells more
        yield judge_clock(offset)
        yield models
        yield chat
        yield judge_drift(after.drift)

    async def _settled(self, client: ServerClient, settings: Settings) -> Diagnostics:
        """Wait until every sign-in that is due has had its end. Raises ServerRefused, ServerSilent."""
        patience = SETTLE_SECONDS + settings.signin_spacing_seconds * len(settings.accounts)
        deadline = self._clock.monotonic() + min(patience, MOST_SETTLE_SECONDS)
        while True:
            found = await client.diagnostics()
            waiting = any(facts.state == "signing_in" for facts in found.accounts)
            if not waiting or self._clock.monotonic() >= deadline:
                return found
            await self._clock.sleep(POLL_SECONDS)

    async def _exits(self, found: Diagnostics, settings: Settings) -> AsyncGenerator[tuple[str, Probed]]:
        exits = [DIRECT] if found.upstream.simulated else _exits_of(settings)
        base_url = found.upstream.base_url or settings.chat_base_url
        async with open_door(settings, base_url, Machine(self._clock, self._ids)) as door:
            for exit in dict.fromkeys(exits or general_exits(settings, ())):
                yield exit_name(exit), await probe(door.site, exit)

    async def _backends(self, client: ServerClient) -> AsyncGenerator[Check]:
        """Each that is switched on, asked for its models with every key."""
        administration = Administration(client, self._clock, is_running=True)
        try:
            names = [each.name for each in await administration.backends() if each.enabled]
            for name in names:
                yield judge_backend(await administration.test_backend(name))
        except (ServerRefused, ServerSilent) as error:
            yield warned("backends", Trouble.BACKEND, str(error))

    async def _models(self, client: ServerClient) -> Check:
        try:
            models = await client.models()
        except (ServerRefused, ServerSilent) as error:
            return failed("models", Trouble.NO_MODELS, str(error))
        if not models:
            return failed("models", Trouble.NO_MODELS, "the list is empty")
        return passed("models", f"{len(models)} listed, the first is {models[0].id}")

    async def _chat(self, client: ServerClient) -> Check:
        if not self._options.chats:
            return skipped("chat", "not asked for")
        try:
            answered = await client.ask(Question(text=self._options.prompt, deadline_seconds=180.0))
        except ServerRefused as error:
            where = f" ({error.request_id})" if error.request_id else ""
            return failed("chat", _REFUSED_CODES.get(error.code, Trouble.CHAT_FAILED), f"{error}{where}")
        except ServerSilent as error:
            return failed("chat", Trouble.CHAT_FAILED, str(error))
        if not answered.text:
            return failed("chat", Trouble.CHAT_FAILED, f"the reply was empty ({answered.request_id})")
        first = "" if answered.first_seconds is None else f", the first word after {answered.first_seconds:.1f} s"
        return passed("chat", f"{answered.model} answered in {answered.seconds:.1f} s{first}")

    async def _again(self, client: ServerClient, before: Diagnostics) -> Diagnostics:
        try:
            return await client.diagnostics()
        except (ServerRefused, ServerSilent):
            return before


def _configuration(settings: Settings, keys: LoadedKeys) -> list[Check]:
    checks = [warned("configuration", Trouble.MISSPELT, warning) for warning in settings.warnings]
    checks += [
        warned("key", Trouble.KEY_EXPOSED if keys.file else Trouble.WEAK_KEY, warning) for warning in keys.warnings
    ]
    given = sum(source.value != "default" for source in settings.sources.values())
    return checks or [passed("configuration", f"no fault found; {given} of {len(settings.sources)} variables are set")]


def _data_folder(folder: Path) -> Check:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
            file.write(b"x")
            os.fsync(file.fileno())
    except OSError as error:
        return failed("data folder", Trouble.DATA_FOLDER, f"{folder} can't be written ({error.strerror})")
    return passed("data folder", f"{folder} can be written")


def _port(settings: Settings, is_running: bool) -> Check:
    where = address(settings)
    if is_running:
        return passed("port", f"this program's server listens at {where}")
    try:
        found = probe_port(settings.host, settings.port)
    except OSError as error:
        return failed("port", Trouble.PORT_TAKEN, f"this machine can't listen at {where} ({error.strerror})")
    match found:
        case Port.FREE:
            return passed("port", f"{where} is free; no server runs there now")
        case Port.TAKEN:
            return failed("port", Trouble.PORT_TAKEN, f"another program listens at {where}")
        case Port.DENIED:
            return failed("port", Trouble.PORT_TAKEN, f"this user may not listen at {where}")


def _probed(name: str, found: Probed) -> Check:
    if found.error is None:
        return passed(f"exit {name}", "reaches the upstream")
    if isinstance(found.error, UpstreamChallenged):
        return failed(f"exit {name}", Trouble.EXIT_CHALLENGED, "the site asks for a verification by hand")
    return failed(f"exit {name}", trouble_of(found.error), str(found.error))
