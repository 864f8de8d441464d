"""What the SQLite store has promised is there after a process was killed, at whatever moment."""

import subprocess
import sys
from pathlib import Path

import msgspec

from tests.support.killed_store import Report


def test_what_a_write_has_returned_is_never_lost_to_a_kill(tmp_path: Path) -> None:
    """200 processes are killed alone in the middle of their writes, 20 more beside another that must go on."""
    script = [sys.executable, "-m", "tests.support.killed_store", str(tmp_path), "200", "20"]
    done = subprocess.run(script, capture_output=True, timeout=55)
    assert done.returncode == 0, done.stderr.decode()
    report = msgspec.json.decode(done.stdout, type=Report)
    assert report.broken == []
    assert report.rounds == 220
    assert report.promised > 500  # they were in the middle of something
    assert report.killed_before_any < 150
