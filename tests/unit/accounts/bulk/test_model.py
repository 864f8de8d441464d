"""How batches and lines change, and how they may not."""

import pytest
from msgspec.structs import replace

from qwen_proxy.accounts.bulk import model
from qwen_proxy.accounts.bulk.model import Batch, BatchLine, BatchStatus, LineStatus, PauseCause
from qwen_proxy.ground.secret import Secret

NOW = 1_800_000_000.0
BATCH = Batch(created_at=NOW - 9, total=5, good=3, repeated=1, invalid=1)
LINE = BatchLine(email="alice@x.org", password=Secret("canary"))
STATUSES = list(BatchStatus)
MAY_PAUSE = {BatchStatus.PENDING, BatchStatus.RUNNING}
MAY_CANCEL = MAY_PAUSE | {BatchStatus.PAUSED}
MAY_RETRY = {BatchStatus.RUNNING, BatchStatus.PAUSED, BatchStatus.COMPLETED}


def of(status: BatchStatus, **changes: object) -> Batch:
    over = status in (BatchStatus.COMPLETED, BatchStatus.FAILED)
    return replace(BATCH, **{"status": status, "finished_at": NOW if over else None} | changes)


@pytest.mark.parametrize("status", STATUSES)
def test_each_wish_is_granted_from_the_states_it_fits(status: BatchStatus):
    batch = of(status, failed=(1,))
    assert (model.start(batch, NOW) is not None) is (status is BatchStatus.PENDING)
    assert (model.pause(batch, PauseCause.OPERATOR) is not None) is (status in MAY_PAUSE)
    assert (model.resume(batch) is not None) is (status is BatchStatus.PAUSED)
    assert (model.cancel(batch) is not None) is (status in MAY_CANCEL)
    assert (model.retry(batch) is not None) is (status in MAY_RETRY)
    assert (model.fail(batch, "r", "a", NOW) is not None) is (not batch.is_over)
    assert (model.begin(batch, 1, LINE) is not None) is (status is BatchStatus.RUNNING)
    assert (model.cancel_line(NOW)(batch, 1, LINE) is not None) is (status is BatchStatus.CANCELLED)
    assert (model.forget_password(batch, 1, LINE) is not None) is batch.is_over
    assert (model.forgotten(batch) is not None) is batch.is_over


def test_a_batch_goes_on_as_what_it_was_before_its_pause():
    for status, started_at in ((BatchStatus.PENDING, None), (BatchStatus.RUNNING, NOW)):
        paused = model.pause(of(status, started_at=started_at, setbacks=5), PauseCause.CHALLENGE, "why", "what to do")
        assert paused is not None and (paused.paused_by, paused.reason) == (PauseCause.CHALLENGE, "why")
        assert model.resume(paused) == of(status, started_at=started_at)


def test_nothing_is_tried_again_where_nothing_failed_or_passwords_are_forgotten():
    assert model.retry(of(BatchStatus.COMPLETED)) is None
    assert model.retry(of(BatchStatus.COMPLETED, failed=(1,), has_passwords=False)) is None
    again = model.retry(of(BatchStatus.COMPLETED, failed=(1,), started_at=NOW))
    assert again is not None and again.wants_retry and again.status is BatchStatus.RUNNING and not again.is_over
    done = model.retried(again)
    assert done is not None and not done.wants_retry and model.retried(done) is None


def test_a_batch_is_complete_when_no_line_is_open_and_none_is_to_be_tried_again():
    assert model.complete(of(BatchStatus.RUNNING), NOW) is None
    finished = of(BatchStatus.RUNNING, succeeded=2, skipped=1)
    assert model.complete(finished, NOW) == of(BatchStatus.COMPLETED, succeeded=2, skipped=1)
    assert model.complete(replace(finished, wants_retry=True), NOW) is None
    assert model.complete(of(BatchStatus.PAUSED, succeeded=3), NOW) is None
    cancelled = model.complete(of(BatchStatus.CANCELLED, cancelled=3), NOW)
    assert cancelled is not None and cancelled.is_over and model.complete(cancelled, NOW) is None


