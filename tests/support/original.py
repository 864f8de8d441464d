"""What the original project keeps, as its code writes it (upstream protocol §10.7, 10.8)."""

import base64
import json

DAY = {"chat": {"input": 1200, "output": 340}, "cli": {"calls": 0, "input": 0, "output": 0}}
NOTHING = {"chat": {"input": 0, "output": 0}, "cli": {"calls": 0, "input": 0, "output": 0}}


def jwt(ends_at: int) -> str:
    parts = ({"alg": "HS256"}, {"id": "7c1f6f3e", "exp": ends_at})
    head, claims = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    return f"{head}.{claims}.c2lnbmF0dXJl"


def account(email: str, password: str = "pw", *, ends_at: int = 1_900_000_000, **fields: object) -> dict[str, object]:
    return {
        "email": email,
        "password": password,
        "token": jwt(ends_at),
        "expires": ends_at,
        "proxy": None,
        "stats": NOTHING,
        "statsHistory": {"2026-09-21": DAY},
        **fields,
    }


def document(*accounts: dict[str, object], **fields: object) -> dict[str, object]:
    return {
        "defaultHeaders": None,
        "defaultCookie": None,
        "accounts": list(accounts),
        "settings": {
            "apiKeys": ["sk-the-admins-key", "sk-a-users-key"],
            "chatRetryCount": 3,
            "chatRetryBackoffMs": 250,
        },
        **fields,
    }


def data_json(*accounts: dict[str, object], indent: int | None = 2, **fields: object) -> bytes:
    """As `JSON.stringify(data, null, 2)` writes it."""
    separators = (",", ": ") if indent else (",", ":")
    return json.dumps(document(*accounts, **fields), indent=indent, separators=separators, ensure_ascii=False).encode()
