"""What crosses the channel arrives as it was sent, wherever the bytes are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_proxy.accounts.leasing import PoolStatus
from qwen_proxy.accounts.model import Credential, Feature, Outcome, OutcomeKind
from qwen_proxy.ground.errors import (
    AccountsBusy,
    AccountsOutOfQuota,
    CredentialRejected,
    ExitUnreachable,
    NoAccountUsable,
    ProxyError,
    ShuttingDown,
    SignInReason,
    SignInRefused,
    UpstreamChallenged,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from qwen_proxy.ground.secret import Secret
from qwen_proxy.workers.messages import (
    MAX_FRAME_BYTES,
    DriftCount,
    DriftSeen,
    Frames,
    FromSupervisor,
    FromWorker,
    LeaseGranted,
    LeaseNotWanted,
    LeaseOver,
    LeaseWanted,
    Ready,
    Refused,
    RenewalWanted,
    Renewed,
    Retire,
    Survey,
    Surveyed,
    SurveyWanted,
    WorkerReport,
    encode,
    supervisor_decoder,
    worker_decoder,
)
from qwen_proxy.workers.problems import rebuilt, told

CREDENTIAL = Credential(account_id="a", token=Secret("canary"), exit="http://p", cookies=Secret("c"), expires_at=7.5)
DRIFT = DriftCount(kind="phase", name="odd", count=3, first_at=1.0)
SURVEY = Survey(
    pool=PoolStatus(accounts=(), exits=(), why_not_ready="none"),
    workers=(WorkerReport(slot=0, pid=1, state="ready", uptime_seconds=2.0, memory_bytes=3, leases=4),),
    drift=(DRIFT,),
)
FROM_WORKER: list[FromWorker] = [
    Ready(),
    LeaseWanted(1, Feature.CHAT, 60.0, ("a",), ("http://p",), "b"),
    LeaseWanted(2, Feature.VIDEO, 0.5),
    LeaseNotWanted(3),
    LeaseOver(4, Outcome(kind=OutcomeKind.OUT_OF_QUOTA, rest_seconds=9.0, detail="ü")),
    LeaseOver(5, None),
    RenewalWanted(6, CREDENTIAL, 3.0),
    SurveyWanted(7),
    DriftSeen((DRIFT,)),
]
FROM_SUPERVISOR: list[FromSupervisor] = [
    LeaseGranted(1, CREDENTIAL),
    Renewed(2),
    Refused(3, "AccountsBusy", "all are busy", {"retry_after_seconds": None}),
    Surveyed(4, SURVEY),
    Retire(1800.0),
]


@given(cuts=st.lists(st.integers(0, 400), max_size=12))
def test_messages_do_not_depend_on_where_bytes_are_cut(cuts: list[int]) -> None:
    whole = b"".join(map(encode, FROM_WORKER))
    frames = Frames(worker_decoder())
    ends = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    pieces = [whole[start:end] for start, end in pairwise(ends)]
    assert [message for piece in pieces for message in frames.feed(piece)] == FROM_WORKER


def test_the_supervisors_messages_arrive() -> None:
    frames = Frames(supervisor_decoder())
    assert [message for each in FROM_SUPERVISOR for message in frames.feed(encode(each))] == FROM_SUPERVISOR


def test_a_frame_that_is_no_message_is_refused() -> None:
    with pytest.raises(ValueError, match="bytes"):
        list(Frames(worker_decoder()).feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big")))
    with pytest.raises(ValueError, match=r"Invalid|truncated|Expected"):
        list(Frames(worker_decoder()).feed(encode(Retire(1.0))))


def test_secrets_print_as_nothing() -> None:
    assert "canary" not in repr((FROM_WORKER, FROM_SUPERVISOR))


@pytest.mark.parametrize(
    "error",
    [
        NoAccountUsable("none", 5.0),
        AccountsBusy("busy"),
        AccountsOutOfQuota("parked", 3600.0),
        CredentialRejected(),
        ShuttingDown(),
        SignInRefused(SignInReason.BANNED),
        UpstreamChallenged("html"),
        UpstreamUnavailable("HTTP 503"),
        UpstreamTimeout("connect", 30),
        ExitUnreachable("refused"),
    ],
)
def test_an_error_is_the_same_on_the_other_side(error: ProxyError) -> None:
    again = rebuilt(told(1, error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert again.retry_after_seconds == error.retry_after_seconds
    assert again.blame is error.blame


def test_an_error_of_no_known_class_keeps_its_sentence() -> None:
    again = rebuilt(Refused(1, "FromTomorrow", "a sentence", {}))
    assert (type(again), str(again)) == (ProxyError, "a sentence")
