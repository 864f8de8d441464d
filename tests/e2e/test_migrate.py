"""`qwen-proxy migrate`, as a person runs it."""

from pathlib import Path

from tests.support.command import Ran, run_command
from tests.support.original import account, data_json

ENV = "API_KEY=sk-the-admins-key,sk-canary-0123456789\nACCOUNTS=dan@example.com:canary-pw\nOUTPUT_THINK=false\n"


def original(folder: Path) -> Path:
    """The original's folder, its file cut off at the end."""
    (folder / "data").mkdir(parents=True)
    accounts = [account(f"{name}@example.com", "canary-pw", proxy="http://u:canary@h:1") for name in ("alice", "bob")]
    (folder / "data" / "data.json").write_bytes(data_json(*accounts)[:-30])
    (folder / "data" / "data.json.bak").write_bytes(data_json(*accounts))
    (folder / ".env").write_text(ENV)
    return folder


async def migrate(folder: Path, *arguments: str) -> Ran:
    ran = await run_command(folder, "migrate", *arguments, API_KEY="sk-canary-admin-key", LISTEN_ADDRESS="127.0.0.1")
    assert "canary" not in ran.out + ran.err and "eyJ" not in ran.out + ran.err
    return ran


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.iterdir()]


async def test_a_dry_run_tells_the_plan_and_writes_nothing(tmp_path: Path) -> None:
    source = str(original(tmp_path / "old"))
    for arguments in ((source,), (source, "--dry-run", "--yes")):
        ran = await migrate(tmp_path, *arguments)
        assert ran.code == 0
        assert "al***@example.com" in ran.out and "4 added, 1 changed" in ran.out and "Nothing was written" in ran.out
        assert "is damaged" in ran.err and "data.json.bak" in ran.err
    assert names_in(tmp_path) == ["old"]


async def test_what_is_migrated_is_used_and_a_second_time_changes_nothing(tmp_path: Path) -> None:
    source = str(original(tmp_path / "old"))
    first = await migrate(tmp_path, source, "--yes", "--json")
    assert first.code == 0 and first.json["applied"] is True
    assert first.json["counts"] == {"added": 4, "changed": 1, "skipped": 1, "invalid": 0}
    assert first.json["further_sources"] == [f"{source}/data/data.json.bak"]
    again = await migrate(tmp_path, source, "--yes", "--json")
    assert again.json["applied"] is False and again.json["counts"]["skipped"] == 6
    assert names_in(tmp_path / "data") and not any(b"canary" in kept for kept in contents(tmp_path / "data"))


async def test_no_source_is_wrong_usage_and_none_that_can_be_read_a_failure(tmp_path: Path) -> None:
    assert (await migrate(tmp_path)).code == 2
    missing = await migrate(tmp_path, "nowhere.json")
    assert missing.code == 1 and "nowhere.json can't be read" in missing.err
    (tmp_path / "empty.json").touch()
    empty = await migrate(tmp_path, "empty.json")
    assert empty.code == 1 and "Nothing was found" in empty.out
    assert not (tmp_path / "data").exists()


async def test_where_nothing_is_kept_there_is_nothing_to_migrate_to(tmp_path: Path) -> None:
    source = str(original(tmp_path / "old"))
    ran = await run_command(tmp_path, "migrate", source, "--yes", DATA_SAVE_MODE="none")
    assert ran.code == 2 and "DATA_SAVE_MODE" in ran.err and "file or redis" in ran.err
