"""The original's `.env` (upstream protocol §10.9): its names are ours. Pure."""

import io
import re
from typing import Final

from dotenv import dotenv_values

from qwen_proxy.config.lines import WrongLine, read_account_line
from qwen_proxy.config.variables import NAMES
from qwen_proxy.ground.redact import masked_email
from qwen_proxy.ground.secret import Secret
from qwen_proxy.operations.migration.found import Found, FoundAccount, Problem

# What says where data is, and nothing of how to serve: read, not taken over.
PLACES: Final = frozenset(
    ("ACCOUNTS", "API_KEY", "DATA_SAVE_MODE", "DATA_DIR", "REDIS_URL", "REDIS_PREFIX", "SECRET_KEY")
)


class FoundEnv(Found, frozen=True, kw_only=True):
    """redis_url: where the accounts are, when DATA_SAVE_MODE says redis."""

    redis_url: Secret | None = None


def read(text: str, where: str) -> FoundEnv:
    """Never raises. Nothing is interpolated: a password may hold `$`."""
    given = dotenv_values(stream=io.StringIO(text.removeprefix("\ufeff")), interpolate=False)
    values = {name: (value or "").strip() for name, value in given.items()}
    accounts, problems = _accounts(values.get("ACCOUNTS", ""), f"{where}, ACCOUNTS")
    keys = [Secret(key.strip()) for key in values.get("API_KEY", "").split(",") if key.strip()]
    problems += [
        Problem(where, f"{name} is not a variable of this program, and is left out")
        for name in values
        if name not in NAMES and values[name]
    ]
    is_redis = values.get("DATA_SAVE_MODE", "").casefold() == "redis"
    url = values.get("REDIS_URL", "") if is_redis else ""
    return FoundEnv(
        accounts=tuple(accounts),
        admin_key=keys[0] if keys else None,
        keys=tuple(keys[1:]),
        settings={name: value for name, value in values.items() if name in NAMES - PLACES and value},
        problems=tuple(problems),
        redis_url=Secret(url) if url else None,
    )


def _accounts(text: str, where: str) -> tuple[list[FoundAccount], list[Problem]]:
    """A password with a comma falls into two entries, of which the second, at least, is wrong."""
    accounts: list[FoundAccount] = []
    problems: list[Problem] = []
    for number, entry in enumerate((part.strip() for part in re.split(r"[,\r\n]", text)), 1):
        place = f"{where}, entry {number}"
        if not entry:
            continue
        try:
            line = read_account_line(entry)
        except WrongLine as error:
            problems.append(Problem(f"{place} ({masked_email(error.email)})" if error.email else place, str(error)))
            continue
        accounts.append(FoundAccount(email=line.email, password=line.password, proxy=line.exit, where=place))
    return accounts, problems
