"""From facts about an installation to a verdict, a sentence and a piece of advice. Pure.

Every trouble has advice of its own in one table; what a check found out chooses the trouble.
"""

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

from msgspec import Struct

from qwen_proxy.ground.errors import (
    AccountError,
    ExitUnreachable,
    ProxyError,
    QuotaExhausted,
    SignInReason,
    SignInRefused,
    UpstreamChallenged,
    UpstreamError,
)
from qwen_proxy.ground.redact import masked_email

WRONG_CLOCK_SECONDS: Final = 60.0


class Verdict(StrEnum):
    OK = "ok"
    WARN = "warn"  # works, but not as well as it might
    FAIL = "fail"
    SKIPPED = "skipped"  # could not be looked at, for a reason another check tells


class Trouble(StrEnum):
    """What is wrong, by whom it is to be put right, in words a script may rely on."""

    CONFIGURATION = "configuration"
    MISSPELT = "misspelt"
    DATA_FOLDER = "data_folder"
    STORE_UNAVAILABLE = "store_unavailable"
    WRONG_SECRET = "wrong_secret"
    DATA_DAMAGED = "data_damaged"
    ROTATION_UNFINISHED = "rotation_unfinished"
    KEY_EXPOSED = "key_exposed"
    WEAK_KEY = "weak_key"
    PORT_TAKEN = "port_taken"
    KEY_REFUSED = "key_refused"
    SERVER_SILENT = "server_silent"
    NO_ACCOUNT = "no_account"
    WRONG_PASSWORD = "wrong_password"
    NOT_REGISTERED = "not_registered"
    NOT_ACTIVATED = "not_activated"
    BANNED = "banned"
    NO_PASSWORD = "no_password"
    SIGN_IN_FAILED = "sign_in_failed"
    ACCOUNT_CHALLENGED = "account_challenged"
    EXIT_CHALLENGED = "exit_challenged"
    PROXY_DEAD = "proxy_dead"
    UPSTREAM_DOWN = "upstream_down"
    BACKEND = "backend"
    OUT_OF_QUOTA = "out_of_quota"
    DISABLED = "disabled"
    WRONG_CLOCK = "wrong_clock"
    DRIFT = "drift"
    NO_MODELS = "no_models"
    CHAT_FAILED = "chat_failed"


ADVICE: Final[Mapping[Trouble, str]] = {
    Trouble.CONFIGURATION: "Correct this variable in the environment or in .env; docs/configuration.md lists them all.",
    Trouble.MISSPELT: "Correct the name or take the line away; docs/configuration.md lists every variable.",
    Trouble.DATA_FOLDER: "Set DATA_DIR to a folder that this user may write.",
    Trouble.STORE_UNAVAILABLE: "Start the Redis of REDIS_URL or correct its address; a file has to be readable.",
    Trouble.WRONG_SECRET: "Put back the secret that the data was written with; without it nobody can read it.",
    Trouble.DATA_DAMAGED: "Stop the server and put a backup in its place; docs/migration.md tells how.",
    Trouble.ROTATION_UNFINISHED: "Run the command again that the line names; until then the old secret works too.",
    Trouble.KEY_EXPOSED: "Let only its owner read the key file: chmod 600, as the message says.",
    Trouble.WEAK_KEY: "Set API_KEY to a key nobody can guess, or unset it to have one generated.",
    Trouble.PORT_TAKEN: "Stop the program that listens there, or set SERVICE_PORT to another port.",
    Trouble.KEY_REFUSED: "Run this with the API_KEY and DATA_DIR that the running server was started with.",
    Trouble.SERVER_SILENT: "Look into the running server's log, and restart it if it does not answer again.",
    Trouble.NO_ACCOUNT: "Set ACCOUNTS to email:password of an account at chat.qwen.ai.",
    Trouble.WRONG_PASSWORD: "Correct this account's password in ACCOUNTS; sign in at chat.qwen.ai by hand to be sure.",
    Trouble.NOT_REGISTERED: "Check this account's email in ACCOUNTS, or register it at chat.qwen.ai.",
    Trouble.NOT_ACTIVATED: "Follow the link in the activation mail of this account, then check again.",
    Trouble.BANNED: "The site has suspended this account; take it out of ACCOUNTS.",
    Trouble.NO_PASSWORD: "Give this account its password in ACCOUNTS: its token no longer works by itself.",
    Trouble.SIGN_IN_FAILED: "Wait: the sign-in is tried again by itself. If it goes on, see the log.",
    Trouble.ACCOUNT_CHALLENGED: "Open chat.qwen.ai in a browser, signed in as this account, and do what the page asks.",
    Trouble.EXIT_CHALLENGED: (
        "Open chat.qwen.ai in a browser through this exit address and do what the page asks, or give its accounts "
        "another exit (email:password|proxy). Fewer requests through one address keep it from happening again."
    ),
    Trouble.PROXY_DEAD: (
        "Check that this proxy runs, and its address, user and password in PROXY_URL or behind | in ACCOUNTS. "
        "Nothing is sent around it."
    ),
    Trouble.UPSTREAM_DOWN: "Check this machine's network and DNS, and QWEN_CHAT_PROXY_URL if it is set; else wait.",
    Trouble.BACKEND: "See 'qwen-proxy backends test', which tries every key and tells what to do about each.",
    Trouble.OUT_OF_QUOTA: "Wait until the time given, or add another account: this one's daily quota is used up.",
    Trouble.DISABLED: "Enable the account to use it.",
    Trouble.WRONG_CLOCK: (
        "Set this machine's clock right (timedatectl set-ntp true): tokens look expired, or fresh for too long."
    ),
    Trouble.DRIFT: (
        "The site has changed in a way this version does not know; chats may still work. Update, or send a recording "
        "made with `qwen-proxy record` with your report."
    ),
    Trouble.NO_MODELS: "The site gave no model list; see the other lines for the reason, and try again later.",
    Trouble.CHAT_FAILED: "See the other lines for the reason; the log has the request under the id given.",
}


