"""Accounts, credentials and what becomes of a try."""

from enum import StrEnum
from typing import Final

from msgspec import Struct

from qwen_proxy.ground.redact import masked_email, redacted
from qwen_proxy.ground.secret import Secret

DIRECT: Final = ""  # the exit of an account without a proxy


class Feature(StrEnum):
    """What an upstream meters apart (upstream protocol §4.7); search counts as CHAT."""

    CHAT = "chat"
    IMAGE = "image"
    VIDEO = "video"


class Origin(StrEnum):
    """Where an account came from."""

    ENVIRONMENT = "environment"  # ACCOUNTS
    ADDED = "added"  # by an operator, while the program ran


class Account(Struct, frozen=True, kw_only=True):
    """A login. `id` is the email, lower-case. `exit` is a proxy URL, or DIRECT. One that is not enabled only waits.

    weight: its share of requests where the strategy is `weighted`. priority: those with a higher one are taken first.
    cookies_at, added_at: Unix seconds, 0 when unknown.
    """

    id: str
    email: str
    password: Secret | None = None
    exit: str = DIRECT
    cookies: Secret | None = None  # as the owner copied them from a browser; sent unchanged but for `token=`
    enabled: bool = True
    labels: tuple[str, ...] = ()
    weight: float = 1.0
    priority: int = 0
    note: str = ""
    origin: Origin = Origin.ENVIRONMENT
    cookies_at: float = 0.0
    added_at: float = 0.0

    def __repr__(self) -> str:
        return f"Account({masked_email(self.id)!r}, exit={redacted(self.exit)!r}, enabled={self.enabled})"


class Credential(Struct, frozen=True, kw_only=True):
    """What proves an account now. `expires_at` is the token's own claim (§1.4), None when it makes none."""

    account_id: str
    token: Secret
    exit: str = DIRECT
    cookies: Secret | None = None
    expires_at: float | None = None

    def __repr__(self) -> str:
        return (
            f"Credential({masked_email(self.account_id)!r}, exit={redacted(self.exit)!r}, expires_at={self.expires_at})"
        )


class Tokens(Struct, frozen=True, kw_only=True):
    """What a sign-in by OAuth gives, or its renewal. refresh_token None: the old one stays. resource_url: where the
    token is good, as it was told; empty for nothing."""

    access_token: Secret
    refresh_token: Secret | None
    resource_url: str
    lasts_seconds: float


class OutcomeKind(StrEnum):
    """How a lease ended, as far as the account, its exit and the upstream are concerned."""

    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"  # the client left, or we shut down: counts against nobody
    CLIENT_FAULT = "client_fault"
    CREDENTIAL_REJECTED = "credential_rejected"
    OUT_OF_QUOTA = "out_of_quota"
    THROTTLED = "throttled"  # asked too often: for a moment, not for the day
    CHALLENGED = "challenged"
    EXIT_UNREACHABLE = "exit_unreachable"
    UPSTREAM_FAILED = "upstream_failed"


class Outcome(Struct, frozen=True, kw_only=True):
    """`rest_seconds` is the upstream's own word on how long to wait, None when it gave none."""

    kind: OutcomeKind
    feature: Feature = Feature.CHAT
    rest_seconds: float | None = None
    detail: str = ""  # a short fact for the operator, such as an error's sentence; never content
