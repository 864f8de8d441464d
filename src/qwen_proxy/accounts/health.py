"""How accounts and exits are doing: pure rules, without a clock.

Blame decides what rests (upstream protocol §4.7, §12.2):

| outcome | account | exit |
|---|---|---|
| OUT_OF_QUOTA | that feature is parked, for the upstream's word or 15 min doubling to 24 h | |
| THROTTLED | that feature is parked, for the upstream's word or 4 s doubling to 60 s | |
| CHALLENGED, the first on its exit for a minute | rests 60 s (a setting), doubling to 1 h | remembers who and when |
| CHALLENGED, another account within that minute, or on trial | | rests as long, doubling; then half-open |
| EXIT_UNREACHABLE | | rests 5 s, doubling to 60 s |
| UPSTREAM_FAILED, the fifth in a row and later | ranks last for 30 s, doubling to 15 min | |
| SUCCEEDED | strikes are forgotten where no rest is running | the same |
| CANCELLED, CLIENT_FAULT | | |

A burst is one event: what already rests gets no further strike. All times are Unix seconds.
"""

from collections.abc import Iterable, Mapping, Set
from enum import StrEnum
from typing import Final, Protocol, TypeVar, assert_never

from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.accounts.model import Account, Credential, Feature, Outcome, OutcomeKind
from qwen_proxy.ground.errors import ExitUnreachable, ProxyError, SignInReason, SignInRefused, UpstreamChallenged

MINUTE: Final = 60.0
HOUR: Final = 3600.0
DAY: Final = 24 * HOUR

LONGEST_WORD_SECONDS: Final = 7 * DAY  # a drifted `num` must not park an account for ever
EXIT_SUSPECT_SECONDS: Final = 60.0  # two accounts challenged within this: it is the exit
FAILURES_IN_A_ROW: Final = 5
FRESH_TOKEN_SECONDS: Final = 600.0  # a token rejected so soon after its sign-in will be rejected again


class Rest(Struct, frozen=True):
    """`strikes` in a row make the next rest longer; `until` 0 means none has been ordered."""

    until: float = 0.0
    strikes: int = 0
    reason: str = ""


class Growth(Struct, frozen=True):
    first_seconds: float
    cap_seconds: float


QUOTA: Final = Growth(15 * MINUTE, DAY)
THROTTLE: Final = Growth(4.0, MINUTE)  # §8.6
CHALLENGE: Final = Growth(60.0, HOUR)
UNREACHABLE: Final = Growth(5.0, 60.0)
FAILING: Final = Growth(30.0, 15 * MINUTE)
SIGN_IN_FAILURE: Final = Growth(30.0, 15 * MINUTE)
SIGN_IN_REFUSAL: Final = Growth(HOUR, DAY)
NO_REST: Final = Rest()


def grown(growth: Growth, strikes: int) -> float:
    return min(growth.cap_seconds, growth.first_seconds * 2.0 ** min(strikes, 32))


def struck(rest: Rest, now: float, growth: Growth, reason: str) -> Rest:
    """One strike more; what rests already stays as it is."""
    if rest.until > now:
        return rest
    return Rest(now + grown(growth, rest.strikes), rest.strikes + 1, reason)


def forgiven(rest: Rest, now: float) -> Rest:
    """After a success: strikes go, but a running rest stays, since the success may be older than its cause."""
    return rest if rest.until > now else NO_REST


class SignInState(StrEnum):
    NEVER = "never"
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # it could not be tried or broke off; it is tried again by itself
    REFUSED = "refused"  # the upstream said no


class SignInHealth(Struct, frozen=True, kw_only=True):
    """The last attempt and what follows. `retry_at` None: not again until the account is changed or tested.

    attempts: how many there were, ever. wanted: the number of the attempt that somebody asks for, at once; it has been
    made when `attempts` gets there. Numbers and not times: the clocks of two machines differ.
    """

    state: SignInState = SignInState.NEVER
    reason: str = ""
    attempted_at: float = 0.0
    succeeded_at: float = 0.0
    retry_at: float | None = 0.0
    strikes: int = 0
    is_unproven: bool = False  # no request has succeeded with the token of the last sign-in
    attempts: int = 0
    wanted: int = 0

    @property
    def is_wanted(self) -> bool:
        return self.wanted > self.attempts


NOT_PARKED: Final[Mapping[Feature, Rest]] = {}


class AccountHealth(Struct, frozen=True, kw_only=True):
    parked: Mapping[Feature, Rest] = NOT_PARKED
    challenge: Rest = NO_REST
    failing: Rest = NO_REST  # chosen last while it lasts, never excluded
    failures_in_a_row: int = 0
    sign_in: SignInHealth = SignInHealth()
    last_used_at: float = 0.0
    last_error: str = ""
    last_error_at: float = 0.0
    succeeded: int = 0
    failed: int = 0


