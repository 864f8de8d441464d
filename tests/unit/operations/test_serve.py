"""`serve` with an address or a folder that can't be used: it ends at once and names the variable."""

import socket
from pathlib import Path

import pytest

from qwen_proxy.config.settings import WrongSetting
from qwen_proxy.operations.serve import serve


def start(folder: Path, **settings: str) -> WrongSetting:
    environ = {"DATA_DIR": str(folder / "data"), "SERVICE_PORT": "0"} | settings
    with pytest.raises(WrongSetting) as found:
        serve(environ, folder / ".env", reload=False, tell=lambda line: None)
    return found.value


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        error = start(tmp_path, SERVICE_PORT=port)
    assert str(error) == f"SERVICE_PORT='{port}' can't be used: it should be a free port (127.0.0.1:{port} is taken)"


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_an_address_that_is_not_this_machines_is_named(tmp_path: Path, host: str) -> None:
    error = start(tmp_path, LISTEN_ADDRESS=host)
    assert (error.variable, error.value) == ("LISTEN_ADDRESS", host)
    assert "an address of this machine" in error.right


def test_a_log_folder_that_cant_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = start(tmp_path, ENABLE_FILE_LOG="true", LOG_DIR=str(tmp_path / "file"))
    assert (error.variable, error.value) == ("LOG_DIR", str(tmp_path / "file"))
    assert "a folder that can be written" in error.right
