import io
import logging
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from qwen_proxy.ground.redact import redacted
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.frequent_line import FrequentLine
from qwen_proxy.runtime.logfile import RollingFile
from qwen_proxy.runtime.logs import LogOptions, Logs, request_id_var, set_level

log = logging.getLogger("qwen_proxy.tests")

TEXT = LogOptions(redact=redacted)
JSON = LogOptions(redact=redacted, form="json", source="worker-1")


def decoded(stream: io.StringIO) -> list[dict[str, object]]:
    return [msgspec.json.decode(line, type=dict[str, object]) for line in stream.getvalue().splitlines()]


def test_text_line_is_a_word_and_its_fields():
    stream = io.StringIO()
    with Logs(TEXT, stream):
        log.info("lease", extra={"account": "al***@x", "wait_seconds": 0.25, "why": "a b", "until": 1798012780.0})
    line = stream.getvalue()
    assert line.endswith(' INFO  lease account=al***@x wait_seconds=0.25 why="a b" until=1798012780\n')


def test_json_line_has_typed_fields_and_the_originals_level_words():
    stream = io.StringIO()
    with Logs(JSON, stream):
        log.warning("slow", extra={"status": 200, "ok": True, "path": Path("a")})
        logging.getLogger().critical("end")
    first, second = decoded(stream)
    assert first["level"] == "WARN" and second["level"] == "ERROR"
    assert (first["message"], first["status"], first["ok"], first["path"]) == ("slow", 200, True, "a")
    assert (first["logger"], first["source"]) == ("qwen_proxy.tests", "worker-1")
    assert str(first["time"]).endswith("Z")


@pytest.mark.parametrize("options", [TEXT, JSON])
def test_a_frequent_line_is_a_line_as_any_other(options: LogOptions):
    fields = {"path": Path("a b"), "n": 0, "ms": 0.25, "ok": True, "key": "", "model": None, "token": "canary"}
    stream = io.StringIO()
    line = FrequentLine(log, "request")
    with Logs(options, stream):
        before = request_id_var.set("req_1")
        for _ in range(2):
            line.tell(logging.INFO, fields)
        log.info("request", extra=fields)
        line.tell(logging.WARNING, fields)
        log.warning("request", extra=fields)
        request_id_var.reset(before)
    moment = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
    texts = [moment.sub("T", line) for line in stream.getvalue().splitlines()]
    assert texts[0] == texts[1] == texts[2] != texts[3] == texts[4]
    assert "req_1" in texts[0] and "***" in texts[0] and "canary" not in texts[0]


def test_a_frequent_line_reaches_other_programs_handlers_filters_and_formats():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s:%(lineno)d %(message)s %(n)d"))
    other = logging.getLogger("qwen_proxy.tests.frequent")
    other.addHandler(handler)
    line = FrequentLine(other, "request")
    line.tell(logging.WARNING, {"n": 1})
    other.addFilter(lambda _record: False)
    line.tell(logging.WARNING, {"n": 2})
    assert stream.getvalue().endswith(" WARNING qwen_proxy.tests.frequent:0 request 1\n")


def test_the_record_of_a_frequent_line_has_all_that_others_have(caplog: pytest.LogCaptureFixture):
    line = FrequentLine(log, "request")
    for number in (1, 2):
        line.tell(logging.WARNING, {"n": number})
    log.warning("request", extra={"n": 3})
    one, two, usual = caplog.records
    assert one.__dict__.keys() == two.__dict__.keys() == usual.__dict__.keys()
    assert (one.__dict__["n"], two.__dict__["n"]) == (1, 2)
    assert one.created <= two.created <= usual.created
    assert one.relativeCreated <= two.relativeCreated <= usual.relativeCreated


def test_lines_that_come_while_others_are_gathered_are_all_written_in_their_order():
    stream = SlowStream(0)
    stream.go.set()
    with Logs(JSON, stream):
        for number in range(3000):  # more than are written at once
            log.info("n", extra={"number": number})
    assert [line["number"] for line in decoded(stream)] == list(range(3000))


