"""What an operator and the original's page are told."""

import msgspec
import pytest
from msgspec.structs import replace

from qwen_proxy.accounts.bulk.model import Batch, BatchLine, BatchStatus, LineStatus, PauseCause
from qwen_proxy.accounts.bulk.report import LineReport, batch_progress, message_of, task_snapshot
from qwen_proxy.ground.secret import Secret

ID = "batch_1790000000000_ab12cd34"
BATCH = Batch(
    created_at=1_790_000_000.0,
    status=BatchStatus.RUNNING,
    started_at=1_790_000_000.1,
    concurrency=5,
    total=10,
    good=8,
    repeated=1,
    invalid=1,
    succeeded=2,
    failed=(2,),
    active=(3,),
    recent=(1, 2, 4),
)
LINES = {
    1: BatchLine(email="a@x", status=LineStatus.SUCCEEDED, message="signed in", finished_at=1.0),
    2: BatchLine(email="b@x", password=Secret("canary"), status=LineStatus.FAILED, message="refused", finished_at=2.0),
    3: BatchLine(email="c@x", password=Secret("canary"), exit="http://u:canary@h:1", status=LineStatus.RUNNING),
}


def test_the_originals_snapshot_comes_field_by_field():
    snapshot = task_snapshot(batch_progress(ID, BATCH, LINES), ["b@x"])
    assert msgspec.json.decode(msgspec.json.encode(snapshot)) == {
        "taskId": ID,
        "status": "running",
        "message": "5 of 10 done, 1 being signed in",
        "total": 10,
        "valid": 9,
        "skipped": 1,
        "invalid": 1,
        "processed": 3,
        "completed": 5,
        "pending": 5,
        "success": 2,
        "failed": 1,
        "progress": 50.0,
        "concurrency": 5,
        "activeEmails": ["c@x"],
        "failedEmails": ["b@x"],
        "recentResults": [
            {"email": "a@x", "status": "success", "message": "signed in"},
            {"email": "b@x", "status": "failed", "message": "refused"},
        ],
        "createdAt": 1790000000000,
        "startedAt": 1790000000100,
        "finishedAt": None,
    }


def test_progress_has_each_line_without_secrets():
    progress = batch_progress(ID, BATCH, LINES)
    assert progress.active == (
        LineReport(number=3, email="c@x", exit="http://h:1", status=LineStatus.RUNNING, message="", finished_at=None),
    )
    assert [line.number for line in progress.recent] == [1, 2]
    assert (progress.pending, progress.running, progress.done, progress.percent) == (4, 1, 5, 50.0)
    assert progress.can_retry and not progress.is_over
    assert b"canary" not in msgspec.json.encode(progress)


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"status": BatchStatus.PENDING}, "pending", "waiting to begin"),
        ({"active": ()}, "running", "5 of 10 done"),
        (
            {"status": BatchStatus.PAUSED, "paused_by": PauseCause.OPERATOR},
            "running",
            "paused at 5 of 10 by an operator",
        ),
        ({"status": BatchStatus.PAUSED, "reason": "a check"}, "running", "paused at 5 of 10: a check"),
        ({"status": BatchStatus.CANCELLED, "cancelled": 5}, "failed", "cancelled: 2 added, 1 failed"),
        ({"status": BatchStatus.COMPLETED, "skipped": 5}, "completed", "completed: 2 added, 1 failed"),
        ({"status": BatchStatus.FAILED, "reason": "unreadable"}, "failed", "given up: unreadable"),
    ],
)
def test_states_the_original_does_not_know_have_a_word_that_it_does(
    changes: dict[str, object], status: str, message: str
):
    batch = replace(BATCH, **changes)
    snapshot = task_snapshot(batch_progress(ID, batch, {}), [])
    assert (snapshot.status, snapshot.message, message_of(batch)) == (status, message, message)
    assert snapshot.completed == snapshot.skipped + snapshot.invalid + snapshot.processed


def test_a_batch_of_nothing_is_done():
    assert batch_progress(ID, Batch(created_at=0.0, finished_at=5.0), {}).percent == 100.0