class Check(Struct, frozen=True, kw_only=True):
    """One line of doctor's report. `advice` is empty when all is well."""

    name: str
    verdict: Verdict
    says: str
    trouble: Trouble | None = None
    advice: str = ""


class AccountFacts(Struct, frozen=True, kw_only=True):
    """What the server's diagnostics say of one account; the words of `state` are accounts/health.py's."""

    account: str
    exit: str = "direct"
    state: str = "ready"
    reason: str = ""
    until: float | None = None
    has_token: bool = False
    token_expires_at: float | None = None
    sign_in_state: str = "never"
    sign_in_reason: str = ""


class ExitFacts(Struct, frozen=True, kw_only=True):
    """Of one exit address: `state` is open, half_open, challenged, unreachable or sign_ins_rest."""

    exit: str
    state: str = "open"
    reason: str = ""
    until: float | None = None


class DriftFacts(Struct, frozen=True, kw_only=True):
    kind: str
    name: str
    count: int = 1


class UpstreamFacts(Struct, frozen=True, kw_only=True):
    """`clock_offset_seconds` is how far the upstream's clock is ahead of ours, None while nothing has been heard."""

    base_url: str = ""
    simulated: bool = False
    clock_offset_seconds: float | None = None


def passed(name: str, says: str) -> Check:
    return Check(name=name, verdict=Verdict.OK, says=says)


def skipped(name: str, says: str) -> Check:
    return Check(name=name, verdict=Verdict.SKIPPED, says=says)


def failed(name: str, trouble: Trouble, says: str) -> Check:
    return Check(name=name, verdict=Verdict.FAIL, says=says, trouble=trouble, advice=ADVICE[trouble])


def warned(name: str, trouble: Trouble, says: str) -> Check:
    return Check(name=name, verdict=Verdict.WARN, says=says, trouble=trouble, advice=ADVICE[trouble])


_REFUSALS: Final[Mapping[str, Trouble]] = {
    SignInReason.WRONG_PASSWORD.value: Trouble.WRONG_PASSWORD,
    SignInReason.NOT_REGISTERED.value: Trouble.NOT_REGISTERED,
    SignInReason.NOT_ACTIVATED.value: Trouble.NOT_ACTIVATED,
    SignInReason.BANNED.value: Trouble.BANNED,
    SignInReason.NO_PASSWORD.value: Trouble.NO_PASSWORD,
}

_STATES: Final[Mapping[str, Trouble]] = {
    "out_of_quota": Trouble.OUT_OF_QUOTA,
    "challenged": Trouble.ACCOUNT_CHALLENGED,
    "exit_challenged": Trouble.EXIT_CHALLENGED,
    "exit_on_trial": Trouble.EXIT_CHALLENGED,
    "sign_ins_rest": Trouble.EXIT_CHALLENGED,
    "exit_unreachable": Trouble.PROXY_DEAD,
    "sign_in_failed": Trouble.SIGN_IN_FAILED,
    "sign_in_refused": Trouble.WRONG_PASSWORD,
    "disabled": Trouble.DISABLED,
}