def test_request_id_is_on_every_line_logged_on_its_behalf():
    stream = io.StringIO()
    with Logs(JSON, stream):
        before = request_id_var.set("req_1")
        log.info("inside")
        request_id_var.reset(before)
        log.info("outside")
    inside, outside = decoded(stream)
    assert inside["request_id"] == "req_1"
    assert "request_id" not in outside


def test_a_floor_holds_whatever_the_level_becomes():
    stream = io.StringIO()
    with Logs(LogOptions(redact=redacted, level="ERROR", floor="ERROR"), stream):
        set_level("DEBUG")
        log.warning("quiet")
        log.error("loud")
    assert "quiet" not in stream.getvalue() and "loud" in stream.getvalue()


def test_level_is_the_least_that_is_logged():
    stream = io.StringIO()
    with Logs(LogOptions(redact=redacted, level="WARN"), stream):
        log.info("quiet")
        log.warning("loud")
    assert "quiet" not in stream.getvalue() and "loud" in stream.getvalue()


@pytest.mark.parametrize("options", [TEXT, JSON])
def test_secrets_are_masked_in_message_fields_and_traces(options: LogOptions):
    stream = io.StringIO()
    with Logs(options, stream):
        log.info("sign-in with Bearer canary-1", extra={"token": "canary-2", "url": "http://u:canary-3@h", "n": 1})
        log.info("account", extra={"account": [Secret("canary-4")]})
        try:
            raise ValueError("eyJhbGciOiJIUzI1NiJ9.canary-5.sig")
        except ValueError:
            log.exception("failed")
    assert "canary" not in stream.getvalue()
    assert "ValueError" in stream.getvalue()


def test_line_feeds_do_not_forge_lines():
    stream = io.StringIO()
    with Logs(TEXT, stream):
        log.info("one\n2026-01-01 ERROR two", extra={"path": "/v1\r\nx=y"})
    assert len(stream.getvalue().splitlines()) == 1


@pytest.mark.parametrize("options", [TEXT, JSON])
def test_half_a_character_is_no_obstacle(options: LogOptions):
    stream = io.StringIO()
    with Logs(options, stream):
        log.info("odd \ud800", extra={"path": "/\udcff"})
        log.info("next")
    assert len(stream.getvalue().splitlines()) == 2


def test_arguments_that_do_not_fit_lose_nothing():
    stream = io.StringIO()
    with Logs(TEXT, stream):
        log.info("one %d %d", "x")  # a foreign library's slip
    assert "one %d %d" in stream.getvalue()


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("canary")


@pytest.mark.parametrize("options", [TEXT, JSON])
def test_a_value_that_cannot_be_printed_loses_its_line_only(options: LogOptions):
    stream = io.StringIO()
    with Logs(options, stream):
        log.info("one", extra={"value": Unprintable()})
        log.info("two", extra={"value": 2})
    lost, kept = stream.getvalue().splitlines()
    assert "reason=RuntimeError" in lost and "canary" not in lost
    assert "two" in kept


def test_what_was_before_is_back_afterwards():
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    with Logs(TEXT, io.StringIO()):
        assert root.handlers != before[1]
    assert (root.level, root.handlers) == before


class StuckStream(io.StringIO):
    def write(self, s: str, /) -> int:
        raise BrokenPipeError


def test_a_broken_stream_does_not_stop_the_file(tmp_path: Path):
    options = LogOptions(redact=redacted, file=tmp_path / "logs" / "qwen-proxy.log")
    with Logs(options, StuckStream()):
        log.info("still here")
    assert "still here" in (tmp_path / "logs" / "qwen-proxy.log").read_text()


