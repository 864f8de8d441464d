"""Signs each account in once, gently, and tells how it went."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.accounts.book import AccountBook
from qwen_proxy.accounts.model import DIRECT, Account, Credential
from qwen_proxy.accounts.report import exit_name
from qwen_proxy.app.commons import DEMO
from qwen_proxy.config.settings import Settings
from qwen_proxy.ground.errors import ExitError, ProxyError
from qwen_proxy.ground.redact import masked_email
from qwen_proxy.operations.advice import ADVICE, Trouble, sign_in_trouble
from qwen_proxy.runtime.clock import Clock

SAYS_SIGNED_IN: Final = "signed in"


class SignInResult(Struct, frozen=True, kw_only=True):
    """trouble: None when it went well. expires_at: the new token's own claim. seconds: how long it took."""

    account: str
    exit: str
    says: str
    trouble: Trouble | None = None
    advice: str = ""
    expires_at: float | None = None
    seconds: float = 0.0


async def known(book: AccountBook, settings: Settings) -> list[Account]:
    """Those that are enabled, each with the exit that holds for it; the simulated one is none."""
    found = [stored.account for stored in await book.all() if stored.account.enabled and stored.account.id != DEMO]
    return [replace(account, exit=account.exit or settings.proxy_url or DIRECT) for account in found]


async def check_accounts(
    accounts: Iterable[Account],
    sign_in: Callable[[Account], Awaitable[Credential]],
    clock: Clock,
    spacing_seconds: float,
) -> AsyncGenerator[SignInResult]:
    """One after the other, `spacing_seconds` apart on one exit; an exit that was challenged or is dead is left alone.

    Quick sign-ins from one address are what the site answers with a wall (upstream protocol §1.3).
    """
    next_at: dict[str, float] = {}
    closed: dict[str, Trouble] = {}
    for account in accounts:
        if (trouble := closed.get(account.exit)) is not None:
            yield _result(account, "not tried: its exit can't be used", trouble)
            continue
        await clock.sleep(max(0.0, next_at.get(account.exit, 0.0) - clock.monotonic()))
        started_at = clock.monotonic()
        try:
            credential = await sign_in(account)
        except ProxyError as error:
            trouble = sign_in_trouble(error)
            if isinstance(error, ExitError):
                closed[account.exit] = trouble
            yield _result(account, str(error), trouble, seconds=clock.monotonic() - started_at)
        else:
            seconds = clock.monotonic() - started_at
            yield _result(account, SAYS_SIGNED_IN, expires_at=credential.expires_at, seconds=seconds)
        next_at[account.exit] = clock.monotonic() + spacing_seconds


def _result(
    account: Account,
    says: str,
    trouble: Trouble | None = None,
    *,
    expires_at: float | None = None,
    seconds: float = 0.0,
) -> SignInResult:
    return SignInResult(
        account=masked_email(account.email),
        exit=exit_name(account.exit),
        says=says,
        trouble=trouble,
        advice="" if trouble is None else ADVICE[trouble],
        expires_at=expires_at,
        seconds=seconds,
    )
