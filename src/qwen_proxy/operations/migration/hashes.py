"""The original's Redis layout (upstream protocol §10.8): `user:<email>` hashes and `qwen2api:settings`. Only read."""

from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any, Final, cast

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.exceptions import RedisError

from qwen_proxy.config.values import REDIS, WrongValue
from qwen_proxy.ground.secret import Secret
from qwen_proxy.operations.migration.found import (
    Found,
    FoundAccount,
    Problem,
    SourceUnreadable,
    account_from,
    loaded,
    settings_from,
)
from qwen_proxy.operations.migration.scanning import MOST_ACCOUNTS
from qwen_proxy.storage.redis_problems import problem
from qwen_proxy.upstreams.qwen_web.wire import members

USER: Final = "user:"
SETTINGS: Final = b"qwen2api:settings"
STEP: Final = 500
ANSWER_SECONDS: Final = 30.0


async def read(url: Secret, where: str, *, today: int, ca_file: Path | None = None) -> Found:
    """Nothing is written there. `rediss://` checks the server's certificate; ca_file is trusted too.

    Raises SourceUnreadable.
    """
    try:
        REDIS.read(url.reveal())
    except WrongValue as error:
        raise SourceUnreadable(f"{where}: the address is none of a Redis; it should be {REDIS.accepts}") from error
    options: dict[str, Any] = dict(parse_url(url.reveal()))
    if url.reveal().startswith("rediss:") and ca_file is not None:
        options["ssl_ca_certs"] = str(ca_file)
    limits: dict[str, Any] = {"socket_timeout": ANSWER_SECONDS, "socket_connect_timeout": ANSWER_SECONDS}
    client = Redis.from_pool(ConnectionPool(**(options | limits)))
    try:
        async with client:
            return await _read(client, where, today)
    except (RedisError, OSError) as error:
        raise SourceUnreadable(f"{where} can't be read: {problem(error)}") from error


async def _read(client: Redis, where: str, today: int) -> Found:
    accounts: list[FoundAccount] = []
    problems: list[Problem] = []
    async for key, fields in _hashes(client):
        name = key.decode("utf-8", "replace").removeprefix(USER)
        if fields is None:
            problems.append(Problem(where, f"a key that begins with {USER} is no hash"))
            continue
        account, said = account_from({**_texts(fields), "email": name}, where, today=today)
        accounts += [] if account is None else [account]
        problems += said
    kept = await _settings(client, where)
    return Found(
        accounts=tuple(sorted(accounts, key=lambda account: account.email)),
        admin_key=kept.admin_key,
        keys=kept.keys,
        settings=kept.settings,
        problems=(*problems, *kept.problems),
    )


async def _hashes(client: Redis) -> AsyncGenerator[tuple[bytes, Mapping[bytes, bytes] | None]]:
    """Each once: SCAN may tell a key twice."""
    seen: set[bytes] = set()
    cursor = 0
    while True:
        told = await client.scan(cursor, match=f"{USER}*", count=STEP)  # pyright: ignore[reportUnknownMemberType]  # **kwargs
        cursor, keys = cast(tuple[int, list[bytes]], told)
        fresh = [key for key in keys if key not in seen]
        seen.update(fresh)
        pipeline = client.pipeline(transaction=False)
        for key in fresh:
            pipeline.hgetall(key)
        answers = cast(list[Mapping[bytes, bytes] | Exception], await pipeline.execute(raise_on_error=False))
        for key, fields in zip(fresh, answers, strict=True):
            yield key, None if isinstance(fields, Exception) else fields
        if cursor == 0 or len(seen) > MOST_ACCOUNTS:
            return


async def _settings(client: Redis, where: str) -> Found:
    """A JSON text in one field, or the plain fields of older versions."""
    fields = _texts(cast(Mapping[bytes, bytes], await client.hgetall(SETTINGS)))
    return settings_from({**fields, **members(loaded(fields.get("json")))}, f"{where}, settings")


def _texts(fields: Mapping[bytes, bytes]) -> dict[str, object]:
    return {name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, value in fields.items()}
