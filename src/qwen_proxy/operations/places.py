"""Where the data of this installation is, and the secret it is sealed under, as each process finds them."""

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from qwen_proxy.app.commons import Kept
from qwen_proxy.config.choices import SaveMode
from qwen_proxy.config.keyfile import read_or_create
from qwen_proxy.config.secret_key import GENERATED_DIGITS, SECRET_KEY_FILE, load_secret
from qwen_proxy.config.settings import Settings
from qwen_proxy.config.values import LEAST_SECRET_CHARS
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.ids import Ids
from qwen_proxy.storage.opening import FILE_NAME, FilePlace, MemoryPlace, place_of


def memory_place(ids: Ids) -> Kept:
    """In this process alone, gone with it."""
    return Kept(MemoryPlace(), Secret(ids.token(GENERATED_DIGITS)))


def own_place(settings: Settings, ids: Ids) -> Kept:
    """What is kept over restarts; with DATA_SAVE_MODE=none a place of this process's own. Raises WrongSetting."""
    if settings.save_mode is SaveMode.NONE:
        return memory_place(ids)
    return Kept(place_of(settings), load_secret(settings, ids).secret)


@contextmanager
def shared_place(settings: Settings, ids: Ids) -> Generator[tuple[Kept, Path | None]]:
    """What a supervisor and its workers share, and the folder that workers have to be told of.

    With DATA_SAVE_MODE=none that is a folder that goes with the block. Raises WrongSetting.
    """
    if settings.save_mode is not SaveMode.NONE:
        yield own_place(settings, ids), None
        return
    with tempfile.TemporaryDirectory(prefix="qwen-proxy-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        yield _in_folder(folder, ids), folder


def worker_place(settings: Settings, folder: Path | None, ids: Ids) -> Kept:
    """The same, as a worker finds it. folder: what it was told."""
    return own_place(settings, ids) if folder is None else _in_folder(folder, ids)


def _in_folder(folder: Path, ids: Ids) -> Kept:
    made = read_or_create(
        folder / SECRET_KEY_FILE, lambda: ids.token(GENERATED_DIGITS), least_length=LEAST_SECRET_CHARS
    )
    return Kept(FilePlace(folder / FILE_NAME), made.key)
