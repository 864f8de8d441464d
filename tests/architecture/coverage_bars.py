"""Pure modules are covered whole, with branches: `python -m tests.architecture.coverage_bars`, after a coverage run.

Only unit, property and conformance tests count (`make coverage`): what a test of the whole program happens to pass
through is not tested by it.
"""

import sys
import tempfile
from pathlib import Path
from typing import Final

import coverage
import msgspec
from msgspec import Struct

ROOT: Final = Path("src/qwen_proxy")
WHOLE: Final = (
    "chat/*.py",
    "ground/*.py",
    "protocols/*.py",
    "accounts/affinity.py",
    "accounts/borrowing.py",
    "accounts/bulk/model.py",
    "accounts/bulk/queue.py",
    "accounts/bulk/report.py",
    "accounts/cookies.py",
    "accounts/health.py",
    "accounts/lines.py",
    "accounts/ordering.py",
    "accounts/report.py",
    "accounts/seats.py",
    "accounts/shells.py",
    "accounts/key_health.py",
    "config/addresses.py",
    "config/backends.py",
    "config/lines.py",
    "config/routes.py",
    "admin/original_stats.py",
    "admin/page.py",
    "admin/reading.py",
    "gateway/*.py",
    "operations/migration/account_plan.py",
    "operations/migration/data_json.py",
    "operations/migration/dotenv.py",
    "operations/migration/found.py",
    "operations/migration/planning.py",
    "operations/migration/scanning.py",
    "operations/moments.py",
    "serving/origins.py",
    "state/windows.py",
    "state/kinds.py",
    "state/store.py",
    "storage/redis_replies.py",
    "storage/sharing.py",
    "toolcalls/*.py",
    "toolcalls/readers/*.py",
    "upstreams/openai_api/*.py",
    "upstreams/qwen_code_wire.py",
    "upstreams/question.py",
    "upstreams/refusals.py",
    "upstreams/qwen_web/asking.py",
    "upstreams/qwen_web/candidates.py",
    "upstreams/qwen_web/codec.py",
    "upstreams/qwen_web/errors.py",
    "upstreams/qwen_web/extras.py",
    "upstreams/qwen_web/headers.py",
    "upstreams/qwen_web/listing.py",
    "upstreams/qwen_web/native_calls.py",
    "upstreams/qwen_web/queries.py",
    "upstreams/qwen_web/token.py",
    "upstreams/qwen_web/wire.py",
)


class Summary(Struct, frozen=True):
    percent_covered: float


class Measured(Struct, frozen=True):
    """`missing_branches` are pairs of lines, the second negative where the function is left."""

    summary: Summary
    missing_lines: list[int]
    missing_branches: list[tuple[int, int]]


class Report(Struct, frozen=True):
    files: dict[str, Measured]


def pure_modules() -> list[Path]:
    return sorted({path for pattern in WHOLE for path in ROOT.glob(pattern)})


def shortcomings(report: Report, modules: list[Path]) -> list[str]:
    """A line of the table for each module that falls short; one that no test imported falls short too."""
    lines: list[str] = []
    for module in modules:
        measured = report.files.get(str(module))
        if measured is None:
            lines.append(f"{module}: never imported")
        elif measured.missing_lines or measured.missing_branches:
            missing = [str(line) for line in measured.missing_lines]
            missing += [f"{start}->{'exit' if end < 0 else end}" for start, end in measured.missing_branches]
            lines.append(f"{module}: {measured.summary.percent_covered:.1f} %, missing {', '.join(missing)}")
    return lines


def measured() -> Report:
    """What the combined data file of this folder holds."""
    data = coverage.Coverage()
    data.load()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "coverage.json"
        data.json_report(outfile=str(path))
        return msgspec.json.decode(path.read_bytes(), type=Report)


def main() -> None:
    modules = pure_modules()
    short = shortcomings(measured(), modules)
    sys.stdout.write("".join(f"{line}\n" for line in short))
    sys.stdout.write(f"{len(modules) - len(short)} of {len(modules)} pure modules are covered whole, with branches\n")
    sys.exit(1 if short else 0)


if __name__ == "__main__":
    main()
