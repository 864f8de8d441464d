import io
from pathlib import Path

import pytest

from qwen_proxy.config.logs import log_options
from qwen_proxy.config.settings import load


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("form", "stream", "expected"),
    [
        ("auto", Terminal(), "text"),
        ("auto", io.StringIO(), "json"),
        ("text", io.StringIO(), "text"),
        ("json", Terminal(), "json"),
    ],
)
def test_form_follows_the_setting_and_then_the_terminal(form: str, stream: io.StringIO, expected: str):
    assert log_options(load({"LOG_FORMAT": form}, None), "worker-1", stream).form == expected


def test_file_is_written_only_when_asked_for():
    environ = {"LOG_DIR": "/var/log/x", "MAX_LOG_FILES": "2", "MAX_LOG_FILE_SIZE": "1", "LOG_LEVEL": "warn"}
    assert log_options(load(environ, None), "", io.StringIO()).file is None
    options = log_options(load(environ | {"ENABLE_FILE_LOG": "true"}, None), "", io.StringIO())
    assert options.file == Path("/var/log/x/qwen-proxy.log")
    assert (options.files, options.max_bytes, options.level) == (2, 1024**2, "WARN")
