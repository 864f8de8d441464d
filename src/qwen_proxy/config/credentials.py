"""The callers' keys: which there are, what each may do, and finding one without telling how near a guess was."""

import ipaddress
from pathlib import Path
from typing import Final

from msgspec import Struct

from qwen_proxy.config.keyfile import read_or_create
from qwen_proxy.config.settings import Settings, WrongSetting
from qwen_proxy.ground.secret import MASK, Secret
from qwen_proxy.runtime.ids import Ids

ADMIN_KEY_FILE: Final = "admin.key"
LEAST_LENGTH: Final = 8

# Printed in documentation, so known to whoever scans for open doors.
SAMPLE_KEYS: Final = frozenset(
    (
        "sk-123456",
        "sk-456789",
        "sk-admin123",
        "sk-user456",
        "sk-user789",
        "sk-your-api-key",
        "sk-your-key",
        "sk-xxx",
        "sk-xxxx",
        "sk-xxxxxxxx",
        "sk-test",
        "sk-admin",
        "sk-1234567890",
        "sk-12345678",
        "sk-no-key-required",
        "your-api-key",
        "api-key",
        "apikey",
        "admin",
        "admin123",
        "administrator",
        "test",
        "test1234",
        "testtest",
        "changeme",
        "change-me",
        "secret",
        "password",
        "12345678",
        "123456789",
    )
)


class LoadedKeys(Struct, frozen=True):
    """keys: the admin's first. file: where it is kept when it was generated."""

    keys: tuple[Secret, ...]
    file: Path | None
    created: bool
    warnings: tuple[str, ...]

    @property
    def admin(self) -> Secret:
        """For the commands that show or use it."""
        return self.keys[0]


def load_keys(settings: Settings, ids: Ids) -> LoadedKeys:
    """The keys of API_KEY; without any, the admin key in DATA_DIR, which is generated the first time.

    Raises WrongSetting for a key that anyone could guess while others can reach the address, and for a DATA_DIR that
    can't hold the file.
    """
    if settings.api_keys:
        warnings = _weak_keys(settings)
        return LoadedKeys(settings.api_keys, None, False, warnings)
    path = settings.data_dir / ADMIN_KEY_FILE
    kept = read_or_create(path, lambda: "sk-" + ids.token(48), least_length=LEAST_LENGTH)
    return LoadedKeys((kept.key,), path, kept.created, kept.warnings)


def weakness(key: str) -> str | None:
    """Why anyone could guess this key, as the end of a sentence about it; None for a good one."""
    if key.casefold() in SAMPLE_KEYS:
        return "is a sample key from documentation"
    if len(key) < LEAST_LENGTH:
        return f"is shorter than {LEAST_LENGTH} characters"
    return None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address. A name other than `localhost` counts as reachable."""
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _weak_keys(settings: Settings) -> tuple[str, ...]:
    warnings: list[str] = []
    for number, secret in enumerate(settings.api_keys, 1):
        if (why := weakness(secret.reveal())) is None:
            continue
        problem = f"key {number} {why}"
        if not is_loopback(settings.host):
            right = f"keys nobody can guess while LISTEN_ADDRESS={settings.host} is open to others ({problem})"
            raise WrongSetting("API_KEY", MASK, right)
        warnings.append(f"API_KEY: {problem}; the start is refused on any address but loopback")
    return tuple(warnings)
