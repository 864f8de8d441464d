"""A secret that is kept in a file of DATA_DIR: generated once, for its owner only, and read by every process after."""

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec import Struct

from qwen_proxy.config.settings import WrongSetting
from qwen_proxy.ground.secret import Secret

_SHAPE: Final = re.compile(r"[\x21-\x7e]{1,512}")


class KeyFile(Struct, frozen=True):
    """created: this very call made it. warnings: whole sentences for the operator."""

    path: Path
    key: Secret
    created: bool
    warnings: tuple[str, ...]


def read_or_create(path: Path, new: Callable[[], str], *, least_length: int) -> KeyFile:
    """The key in the file; where there is none, `new()` is put there. Of several processes all get the same.

    Raises WrongSetting for a folder that can't hold it, and for a file that holds something else than one key:
    printable ASCII without spaces, of `least_length` to 512 characters.
    """
    try:
        created = _create(path, new)
        key = path.read_text("ascii").strip()
        warnings = _open_file(path)
    except (OSError, UnicodeDecodeError) as error:
        raise WrongSetting("DATA_DIR", str(path.parent), f"a folder that can hold {path.name} ({error})") from error
    if not _SHAPE.fullmatch(key) or len(key) < least_length:
        raise WrongSetting("DATA_DIR", str(path.parent), f"a folder whose {path.name} holds a key; delete that file")
    return KeyFile(path, Secret(key), created, warnings)


def replace(path: Path, key: Secret) -> None:
    """Put another key into the file: whoever reads it meanwhile gets the old one or the new. Raises OSError."""
    draft = _draft(path, key.reveal())
    os.replace(draft, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def create(path: Path, key: Secret) -> None:
    """A new file with this key, for its owner only. Raises OSError, such as FileExistsError."""
    draft = _draft(path, key.reveal())
    try:
        os.link(draft, path)
    finally:
        draft.unlink()


def _create(path: Path, new: Callable[[], str]) -> bool:
    """Write the file whole or not at all; of several processes one wins, and all read what it wrote."""
    if path.exists():
        return False
    key = new()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft(path, key)
    try:
        os.link(draft, path)  # unlike a rename, never replaces another's key
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True


def _draft(path: Path, key: str) -> Path:
    """The key beside the file it is for, on the disk."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(key + "\n")
        file.flush()
        os.fsync(file.fileno())
    return draft


def _open_file(path: Path) -> tuple[str, ...]:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        return (f"{path} can be read by others (mode {mode:o}); run: chmod 600 {path}",)
    return ()