_EXIT_STATES: Final[Mapping[str, Trouble]] = {
    "challenged": Trouble.EXIT_CHALLENGED,
    "half_open": Trouble.EXIT_CHALLENGED,
    "sign_ins_rest": Trouble.EXIT_CHALLENGED,
    "unreachable": Trouble.PROXY_DEAD,
}


def judge_account(facts: AccountFacts, now: float) -> Check:
    """One account, in the state the pool gives."""
    name = f"account {masked_email(facts.account)}"
    reason = f" ({facts.reason})" if facts.reason else ""
    until = "" if facts.until is None else f", for another {duration(facts.until - now)}"
    if facts.state in ("ready", "busy"):
        return _judge_token(name, facts, now)
    if facts.state == "signing_in":
        return Check(name=name, verdict=Verdict.WARN, says="is still to be signed in")
    trouble = _STATES.get(facts.state, Trouble.SIGN_IN_FAILED)
    if facts.state == "sign_in_refused":
        trouble = _REFUSALS.get(facts.sign_in_reason or facts.reason, Trouble.WRONG_PASSWORD)
    return failed(name, trouble, f"{facts.state.replace('_', ' ')}{reason}{until}")


def _judge_token(name: str, facts: AccountFacts, now: float) -> Check:
    if facts.token_expires_at is None:
        return passed(name, f"signed in, through {facts.exit}" if facts.has_token else "ready")
    left = facts.token_expires_at - now
    if left <= 0:
        return failed(name, Trouble.WRONG_CLOCK, f"its fresh token ended {duration(-left)} ago by this machine's clock")
    return passed(name, f"signed in for another {duration(left)}, through {facts.exit}")


def judge_sign_in(email: str, error: ProxyError) -> Check:
    """A sign-in that failed just now."""
    name = f"account {masked_email(email)}"
    return failed(name, sign_in_trouble(error), str(error))


def sign_in_trouble(error: ProxyError) -> Trouble:
    if isinstance(error, SignInRefused):
        return _REFUSALS.get(error.reason.value, Trouble.WRONG_PASSWORD)
    return trouble_of(error)


def trouble_of(error: ProxyError) -> Trouble:
    """The trouble a failed call to the upstream shows."""
    match error:
        case UpstreamChallenged():
            return Trouble.EXIT_CHALLENGED
        case ExitUnreachable():
            return Trouble.PROXY_DEAD
        case QuotaExhausted():
            return Trouble.OUT_OF_QUOTA
        case UpstreamError():
            return Trouble.UPSTREAM_DOWN
        case AccountError():
            return Trouble.SIGN_IN_FAILED
        case _:
            return Trouble.CHAT_FAILED


def judge_exit(facts: ExitFacts, now: float) -> Check:
    name = f"exit {facts.exit}"
    trouble = _EXIT_STATES.get(facts.state)
    if trouble is None:
        return passed(name, "open")
    reason = f" ({facts.reason})" if facts.reason else ""
    until = "" if facts.until is None else f", for another {duration(facts.until - now)}"
    return failed(name, trouble, f"{facts.state.replace('_', ' ')}{reason}{until}")


def judge_clock(offset_seconds: float | None) -> Check:
    """`offset_seconds`: the upstream's clock minus ours."""
    if offset_seconds is None:
        return skipped("clock", "the upstream's clock has not been heard of")
    if abs(offset_seconds) > WRONG_CLOCK_SECONDS:
        way = "behind" if offset_seconds > 0 else "ahead of"
        says = f"this machine's clock is {duration(abs(offset_seconds))} {way} the upstream's"
        return failed("clock", Trouble.WRONG_CLOCK, says)
    return passed("clock", f"agrees with the upstream's to {math.ceil(abs(offset_seconds))} s")


def judge_drift(notes: Sequence[DriftFacts]) -> Check:
    if not notes:
        return passed("drift", "the upstream answers as the protocol page says")
    told = ", ".join(f"{note.kind} {note.name!r} (seen {note.count}×)" for note in notes[:8])
    more = f" and {len(notes) - 8} more" if len(notes) > 8 else ""
    return warned("drift", Trouble.DRIFT, f"unknown to this version: {told}{more}")


def overall(checks: Sequence[Check]) -> Verdict:
    """The worst of them: any FAIL, else any WARN, else OK."""
    verdicts = {check.verdict for check in checks}
    return next((verdict for verdict in (Verdict.FAIL, Verdict.WARN) if verdict in verdicts), Verdict.OK)


def duration(seconds: float) -> str:
    """In one unit, rounded up: `45 s`, `12 min`, `3 h`, `29 days`."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{math.ceil(seconds / size)} {unit}"
    return f"{max(0, math.ceil(seconds))} s"
