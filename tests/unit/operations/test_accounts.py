from contextlib import aclosing

from qwen_proxy.accounts.model import Account, Credential
from qwen_proxy.app.commons import accounts_of
from qwen_proxy.config.settings import load
from qwen_proxy.ground.errors import ExitUnreachable, ProxyError, SignInReason, SignInRefused
from qwen_proxy.ground.secret import Secret
from qwen_proxy.operations.accounts import SignInResult, check_accounts
from qwen_proxy.operations.advice import Trouble
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.tasks import Tasks
from tests.support.clock import FakeClock

ACCOUNTS = "a@x.example:1,b@x.example:2,c@x.example:3|http://h:1"


class Site:
    """Signs in, or raises what it was told to; remembers when."""

    def __init__(self, clock: Clock, **failures: ProxyError) -> None:
        self.seen: list[tuple[str, float]] = []
        self._clock = clock
        self._failures = failures

    async def sign_in(self, account: Account) -> Credential:
        name = account.id.partition("@")[0]
        self.seen.append((name, self._clock.monotonic()))
        if name in self._failures:
            raise self._failures[name]
        return Credential(account_id=account.id, token=Secret("t"), expires_at=5.0)


async def run(site: Site, clock: FakeClock, accounts: str = ACCOUNTS) -> list[SignInResult]:
    results: list[SignInResult] = []

    async def check() -> None:
        found = accounts_of(load({"ACCOUNTS": accounts}, None))
        async with aclosing(check_accounts(found, site.sign_in, clock, 10.0)) as checks:
            results.extend([result async for result in checks])

    async with Tasks() as tasks:
        task = tasks.spawn(check(), name="check")
        while not task.done():
            await clock.advance(1.0)
    return results


async def test_sign_ins_on_one_exit_are_spaced_and_others_do_not_wait():
    clock = FakeClock(monotonic=0.0)
    site = Site(clock)
    results = await run(site, clock)
    assert [round(at) for _, at in site.seen] == [0, 10, 10]
    assert [(result.account, result.says, result.trouble, result.expires_at) for result in results] == [
        ("a***@x.example", "signed in", None, 5.0),
        ("b***@x.example", "signed in", None, 5.0),
        ("c***@x.example", "signed in", None, 5.0),
    ]


async def test_refused_account_does_not_stop_the_others():
    clock = FakeClock()
    site = Site(clock, a=SignInRefused(SignInReason.WRONG_PASSWORD))
    results = await run(site, clock)
    assert [result.trouble for result in results] == [Trouble.WRONG_PASSWORD, None, None]
    assert results[0].advice and not results[1].advice


async def test_exit_that_cannot_be_used_is_left_alone():
    clock = FakeClock()
    site = Site(clock, c=ExitUnreachable("refused"))
    results = await run(site, clock, "c@x.example:3|http://h:1,d@x.example:4|http://h:1,e@x.example:5")
    assert [name for name, _ in site.seen] == ["c", "e"]
    assert [result.trouble for result in results] == [Trouble.PROXY_DEAD, Trouble.PROXY_DEAD, None]
    assert [result.exit for result in results] == ["http://h:1", "http://h:1", "direct"]