class SlowStream(io.StringIO):
    """Takes nothing until it is let go; knows when so many lines were written or told of as dropped."""

    def __init__(self, lines: int) -> None:
        super().__init__()
        self.go = threading.Event()
        self.complete = threading.Event()
        self._missing = lines

    def write(self, s: str, /) -> int:
        self.go.wait()
        size = super().write(s)
        self._missing -= s.count('"flood"') + sum(int(count) for count in re.findall(r'"count":(\d+)', s))
        if self._missing <= 0:
            self.complete.set()
        return size


def test_stuck_terminal_drops_lines_and_counts_them_instead_of_eating_the_memory():
    stream = SlowStream(60_000)
    with Logs(JSON, stream):
        for _ in range(60_000):
            log.info("flood")
        stream.go.set()
        assert stream.complete.wait(30)
    (dropped,) = [line for line in decoded(stream) if line["message"] == "log lines dropped"]
    written = sum(line["message"] == "flood" for line in decoded(stream))
    assert dropped["count"] == 60_000 - written
    assert written < 60_000


def test_file_turns_over_and_keeps_so_many(tmp_path: Path):
    path = tmp_path / "a.log"
    file = RollingFile(path, 10, 3)
    for number in range(5):
        file.write(f"line {number} ....\n".encode())
    file.close()
    kept = {name.name: name.read_text()[:6] for name in tmp_path.iterdir() if name.suffix != ".lock"}
    assert kept == {"a.log": "line 4", "a.log.1": "line 3", "a.log.2": "line 2"}


def test_one_file_is_kept_when_one_is_wanted(tmp_path: Path):
    file = RollingFile(tmp_path / "a.log", 5, 1)
    file.write(b"first line\n")
    file.write(b"second line\n")
    file.close()
    assert (tmp_path / "a.log").read_text() == "second line\n"
    assert not (tmp_path / "a.log.1").exists()


def test_two_writers_of_one_file_follow_each_other(tmp_path: Path):
    path = tmp_path / "a.log"
    one, other = RollingFile(path, 10, 9), RollingFile(path, 10, 9)
    for number in range(8):
        (one, other)[number % 2].write(f"line {number} ....\n".encode())
    one.close()
    other.close()
    lines = sorted(line for name in tmp_path.glob("a.log*") for line in name.read_text().splitlines())
    assert lines == [f"line {number} ...." for number in range(8)]
    assert path.read_text() == "line 7 ....\n"


def test_a_removed_file_comes_back(tmp_path: Path):
    file = RollingFile(tmp_path / "a.log", 1000, 2)
    file.write(b"one\n")
    (tmp_path / "a.log").unlink()
    file.write(b"two\n")
    file.close()
    assert (tmp_path / "a.log").read_text() == "two\n"


def test_a_disk_that_fails_loses_lines_and_raises_nothing(tmp_path: Path):
    (tmp_path / "logs").touch()
    file = RollingFile(tmp_path / "logs" / "a.log", 1000, 2)
    file.write(b"lost\n")
    (tmp_path / "logs").unlink()
    file.write(b"kept\n")
    file.close()
    assert (tmp_path / "logs" / "a.log").read_text() == "kept\n"


WRITER = """
import sys
import threading
from pathlib import Path
from qwen_proxy.runtime.logfile import RollingFile
file = RollingFile(Path(sys.argv[1]), 2000, 1000)
for number in range(500):
    file.write(f"{sys.argv[2]} {number} {'.' * 20}\\n".encode())
"""


def test_processes_share_a_file_and_lose_no_line(tmp_path: Path):
    path = tmp_path / "a.log"
    environ = {"PATH": os.defpath}
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name], env=environ) for name in "abc"]
    assert [writer.wait(30) for writer in writers] == [0, 0, 0]
    lines = [line for name in tmp_path.glob("a.log*") for line in name.read_text().splitlines()]
    assert sorted(line[: line.rindex(" ")] for line in lines) == sorted(f"{n} {i}" for n in "abc" for i in range(500))