class ExitHealth(Struct, frozen=True, kw_only=True):
    """`challenge` with strikes and a past `until` is half-open: one trial at a time decides."""

    challenge: Rest = NO_REST
    unreachable: Rest = NO_REST
    sign_in: Rest = NO_REST  # a challenge at sign-in stops this exit's sign-ins, not its requests
    challenged_account: str = ""
    challenged_at: float = 0.0

    def is_half_open(self, now: float) -> bool:
        return self.challenge.strikes > 0 and self.challenge.until <= now


HEALTHY: Final = AccountHealth()
HEALTHY_EXIT: Final = ExitHealth()


# --- what an outcome changes -------------------------------------------------------------------------------


def after_outcome(
    health: AccountHealth,
    exit: ExitHealth,
    outcome: Outcome,
    account_id: str,
    now: float,
    challenge: Growth = CHALLENGE,
) -> tuple[AccountHealth, ExitHealth]:
    """Both, after one use of the account. CREDENTIAL_REJECTED is only noted here: see `after_rejection`."""
    kind = outcome.kind
    health = replace(health, last_used_at=now)
    if kind is OutcomeKind.CANCELLED or kind is OutcomeKind.CLIENT_FAULT:
        return health, exit
    if kind is OutcomeKind.SUCCEEDED:
        return _succeeded(health, outcome.feature, now), _exit_succeeded(exit, now)
    said = outcome.detail or kind.value
    health = replace(health, last_error=said, last_error_at=now, failed=health.failed + 1)
    match kind:
        case OutcomeKind.OUT_OF_QUOTA:
            return _parked(health, outcome, now, QUOTA), exit
        case OutcomeKind.THROTTLED:
            return _parked(health, outcome, now, THROTTLE), exit
        case OutcomeKind.CHALLENGED:
            return _challenged(health, exit, account_id, said, now, challenge)
        case OutcomeKind.EXIT_UNREACHABLE:
            return health, replace(exit, unreachable=struck(exit.unreachable, now, UNREACHABLE, said))
        case OutcomeKind.UPSTREAM_FAILED:
            return _upstream_failed(health, said, now), exit
        case OutcomeKind.CREDENTIAL_REJECTED:
            return health, exit
        case _:
            assert_never(kind)


def is_calm(health: AccountHealth, exit: ExitHealth) -> bool:
    """Whether a success would change nothing but counts and times, which each process keeps for itself."""
    return (
        exit == HEALTHY_EXIT
        and not health.parked
        and health.failures_in_a_row == 0
        and health.challenge == NO_REST
        and health.failing == NO_REST
        and not health.sign_in.is_unproven
    )


def essence(health: AccountHealth) -> AccountHealth:
    """What processes share of it: without counts and times of uses."""
    return replace(health, last_used_at=0.0, succeeded=0, failed=0)


def with_counts(health: AccountHealth, own: AccountHealth) -> AccountHealth:
    """What was read from others, with this process's own counts and times."""
    return replace(
        health,
        last_used_at=max(health.last_used_at, own.last_used_at),
        succeeded=own.succeeded,
        failed=own.failed,
    )


def _succeeded(health: AccountHealth, feature: Feature, now: float) -> AccountHealth:
    rest = health.parked.get(feature)
    if rest is not None and rest.until <= now:
        health = replace(health, parked={other: kept for other, kept in health.parked.items() if other != feature})
    if health.sign_in.is_unproven:
        health = replace(health, sign_in=replace(health.sign_in, is_unproven=False, strikes=0))
    return replace(
        health,
        challenge=forgiven(health.challenge, now),
        failing=NO_REST,
        failures_in_a_row=0,
        succeeded=health.succeeded + 1,
    )


def _exit_succeeded(exit: ExitHealth, now: float) -> ExitHealth:
    if exit is HEALTHY_EXIT:
        return exit
    return replace(exit, challenge=forgiven(exit.challenge, now), unreachable=forgiven(exit.unreachable, now))


def _parked(health: AccountHealth, outcome: Outcome, now: float, growth: Growth) -> AccountHealth:
    rest = rested(health.parked.get(outcome.feature, NO_REST), outcome, now, growth)
    return replace(health, parked={**health.parked, outcome.feature: rest})


def rested(rest: Rest, outcome: Outcome, now: float, growth: Growth) -> Rest:
    """After an outcome that may say itself how long to wait."""
    word = outcome.rest_seconds
    if word is not None and word > 0:
        return Rest(max(rest.until, now + min(word, LONGEST_WORD_SECONDS)), rest.strikes, outcome.detail)
    return struck(rest, now, growth, outcome.detail)


