"""The one secret that what is kept is encrypted under (see state/vault.py): SECRET_KEY, else DATA_DIR/secret.key."""

from pathlib import Path
from typing import Final

from msgspec import Struct

from qwen_proxy.config.keyfile import read_or_create
from qwen_proxy.config.settings import Settings
from qwen_proxy.config.values import LEAST_SECRET_CHARS
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.ids import Ids

SECRET_KEY_FILE: Final = "secret.key"
GENERATED_DIGITS: Final = 64


class LoadedSecret(Struct, frozen=True):
    """file: where it is kept when it was generated."""

    secret: Secret
    file: Path | None
    created: bool
    warnings: tuple[str, ...]


def load_secret(settings: Settings, ids: Ids) -> LoadedSecret:
    """SECRET_KEY; when it is unset the secret in DATA_DIR, which is generated the first time.

    Raises WrongSetting for a DATA_DIR that can't hold the file.
    """
    if settings.secret_key is not None:
        return LoadedSecret(settings.secret_key, None, False, ())
    path = settings.data_dir / SECRET_KEY_FILE
    kept = read_or_create(path, lambda: ids.token(GENERATED_DIGITS), least_length=LEAST_SECRET_CHARS)
    return LoadedSecret(kept.key, path, kept.created, kept.warnings)
