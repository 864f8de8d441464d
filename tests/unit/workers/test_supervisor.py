"""The supervisor's arithmetic; what it does is in tests/e2e/test_workers.py."""

from pathlib import Path

from qwen_proxy.workers.messages import DriftCount
from qwen_proxy.workers.supervisor import modified, summed


def drift(name: str, count: int, first_at: float) -> DriftCount:
    return DriftCount(kind="phase", name=name, count=count, first_at=first_at)


def test_drift_of_several_workers_is_one_count_for_each_name() -> None:
    counts = [drift("b", 1, 9.0), drift("a", 2, 7.0), drift("b", 3, 5.0)]
    assert summed(counts) == [drift("b", 4, 5.0), drift("a", 2, 7.0)]


def test_only_python_files_are_watched(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    module = tmp_path / "deep" / "module.py"
    module.touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere")
    assert modified(tmp_path) == {module: module.stat().st_mtime_ns}
