"""The original's Redis layout, read from a real server."""

import json
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import cast

import pytest
from redis.asyncio import Redis

from qwen_proxy.ground.secret import Secret
from qwen_proxy.operations.migration.found import DayUsage, Found, FoundAccount, SourceUnreadable, day_start
from qwen_proxy.operations.migration.hashes import read
from qwen_proxy.operations.migration.sources import Sources
from qwen_proxy.operations.migration.sources import read as read_sources
from tests.support import redis_server
from tests.support.original import DAY, NOTHING, jwt

TODAY = day_start("2026-09-22") or 0
URL_PATH = "/5"  # a database of its own


def user(password: str, **fields: str) -> dict[str, str]:
    return {
        "password": password,
        "token": jwt(1_900_000_000),
        "expires": "1900000000",
        "proxy": "",
        "stats": json.dumps(NOTHING),
        "statsHistory": json.dumps({"2026-09-21": DAY}),
        **fields,
    }


@pytest.fixture
async def client() -> AsyncGenerator[Redis]:
    client = Redis.from_url(redis_server.shared().url + URL_PATH)  # pyright: ignore[reportUnknownMemberType]  # **kwargs
    async with client:
        await client.flushdb()  # pyright: ignore[reportUnknownMemberType]  # **kwargs
        yield client
        await client.flushdb()  # pyright: ignore[reportUnknownMemberType]  # **kwargs


async def put(client: Redis, key: str, fields: Mapping[str, str | bytes]) -> None:
    await client.hset(key, items=[part for pair in fields.items() for part in pair])


async def found(client: Redis) -> Found:
    return await read(Secret(redis_server.shared().url + URL_PATH), "Redis", today=TODAY)


async def everything(client: Redis) -> dict[bytes, bytes | None]:
    keys = cast(list[bytes], await client.keys())  # pyright: ignore[reportUnknownMemberType]  # **kwargs
    return {key: await client.dump(key) for key in keys}


async def test_accounts_and_settings(client: Redis) -> None:
    await put(client, "user:Bob@x.example", user("пароль|:", proxy="socks5://h:1"))
    await put(client, "user:alice@x.example", {"password": "pw"})
    await put(client, "qwen2api:settings", {"json": json.dumps({"apiKeys": ["sk-a-0123456", "sk-b-0123456"]})})
    await client.set("headers", "legacy")
    before = await everything(client)
    assert await found(client) == Found(
        accounts=(
            FoundAccount(
                email="Bob@x.example",
                password=Secret("пароль|:"),
                token=Secret(jwt(1_900_000_000)),
                token_ends_at=1_900_000_000.0,
                proxy="socks5://h:1",
                usage=(DayUsage(starts_at=TODAY - 86400, feature="chat", prompt_tokens=1200, completion_tokens=340),),
                where="Redis",
            ),
            FoundAccount(email="alice@x.example", password=Secret("pw"), where="Redis"),
        ),
        admin_key=Secret("sk-a-0123456"),
        keys=(Secret("sk-b-0123456"),),
    )
    assert await everything(client) == before


async def test_older_versions_kept_settings_in_plain_fields(client: Redis) -> None:
    await put(client, "qwen2api:settings", {"chatRetryCount": "3", "chatRetryBackoffMs": "250"})
    assert (await found(client)).settings == {"CHAT_RETRY_COUNT": "3", "CHAT_RETRY_BACKOFF_MS": "250"}


async def test_what_is_no_account_is_told_of(client: Redis) -> None:
    await client.set("user:canary@x.example", "a text")
    await put(client, "user:", user("canary"))
    await put(client, "user:a@x.example", user("pw", statsHistory="canary{"))
    await put(client, "user:b@x.example", {"password": b"caf\xe9"})
    got = await found(client)
    assert [each.email for each in got.accounts] == ["a@x.example", "b@x.example"]
    assert got.accounts[1].password is None
    assert sorted(problem.says for problem in got.problems) == [
        "a key that begins with user: is no hash",
        "a part of its statistics can't be read",
        "an account without an email that can be read",
        "its password can't be read",
    ]
    assert "canary" not in str(got.problems)


async def test_more_accounts_than_one_look(client: Redis) -> None:
    pipeline = client.pipeline(transaction=False)
    for number in range(2500):
        pipeline.hset(f"user:{number}@x.example", mapping={"password": "pw"})
        pipeline.set(f"other:{number}", "x")
    await pipeline.execute()
    assert len({each.email for each in (await found(client)).accounts}) == 2500


async def test_an_env_file_leads_to_it(client: Redis, tmp_path: Path) -> None:
    await put(client, "user:alice@x.example", user("pw"))
    env = tmp_path / ".env"
    env.write_text(f"DATA_SAVE_MODE=redis\nREDIS_URL={redis_server.shared().url}{URL_PATH}")
    got = await read_sources(Sources(env=(env,)), now=float(TODAY))
    assert [each.email for each in got.found.accounts] == ["alice@x.example"]
    assert got.names[-1] == f"the Redis of .env at 127.0.0.1:{redis_server.shared().port}"


async def test_a_wrong_password_is_said_without_it() -> None:
    with redis_server.RedisServer("--requirepass", "right") as server:
        with pytest.raises(SourceUnreadable) as caught:
            await read(Secret(f"redis://:canary@127.0.0.1:{server.port}"), "Redis", today=TODAY)
    assert "refuses the user or the password" in str(caught.value) and "canary" not in str(caught.value)


async def test_a_certificate_can_not_be_waved_through() -> None:
    with pytest.raises(SourceUnreadable, match="none of a Redis"):
        await read(Secret("rediss://h?ssl_cert_reqs=none"), "Redis", today=TODAY)
