"""When a request goes on to another backend."""

import pytest

from qwen_proxy.chat.models import Model, ModelName
from qwen_proxy.gateway.overflow import Line, moves_on
from qwen_proxy.gateway.routing import Target
from qwen_proxy.ground import errors


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.AccountsBusy("busy"), True),
        (errors.AccountsChallenged("challenged"), True),
        (errors.AccountsOutOfQuota("parked"), True),
        (errors.NoAccountUsable("none"), True),
        (errors.UnsupportedParameter("no tools"), True),
        (errors.PromptTooLong(2, 1), True),
        (errors.ShuttingDown(), False),
        (errors.StoreUnavailable("gone"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_backend_that_was_not_asked_is_left_whatever_is_left_of_the_tries(
    error: errors.ProxyError, expected: bool
) -> None:
    assert moves_on(error, was_asked=False, tries_left=0) is expected


@pytest.mark.parametrize(
    ("error", "with_two_left", "with_one_left"),
    [
        (errors.UpstreamUnavailable("HTTP 503"), True, True),
        (errors.UpstreamOverloaded(), True, True),
        (errors.UpstreamTimeout("connect", 1), True, True),
        (errors.ExitUnreachable("refused"), True, True),
        (errors.UpstreamChallenged("json"), False, True),
        (errors.ReplyEmpty("nothing"), False, True),
        (errors.ReplyCut(), False, True),
        (errors.UpstreamTimeout("total", 1), False, False),
        (errors.ContentRefused("data_inspection_failed"), False, False),
        (errors.InternalError(), False, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_backend_that_was_asked_is_left_when_it_is_away_or_for_the_last_try(
    error: errors.ProxyError, with_two_left: bool, with_one_left: bool
) -> None:
    assert [moves_on(error, was_asked=True, tries_left=left) for left in (2, 1, 0)] == [
        with_two_left,
        with_one_left,
        False,
    ]


def test_other_accounts_of_a_backend_come_before_another_backend() -> None:
    assert [moves_on(errors.QuotaExhausted(), was_asked=True, tries_left=left) for left in (1, 0, -1)] == [
        False,
        True,
        True,
    ]


def target(backend: str) -> Target:
    return Target(backend=backend, name=ModelName("m"), model=Model(id="m", display_name="M"), public="m")


def test_who_was_only_busy_comes_once_more_behind_the_others() -> None:
    line = Line([target("web"), target("studio")])
    assert line.has_next
    line.advance(errors.AccountsBusy("busy"))
    assert (line.current.backend, line.has_next) == ("studio", True)
    line.advance(errors.AccountsOutOfQuota("parked"))
    assert (line.current.backend, line.has_next) == ("web", False)


def test_who_is_busy_again_does_not_come_a_third_time() -> None:
    line = Line([target("web"), target("studio")])
    for _ in range(3):
        line.advance(errors.AccountsBusy("busy"))
    assert (line.current.backend, line.has_next) == ("studio", False)
