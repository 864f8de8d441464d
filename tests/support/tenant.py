"""One process of an installation, as hungry as can be, for tests that kill some: `python -m tests.support.tenant …`.

It leases accounts all the time and notes when each use begins and ends; it has requests of keys with limits admitted
and notes what each uses; it writes records and notes each once the write has returned. A note is one unbuffered line
`<monotonic> <what> <name>`, so what a killed process noted is whole.
"""

import argparse
import asyncio
import os
from pathlib import Path
from typing import BinaryIO

import uvloop

from qwen_proxy.accounts.model import Account, Credential, Feature, Outcome, OutcomeKind
from qwen_proxy.accounts.pool import AccountPool, PoolOptions
from qwen_proxy.app.commons import Commons, Kept, open_commons
from qwen_proxy.app.machine import Machine
from qwen_proxy.config.keys import ClientKey, KeyLimits
from qwen_proxy.gateway.admission import Admission, LimitDefaults
from qwen_proxy.gateway.sizing import Size
from qwen_proxy.ground.errors import KeyLimitReached, NoAccountUsable, StoreUnavailable
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.clock import SystemClock
from qwen_proxy.runtime.ids import system_random
from qwen_proxy.runtime.tasks import Tasks
from qwen_proxy.state.store import Append, Kind, Put
from qwen_proxy.storage.opening import FilePlace, Place, RedisPlace
from tests.support.keys import client_key

CLOCK = SystemClock()
SECRET = Secret("of the tests of processes")
NOTE = Kind(name="note")
RESERVED_TOKENS = 100
PLACES = 5
REQUESTS_PER_MINUTE = 300
TOKENS_PER_DAY = 10_000
KEYS = (
    client_key("requests", limits=KeyLimits(requests_per_minute=REQUESTS_PER_MINUTE, concurrent_requests=PLACES)),
    client_key("tokens", limits=KeyLimits(requests_per_minute=0, concurrent_requests=0, tokens_per_day=TOKENS_PER_DAY)),
)
TOPIC = "notes"


def place_at(where: str, prefix: str) -> Place:
    """A path, or the URL of a Redis."""
    return RedisPlace(Secret(where), prefix) if "://" in where else FilePlace(Path(where))


class Notes:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def add(self, what: str, name: str) -> None:
        self._file.write(f"{CLOCK.monotonic():.6f} {what} {name}\n".encode())


async def sign_in(account: Account) -> Credential:
    return Credential(account_id=account.id, token=Secret(f"{account.id} {os.getpid()}"))


async def use_accounts(pool: AccountPool, notes: Notes, seconds: float) -> None:
    chance = system_random()
    while True:
        try:
            async with pool.lease(Feature.CHAT, deadline=CLOCK.monotonic() + 3) as lease:
                notes.add("begins", lease.credential.account_id)
                await asyncio.sleep(chance.random() * seconds)
                notes.add("ends", lease.credential.account_id)
                lease.report(Outcome(kind=OutcomeKind.SUCCEEDED))
        except NoAccountUsable:
            notes.add("busy", "-")
        except StoreUnavailable:
            notes.add("lost", "-")
            await asyncio.sleep(0.05)


async def use_key(key: ClientKey, commons: Commons, notes: Notes, seconds: float) -> None:
    """Notes of a request: `enters` and `leaves` with its key, in between `admitted` and `used` with
    `key/request/window` and `key/request/tokens`."""
    chance = system_random()
    admission = Admission(commons.allowances, commons.purse, CLOCK, LimitDefaults())
    while True:
        request = f"{key.id}/{os.getpid()}-{chance.getrandbits(48):012x}"
        try:
            async with admission.admit(key, lambda: Size(0, RESERVED_TOKENS)) as permit:
                notes.add("enters", key.id)
                facts = permit.facts()
                window = None if facts is None else facts.requests or facts.tokens
                assert window is not None
                notes.add("admitted", f"{request}/{window.resets_at:.0f}")
                await asyncio.sleep(chance.random() * seconds)
                tokens = int(chance.random() * RESERVED_TOKENS)
                notes.add("used", f"{request}/{tokens}")
                permit.settle(tokens)
                notes.add("leaves", key.id)
        except KeyLimitReached:
            await asyncio.sleep(0.02)
        except StoreUnavailable:
            await asyncio.sleep(0.05)


async def write_records(commons: Commons, notes: Notes) -> None:
    number = 0
    while True:
        number += 1
        name = f"{os.getpid()}-{number}"
        try:
            await commons.store.write(
                [Put(kind=NOTE, id=name, value=name.encode(), expect=0), Append(topic=TOPIC, value=name.encode())]
            )
        except StoreUnavailable:
            await asyncio.sleep(0.05)
        else:
            notes.add("wrote", name)
        await asyncio.sleep(0.01)


async def live(place: Place, notes: Notes, concurrency: int, users: int, seconds: float) -> None:
    machine = Machine()
    options = PoolOptions(account_concurrency=concurrency, signin_spacing_seconds=0)
    async with open_commons(Kept(place, SECRET), machine) as commons:
        pool = AccountPool(
            commons.store, commons.vault, commons.watch, commons.membership, sign_in, CLOCK, system_random(), options
        )
        await commons.watch.load()
        async with commons.membership, commons.allowances, commons.purse, pool, Tasks() as tasks:
            tasks.spawn(commons.watch.run(), name="watch")
            for number in range(users):
                tasks.spawn(use_accounts(pool, notes, seconds), name=f"user {number}")
                for key in KEYS:
                    tasks.spawn(use_key(key, commons, notes, seconds), name=f"user {number} of the key {key.id}")
            tasks.spawn(write_records(commons, notes), name="writer")
            notes.add("lives", "-")
            await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", required=True)
    parser.add_argument("--prefix", default="tenants")
    parser.add_argument("--notes", type=Path, required=True, help="folder")
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--users", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=0.05, help="longest use of an account")
    given = parser.parse_args()
    with (
        open(given.notes / f"{os.getpid()}.notes", "ab", buffering=0) as file,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        place = place_at(given.store, given.prefix)
        runner.run(live(place, Notes(file), given.concurrency, given.users, given.seconds))


if __name__ == "__main__":
    main()