def _challenged(
    health: AccountHealth, exit: ExitHealth, account_id: str, said: str, now: float, growth: Growth
) -> tuple[AccountHealth, ExitHealth]:
    suspect = exit.challenged_account not in ("", account_id) and now - exit.challenged_at <= EXIT_SUSPECT_SECONDS
    seen = replace(exit, challenged_account=account_id, challenged_at=now)
    if suspect or exit.challenge.strikes > 0:
        return health, replace(seen, challenge=struck(exit.challenge, now, growth, said))
    return replace(health, challenge=struck(health.challenge, now, growth, said)), seen


def _upstream_failed(health: AccountHealth, said: str, now: float) -> AccountHealth:
    in_a_row = health.failures_in_a_row + 1
    failing = struck(health.failing, now, FAILING, said) if in_a_row >= FAILURES_IN_A_ROW else health.failing
    return replace(health, failures_in_a_row=in_a_row, failing=failing)


# --- sign-in -----------------------------------------------------------------------------------------------


def after_rejection(health: AccountHealth, now: float) -> AccountHealth:
    """The current token is rejected (§1.4). One that is fresh and never worked is not renewed at once again."""
    sign_in = health.sign_in
    if not (sign_in.is_unproven and now - sign_in.succeeded_at <= FRESH_TOKEN_SECONDS):
        return replace(health, sign_in=replace(sign_in, is_unproven=False))
    return replace(
        health,
        sign_in=replace(
            sign_in,
            state=SignInState.REFUSED,
            reason="token_rejected_after_sign_in",
            retry_at=now + grown(SIGN_IN_FAILURE, sign_in.strikes),
            strikes=sign_in.strikes + 1,
            is_unproven=False,
        ),
    )


def after_sign_in(health: AccountHealth, exit: ExitHealth, now: float) -> tuple[AccountHealth, ExitHealth]:
    """A token came. Strikes stay until a request succeeds with it, so that useless tokens back off."""
    sign_in = SignInHealth(
        state=SignInState.SUCCEEDED,
        attempted_at=now,
        succeeded_at=now,
        strikes=health.sign_in.strikes,
        is_unproven=True,
        attempts=health.sign_in.attempts + 1,
        wanted=health.sign_in.wanted,
    )
    return replace(health, sign_in=sign_in), replace(exit, sign_in=NO_REST, unreachable=NO_REST)


def after_failed_sign_in(
    health: AccountHealth, exit: ExitHealth, error: ProxyError, now: float, challenge: Growth = CHALLENGE
) -> tuple[AccountHealth, ExitHealth]:
    """No token came: the account's own fault, its exit's, or an outage, which loses nobody."""
    sign_in, said = health.sign_in, str(error)
    match error:
        case SignInRefused():
            state, reason = SignInState.REFUSED, error.reason.value
            retry_at = None if error.reason in _FINAL else now + grown(SIGN_IN_REFUSAL, sign_in.strikes)
            strikes = sign_in.strikes + 1
        case UpstreamChallenged():
            exit = replace(exit, sign_in=struck(exit.sign_in, now, challenge, said))
            state, reason, retry_at, strikes = SignInState.FAILED, "challenged", exit.sign_in.until, sign_in.strikes
        case ExitUnreachable():
            exit = replace(exit, unreachable=struck(exit.unreachable, now, UNREACHABLE, said))
            state, reason, retry_at, strikes = SignInState.FAILED, said, exit.unreachable.until, sign_in.strikes
        case _:
            state, reason, strikes = SignInState.FAILED, said, sign_in.strikes + 1
            retry_at = now + grown(SIGN_IN_FAILURE, sign_in.strikes)
    sign_in = replace(
        sign_in,
        state=state,
        reason=reason,
        attempted_at=now,
        retry_at=retry_at,
        strikes=strikes,
        attempts=sign_in.attempts + 1,
    )
    return replace(health, sign_in=sign_in, last_error=said, last_error_at=now), exit


def after_demand(health: AccountHealth) -> AccountHealth:
    """Somebody wants this account signed in now, whatever came of it before."""
    sign_in = health.sign_in
    return replace(health, sign_in=replace(sign_in, retry_at=0.0, wanted=sign_in.attempts + 1))


def after_change(health: AccountHealth) -> AccountHealth:
    """The account has another password: what is known of signing in with the old one does not count."""
    sign_in = health.sign_in
    return replace(health, sign_in=SignInHealth(attempts=sign_in.attempts, wanted=sign_in.wanted))


_FINAL: Final = frozenset({SignInReason.WRONG_PASSWORD, SignInReason.NOT_REGISTERED, SignInReason.NO_PASSWORD})


# --- choosing ----------------------------------------------------------------------------------------------


