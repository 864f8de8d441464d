"""Where the original's data is: files, a folder that holds them, a Redis. Only read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from qwen_proxy.ground.secret import Secret
from qwen_proxy.operations.migration import data_json, dotenv, hashes
from qwen_proxy.operations.migration.found import Found, SourceUnreadable, combined
from qwen_proxy.state.store import DAY_SECONDS

MOST_BYTES: Final = 512 * 1024**2
MOST_ENV_BYTES: Final = 16 * 1024**2
IN_A_FOLDER: Final = ("data/data.json", "data.json")
BESIDE: Final = (".bak*", ".corrupt-*", ".tmp*", ".old", "~")


class Sources(Struct, frozen=True, kw_only=True):
    """files: data.json, its copies, or the original's folder. redis: None for none."""

    files: tuple[Path, ...] = ()
    env: tuple[Path, ...] = ()
    redis: Secret | None = None


class ReadSources(Struct, frozen=True, kw_only=True):
    """names: what was read, in words. further: files beside a damaged one, which may hold what it lost."""

    found: Found
    names: tuple[str, ...]
    further: tuple[Path, ...] = ()


async def read(sources: Sources, *, now: float, ca_file: Path | None = None) -> ReadSources:
    """The first source wins where they differ. A Redis that an env file leads to is read too. Raises
    SourceUnreadable."""
    files, env = _resolved(sources)
    today = int(now) // DAY_SECONDS * DAY_SECONDS
    found: list[Found] = []
    names: list[str] = []
    further: list[Path] = []
    for path in files:
        read_here = data_json.read(_bytes(path, MOST_BYTES), path.name, today=_day_of(path))
        found.append(read_here)
        names.append(str(path))
        further += _beside(path) if read_here.problems else []
    redis = [("Redis", sources.redis)] if sources.redis is not None else []
    for path in env:
        from_env = dotenv.read(_bytes(path, MOST_ENV_BYTES).decode("utf-8", "replace"), path.name)
        found.append(from_env)
        names.append(str(path))
        if from_env.redis_url is not None and sources.redis is None:
            redis.append((f"the Redis of {path.name}", from_env.redis_url))
    for where, url in redis:
        found.append(await hashes.read(url, where, today=today, ca_file=ca_file))
        names.append(f"{where} at {_address(url)}")
    given = {path.resolve() for path in files}
    missing = tuple(path for path in dict.fromkeys(further) if path.resolve() not in given)
    return ReadSources(found=combined(found), names=tuple(names), further=missing)


def _resolved(sources: Sources) -> tuple[list[Path], list[Path]]:
    """Files, and env files; a folder stands for those that the original has in it."""
    files: list[Path] = []
    env = list(sources.env)
    for path in sources.files:
        if not path.is_dir():
            files.append(path)
            continue
        inside = [path / name for name in IN_A_FOLDER if (path / name).is_file()][:1]
        own_env = [path / ".env"] if (path / ".env").is_file() else []
        if not inside and not own_env:
            raise SourceUnreadable(f"{path} holds neither data/data.json nor .env")
        files += inside
        env += own_env
    return files, list(dict.fromkeys(env))


def _bytes(path: Path, most: int) -> bytes:
    try:
        if (size := path.stat().st_size) > most:
            raise SourceUnreadable(f"{path} is larger ({size} bytes) than any of the original's (at most {most})")
        return path.read_bytes()
    except OSError as error:
        raise SourceUnreadable(f"{path} can't be read ({error.strerror})") from error


def _day_of(path: Path) -> int:
    """The day it was written, which its counters of "today" belong to."""
    return int(path.stat().st_mtime) // DAY_SECONDS * DAY_SECONDS


def _beside(path: Path) -> Sequence[Path]:
    return sorted(found for ending in BESIDE for found in path.parent.glob(f"{path.name}{ending}") if found.is_file())


def _address(url: Secret) -> str:
    """Without what may be secret in it. It was read from, so it is an address."""
    parts = urlsplit(url.reveal())
    return parts.path if parts.scheme == "unix" else f"{parts.hostname or 'localhost'}:{parts.port or 6379}"
