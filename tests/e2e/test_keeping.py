"""Export, import, backup, check and the secret, as a person runs them."""

import os
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest

from tests.support import redis_server
from tests.support.command import Ran, run_command
from tests.support.original import account, data_json
from tests.support.served import served

PASSPHRASE = "canary horse battery"
EVERYTHING = {"account": 3, "key": 1, "settings": 1}


class House:
    """A folder that holds one installation or several, by their DATA_DIR, and commands run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "pass").write_text(PASSPHRASE + "\n")

    async def run(self, *arguments: str, **environ: str) -> Ran:
        ran = await run_command(self.folder, *arguments, API_KEY="sk-canary-admin-key", **environ)
        assert "canary" not in ran.out + ran.err and "eyJ" not in ran.out + ran.err, arguments
        return ran

    async def furnish(self) -> None:
        names = ("alice", "bob", "carol")
        text = data_json(*(account(f"{name}@example.com", "canary-pw") for name in names))
        (self.folder / "data.json").write_bytes(text)
        ran = await self.run("migrate", "data.json", "--yes", "--json")
        assert ran.json["counts"]["added"] == 4

    async def export(self, file: str, **environ: str) -> Ran:
        return await self.run("export", file, "--passphrase-file", "pass", "--json", **environ)

    async def take_in(self, file: str, *more: str, **environ: str) -> Ran:
        return await self.run("import", file, "--passphrase-file", "pass", "--json", *more, **environ)

    async def check(self, **environ: str) -> Ran:
        return await self.run("check", "--json", **environ)

    def texts(self) -> list[bytes]:
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return [path.read_bytes() for path in files if path.name not in ("pass", "data.json")]

    def mode(self, name: str) -> int:
        return (self.folder / name).stat().st_mode & 0o777

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
async def house(tmp_path: Path) -> House:
    made = House(tmp_path)
    await made.furnish()
    return made


# --- export and import --------------------------------------------------------------------------------------


async def test_from_a_file_to_redis_and_back_into_a_file(house: House) -> None:
    redis = {
        "DATA_SAVE_MODE": "redis",
        "REDIS_URL": redis_server.shared().url,
        "REDIS_PREFIX": "test-keeping",
        "DATA_DIR": "redis-data",
    }
    first = await house.export("first.qp")
    assert first.json == {"records": 5, "lines": 2, "usage": 3} and house.mode("first.qp") == 0o600
    look = await house.take_in("first.qp", **redis)
    assert (look.code, look.json["applied"], look.json["plan"]["way"]) == (0, False, "replace")
    assert (await house.check(**redis)).json["records"] == {}
    done = await house.take_in("first.qp", "--yes", **redis)
    assert (done.code, done.json["applied"], done.json["faults"]) == (0, True, [])
    assert (await house.check(**redis)).json["records"] == EVERYTHING
    assert (await house.export("second.qp", **redis)).json == {**first.json, "lines": 3}  # that of the import
    await house.take_in("second.qp", "--yes", DATA_DIR="again")
    seen = await house.check(DATA_DIR="again")
    assert (seen.code, seen.json["records"], seen.json["faults"]) == (0, EVERYTHING, [])
    again = await house.run("migrate", "data.json", "--json", DATA_DIR="again")
    assert again.json["counts"] == {"added": 0, "changed": 0, "skipped": 7, "invalid": 0}
    assert not any(b"canary" in text for text in house.texts())


async def test_what_is_there_is_not_lost_by_an_import(house: House) -> None:
    await house.export("all.qp")
    refused = await house.take_in("all.qp", "--yes")
    assert refused.code == 1 and refused.json["error"]["kind"] == "NotEmpty"
    both = await house.take_in("all.qp", "--merge", "--replace")
    assert both.code == 2
    merged = await house.take_in("all.qp", "--merge", "--yes")
    assert merged.code == 0 and all(kind["added"] == 0 for kind in merged.json["plan"]["kinds"])
    replaced = await house.run("import", "all.qp", "--passphrase-file", "pass", "--replace", "--yes")
    assert replaced.code == 0 and "takes the place" in replaced.out and "Done." in replaced.out
    dry = await house.run("import", "all.qp", "--passphrase-file", "pass", "--merge", "--dry-run", "--yes")
    assert "Nothing was written" in dry.out
    assert (await house.check()).json["records"] == EVERYTHING


async def test_a_wrong_passphrase_a_short_one_and_none(house: House) -> None:
    await house.export("all.qp")
    (house.folder / "other").write_text("another canary")
    wrong = await house.run("import", "all.qp", "--passphrase-file", "other", "--merge")
    assert wrong.code == 1 and "passphrase is not the one" in wrong.err
    (house.folder / "short").write_text("canary")
    short = await house.run("export", "short.qp", "--passphrase-file", "short")
    assert short.code == 2 and "fewer than 8" in short.err
    for command in ("export", "import"):
        nobody = await house.run(command, "all.qp")
        assert nobody.code == 2 and "--passphrase-file" in nobody.err
    assert "short.qp" not in house.names()


async def test_no_file_is_written_over_and_none_is_left_half(house: House) -> None:
    await house.export("all.qp")
    before = (house.folder / "all.qp").read_bytes()
    again = await house.export("all.qp")
    assert again.code == 1 and "is there already" in again.json["error"]["message"]
    assert (house.folder / "all.qp").read_bytes() == before
    (house.folder / "data" / "secret.key").write_text("another-secret-long-enough")
    failed = await house.export("half.qp")
    assert failed.code == 2
    nothing = await house.export("nothing.qp", DATA_DIR="nowhere")
    assert nothing.code == 2 and "DATA_DIR" in nothing.json["error"]["message"]
    assert house.names() == ["all.qp", "data", "data.json", "pass"]


# --- backup and check ---------------------------------------------------------------------------------------


async def test_a_backup_put_in_its_place_is_the_data(house: House) -> None:
    ran = await house.run("backup", "copy.db")
    assert ran.code == 0 and "whole" in ran.out and "data/secret.key" in ran.err
    assert house.mode("copy.db") == 0o600
    assert (await house.run("backup", "copy.db")).code == 1
    (house.folder / "new").mkdir()
    shutil.copy(house.folder / "copy.db", house.folder / "new" / "qwen-proxy.db")
    shutil.copy(house.folder / "data" / "secret.key", house.folder / "new" / "secret.key")
    assert (await house.check(DATA_DIR="new")).json["records"] == EVERYTHING


async def test_there_is_no_backup_of_what_is_no_file(house: House) -> None:
    redis = await house.run("backup", "copy.db", DATA_SAVE_MODE="redis", REDIS_URL=redis_server.shared().url)
    assert redis.code == 2 and "qwen-proxy export" in redis.err
    none = await house.run("backup", "copy.db", DATA_DIR="nowhere")
    assert none.code == 2 and "nowhere" in none.err
    assert "nowhere" not in house.names()


async def test_check_and_doctor_tell_what_can_not_be_read(house: House) -> None:
    well = await house.run("check")
    assert well.code == 0 and "All can be read" in well.out and "3 account" in well.out
    with sqlite3.connect(house.folder / "data" / "qwen-proxy.db") as db:
        db.execute("UPDATE record SET value = x'00' WHERE kind = 'account' AND id LIKE 'bob%'")
    ran = await house.check()
    assert ran.code == 1 and "account bo***@example.com" in ran.json["faults"][0]
    doctor = await house.run("doctor", "--json", "--no-chat", SIMULATOR="always", SERVICE_PORT="0")
    (data,) = [each for each in doctor.json["checks"] if each["name"] == "data"]
    assert (data["trouble"], data["verdict"]) == ("data_damaged", "fail") and "backup" in data["advice"]
    (house.folder / "data" / "secret.key").write_text("another-secret-long-enough")
    doctor = await house.run("doctor", "--json")
    assert [each["trouble"] for each in doctor.json["checks"]][-1] == "wrong_secret"


# --- the secret ---------------------------------------------------------------------------------------------


async def test_the_secret_in_its_file_is_changed_at_once(house: House) -> None:
    where = await house.run("secret", "show", "--where")
    assert where.out == "data/secret.key\n"
    old = (await house.run("secret", "show", "--json")).json
    asked = await house.run("secret", "rotate")
    assert asked.code == 0 and "Nothing was changed" in asked.out
    assert (await house.run("secret", "show")).out.strip() == old["secret"]
    done = await house.run("secret", "rotate", "--yes", "--json")
    assert done.json == {"changed": True, "where": "data/secret.key"}
    assert (await house.run("secret", "show")).out.strip() != old["secret"]
    assert house.mode("data/secret.key") == 0o600
    assert (await house.check()).json["records"] == EVERYTHING
    refused = await house.check(SECRET_KEY=old["secret"])
    assert refused.code == 2 and "SECRET_KEY" in refused.json["error"]["message"]
    finish = await house.run("secret", "rotate", "--finish", "--json")
    assert finish.code == 1 and "under way" in finish.json["error"]["message"]


async def test_a_secret_in_a_variable_is_changed_in_two_steps(house: House) -> None:
    old = (await house.run("secret", "show")).out.strip()
    given = {"SECRET_KEY": old}
    begun = await house.run("secret", "rotate", "--yes", "--new-file", "next", **given)
    assert begun.code == 0 and "--finish" in begun.err and house.mode("next") == 0o600
    new = (house.folder / "next").read_text().strip()
    assert new not in begun.out + begun.err
    for secret in (old, new):
        seen = await house.check(SECRET_KEY=secret)
        assert seen.code == 0 and "secret rotate" in seen.json["notes"][0]
    doctor = await house.run("doctor", "--json", "--no-chat", SIMULATOR="always", SERVICE_PORT="0", **given)
    assert "rotation_unfinished" in [each["trouble"] for each in doctor.json["checks"]]
    early = await house.run("secret", "rotate", "--finish", **given)
    assert early.code == 1 and "still the old one" in early.err
    assert (await house.run("secret", "rotate", "--finish", SECRET_KEY=new)).code == 0
    assert (await house.check(SECRET_KEY=new)).code == 0
    assert (await house.check(SECRET_KEY=old)).code == 2
    shown = await house.run("secret", "rotate", "--yes", "--json", SECRET_KEY=new)
    assert len(shown.json["secret"]) == 64


async def test_the_data_key_is_changed(house: House) -> None:
    ran = await house.run("secret", "rotate", "--data-key", "--json")
    assert ran.json == {"resealed": 4}
    assert (await house.check()).json["records"] == EVERYTHING


async def test_commands_on_what_is_kept_say_so_where_nothing_is(tmp_path: Path) -> None:
    for command in (
        ["check"], ["backup", "x"], ["export", "x", "--passphrase-file", "pass"], ["secret", "rotate"],
    ):  # fmt: skip
        ran = await House(tmp_path).run(*command, DATA_SAVE_MODE="none")
        assert ran.code == 2 and "nothing outlives the server" in ran.err, command


# --- while servers run --------------------------------------------------------------------------------------


@pytest.mark.timeout(120)
async def test_a_running_server_notices_nothing_of_backup_export_and_another_secret(house: House) -> None:
    """Nor is anything taken from under it; and accounts that are migrated meanwhile are its own at once."""
    async with served(house.folder / "data", PM2_INSTANCES="1") as site:
        before = (house.folder / "data" / "secret.key").read_text()
        assert (await house.run("backup", "copy.db")).code == 0
        assert (await house.export("all.qp")).code == 0
        assert (await house.run("secret", "rotate", "--yes")).code == 0
        assert (house.folder / "data" / "secret.key").read_text() != before
        for command in (
            ("import", "all.qp", "--replace", "--passphrase-file", "pass"),
            ("secret", "rotate", "--data-key"),
        ):
            refused = await house.run(*command, "--yes")
            assert refused.code == 1 and "stop them first" in refused.err
        assert (await house.take_in("all.qp", "--merge", "--yes")).code == 0
        (worker,) = (await site.diagnostics()).workers
        os.kill(worker.pid, signal.SIGKILL)  # the next has to open the data with the new secret
        await site.until(lambda body: len(body.workers) == 1 and body.workers[0].pid != worker.pid)
        assert (await site.chat("hello"))[1] == "stop"
        (house.folder / "more.json").write_bytes(data_json(account("dora@example.com", "canary-pw")))
        assert (await house.run("migrate", "more.json", "--yes")).code == 0
        await site.until(lambda body: any("dora" in each.account or "do***" in each.account for each in body.accounts))
    assert (await house.check()).code == 0
