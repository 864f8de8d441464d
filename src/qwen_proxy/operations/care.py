"""A copy of the data as it is, and files that are written whole or not at all."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from qwen_proxy.app.machine import Machine
from qwen_proxy.config.settings import Settings, WrongSetting
from qwen_proxy.operations.offline import kept_place
from qwen_proxy.storage.opening import FilePlace
from qwen_proxy.storage.sqlite import SqliteStore


async def back_up(settings: Settings, path: Path, machine: Machine) -> None:
    """Copy the database file to `path` while servers may write, and check the copy. Never replaces a file.

    Raises WrongSetting where there is no such file, StoreUnavailable.
    """
    place = kept_place(settings)
    if not isinstance(place, FilePlace):
        right = "file: with redis the server makes its own backups (its AOF and RDB files), or 'qwen-proxy export' does"
        raise WrongSetting("DATA_SAVE_MODE", settings.save_mode.value, right)
    if not place.path.exists():
        raise WrongSetting(
            "DATA_DIR", str(settings.data_dir), f"the folder with {place.path.name} in it; there is none"
        )
    async with SqliteStore(place.path, machine.clock) as store:
        await store.backup(path)


@contextmanager
def new_file(path: Path) -> Generator[BinaryIO]:
    """A file to write to, for its owner only, which has its name once the block has ended well. Never replaces a file.

    Raises OSError, such as FileExistsError.
    """
    if path.exists():
        raise FileExistsError(f"{path} is there already")
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    try:
        with open(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # unlike a rename, never replaces another's file
    finally:
        draft.unlink(missing_ok=True)