def test_a_line_keeps_its_password_only_while_it_may_be_needed():
    batch, line = model.begin(of(BatchStatus.RUNNING), 7, LINE) or pytest.fail()
    assert (batch.active, line.status) == ((7,), LineStatus.RUNNING)
    for status in (LineStatus.SUCCEEDED, LineStatus.SKIPPED, LineStatus.CANCELLED, LineStatus.FAILED):
        _, ended = model.end(status, "said", NOW)(batch, 7, line) or pytest.fail()
        assert (ended.password is not None) is (status is LineStatus.FAILED)
        assert (ended.status, ended.message, ended.finished_at) == (status, "said", NOW)
        assert model.end(status, "again", NOW)(batch, 7, ended) is None
        assert model.put_back(batch, 7, ended) is None and model.begin(batch, 7, ended) is None
        assert model.cancel_line(NOW)(of(BatchStatus.CANCELLED), 7, ended) is None


def test_counts_follow_the_lines():
    batch = of(BatchStatus.RUNNING, good=4, setbacks=3)
    for number, status in enumerate((LineStatus.SUCCEEDED, LineStatus.FAILED, LineStatus.SKIPPED), 1):
        begun = model.begin(batch, number, LINE) or pytest.fail()
        batch, _ = model.end(status, "", NOW)(begun[0], number, begun[1]) or pytest.fail()
    assert (batch.succeeded, batch.failed, batch.skipped, batch.open, batch.active) == (1, (2,), 1, 1, ())
    assert (batch.recent, batch.setbacks) == ((3, 2, 1), 0)


def test_the_last_twelve_are_remembered_newest_first():
    batch = of(BatchStatus.RUNNING, good=20)
    for number in range(1, 16):
        batch, _ = model.end(LineStatus.SUCCEEDED, "", NOW)(batch, number, LINE) or pytest.fail()
    assert batch.recent == tuple(range(15, 3, -1))


def test_a_line_begun_anew_is_active_once():
    batch, line = model.begin(of(BatchStatus.RUNNING), 7, LINE) or pytest.fail()
    again, _ = model.begin(batch, 7, line) or pytest.fail()
    assert again.active == (7,)
    back, line = model.put_back(again, 7, line) or pytest.fail()
    assert (back.active, line) == ((), LINE)
    assert model.challenged("r", "a")(back, 7, line) is None and model.unanswered("m", "a", NOW)(back, 7, line) is None


def test_a_challenge_or_a_setback_of_a_batch_that_is_cancelled_leaves_it_so():
    batch, line = model.begin(of(BatchStatus.RUNNING, setbacks=model.MOST_SETBACKS), 7, LINE) or pytest.fail()
    cancelled = model.cancel(batch) or pytest.fail()
    for change in (model.challenged("r", "a"), model.unanswered("m", "a", NOW)):
        after, back = change(cancelled, 7, line) or pytest.fail()
        assert (after.status, after.reason, back.status) == (BatchStatus.CANCELLED, "", LineStatus.PENDING)


def test_a_failed_line_is_tried_again_as_if_it_were_new_if_its_password_is_known():
    batch, line = model.begin(of(BatchStatus.RUNNING), 7, LINE) or pytest.fail()
    batch, failed = model.end(LineStatus.FAILED, "said", NOW)(batch, 7, line) or pytest.fail()
    again, new = model.retry_line(batch, 7, failed) or pytest.fail()
    assert (again.failed, again.recent, again.open, new) == ((), (), 3, LINE)
    assert model.retry_line(again, 7, new) is None
    assert model.retry_line(batch, 7, replace(failed, password=None)) is None


def test_a_line_prints_no_secret():
    assert repr(LINE) == "BatchLine('al***@x.org', pending, '')"