class ExitState(Protocol):
    """`trial_until`: while later than now, a half-open exit's trial is out."""

    @property
    def health(self) -> ExitHealth: ...
    @property
    def trial_until(self) -> float: ...


class Candidate(Protocol):
    @property
    def account(self) -> Account: ...
    @property
    def credential(self) -> Credential | None: ...
    @property
    def health(self) -> AccountHealth: ...
    @property
    def exit(self) -> ExitState: ...
    @property
    def in_use(self) -> int: ...
    @property
    def held(self) -> int:
        """How many uses at a time this process may have now."""
        ...


class Obstacle(StrEnum):
    """Why an account can't be taken now. The first three end by themselves soon: worth waiting for."""

    BUSY = "busy"
    SIGNING_IN = "signing_in"
    EXIT_ON_TRIAL = "exit_on_trial"
    OUT_OF_QUOTA = "out_of_quota"
    CHALLENGED = "challenged"
    EXIT_CHALLENGED = "exit_challenged"
    EXIT_UNREACHABLE = "exit_unreachable"
    SIGN_INS_REST = "sign_ins_rest"
    SIGN_IN_FAILED = "sign_in_failed"
    SIGN_IN_REFUSED = "sign_in_refused"
    DISABLED = "disabled"


WORTH_WAITING: Final = frozenset({Obstacle.BUSY, Obstacle.SIGNING_IN, Obstacle.EXIT_ON_TRIAL})


class Hindrance(Struct, frozen=True, gc=False):
    """`until` None: nobody knows (worth waiting for), or only a person ends it."""

    obstacle: Obstacle
    until: float | None = None


def hindrance(candidate: Candidate, feature: Feature, now: float, limit: int) -> Hindrance | None:
    """What keeps this account from being taken now, the longest lasting kind first; None: nothing.

    `limit` is how many uses at a time an account may have, over all processes; 0 sets none.
    """
    health, exit = candidate.health, candidate.exit
    if not candidate.account.enabled:
        return Hindrance(Obstacle.DISABLED)
    if health.parked and (parked := health.parked.get(feature, NO_REST)).until > now:
        return Hindrance(Obstacle.OUT_OF_QUOTA, parked.until)
    if health.challenge.until > now:
        return Hindrance(Obstacle.CHALLENGED, health.challenge.until)
    if exit.health is not HEALTHY_EXIT and (found := _exit_hindrance(exit, now)) is not None:
        return found
    if candidate.credential is None:
        return token_hindrance(candidate, now)
    if limit > 0 and candidate.in_use >= candidate.held:
        return Hindrance(Obstacle.BUSY)
    return None


def _exit_hindrance(exit: ExitState, now: float) -> Hindrance | None:
    health = exit.health
    if health.challenge.until > now:
        return Hindrance(Obstacle.EXIT_CHALLENGED, health.challenge.until)
    if health.unreachable.until > now:
        return Hindrance(Obstacle.EXIT_UNREACHABLE, health.unreachable.until)
    if exit.trial_until > now and health.is_half_open(now):
        return Hindrance(Obstacle.EXIT_ON_TRIAL)
    return None


def token_hindrance(candidate: Candidate, now: float) -> Hindrance:
    """What keeps an account without a token from getting one; SIGNING_IN when nothing does."""
    sign_in, exit = candidate.health.sign_in, candidate.exit.health
    if sign_in.retry_at is None or sign_in.retry_at > now:
        if exit.sign_in.until > now and sign_in.state is not SignInState.REFUSED:
            return Hindrance(Obstacle.SIGN_INS_REST, exit.sign_in.until)
        refused = sign_in.state is SignInState.REFUSED
        return Hindrance(Obstacle.SIGN_IN_REFUSED if refused else Obstacle.SIGN_IN_FAILED, sign_in.retry_at)
    if exit.sign_in.until > now:
        return Hindrance(Obstacle.SIGN_INS_REST, exit.sign_in.until)
    return Hindrance(Obstacle.SIGNING_IN)


C = TypeVar("C", bound=Candidate)


def choose(
    candidates: Iterable[C],
    feature: Feature,
    now: float,
    limit: int,
    avoid_accounts: Set[str] = frozenset(),
    avoid_exits: Set[str] = frozenset(),
) -> C | None:
    """The best account that can be taken now, or None.

    `candidates` come in order of preference (in use, last used, id): the first that is neither avoided nor failing
    is taken; else the first avoided, else the first failing one.
    """
    best, best_rank = None, 4
    for candidate in candidates:
        if hindrance(candidate, feature, now, limit) is not None:
            continue
        account = candidate.account
        avoided = account.id in avoid_accounts or account.exit in avoid_exits
        rank = 2 * (candidate.health.failing.until > now) + avoided
        if rank == 0:
            return candidate
        if rank < best_rank:
            best, best_rank = candidate, rank
    return best
