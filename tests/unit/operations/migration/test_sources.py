"""Where the original's data is looked for."""

import os
from pathlib import Path

import pytest

from qwen_proxy.ground.secret import Secret
from qwen_proxy.operations.migration.found import SourceUnreadable
from qwen_proxy.operations.migration.sources import MOST_BYTES, Sources, read
from tests.support.original import account, data_json

NOW = 1_790_000_000.0
ALICE, BOB = data_json(account("alice@x.example")), data_json(account("bob@x.example"))


async def test_the_originals_folder_stands_for_its_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "data.json").write_bytes(ALICE)
    (tmp_path / ".env").write_text("ACCOUNTS=carol@x.example:pw\nAPI_KEY=sk-a,sk-b")
    got = await read(Sources(files=(tmp_path,)), now=NOW)
    assert [each.email for each in got.found.accounts] == ["alice@x.example", "carol@x.example"]
    assert got.names == (str(tmp_path / "data" / "data.json"), str(tmp_path / ".env"))
    assert got.found.admin_key == Secret("sk-the-admins-key")
    (tmp_path / ".env").unlink()
    assert len((await read(Sources(files=(tmp_path, tmp_path / "data")), now=NOW)).found.accounts) == 1


async def test_files_beside_a_damaged_one_are_offered(tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    for name in ("data.json.bak", "data.json.corrupt-1790000000", "data.json~", "other.json.bak"):
        (tmp_path / name).write_bytes(BOB)
    file.write_bytes(ALICE)
    assert (await read(Sources(files=(file,)), now=NOW)).further == ()
    file.write_bytes(ALICE[:-5])
    got = await read(Sources(files=(file, tmp_path / "data.json.bak")), now=NOW)
    assert [path.name for path in got.further] == ["data.json.corrupt-1790000000", "data.json~"]
    assert [each.email for each in got.found.accounts] == ["alice@x.example", "bob@x.example"]


async def test_counters_belong_to_the_day_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    stats = {"chat": {"input": 1, "output": 2}}
    file.write_bytes(data_json(account("a@x.example", stats=stats, statsHistory={})))
    os.utime(file, (86400 * 100 + 5, 86400 * 100 + 5))
    got = await read(Sources(files=(file,)), now=NOW)
    assert [row.starts_at for row in got.found.accounts[0].usage] == [86400 * 100]


async def test_what_can_not_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable, match="holds neither"):
        await read(Sources(files=(tmp_path,)), now=NOW)
    with pytest.raises(SourceUnreadable, match=r"nowhere can't be read \(No such file"):
        await read(Sources(env=(tmp_path / "nowhere",)), now=NOW)
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(SourceUnreadable, match="larger"):
        await read(Sources(files=(large,)), now=NOW)


async def test_a_redis_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DATA_SAVE_MODE=redis\nREDIS_URL=redis://:canary@127.0.0.1:1")
    for sources in (Sources(env=(tmp_path / ".env",)), Sources(redis=Secret("redis://u:canary@127.0.0.1:1"))):
        with pytest.raises(SourceUnreadable, match=r"Redis.* can't be read") as caught:
            await read(sources, now=NOW)
        assert "canary" not in str(caught.value)
    with pytest.raises(SourceUnreadable, match="none of a Redis"):
        await read(Sources(redis=Secret("http://canary")), now=NOW)
