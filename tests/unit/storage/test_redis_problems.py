"""What the operator is told of a Redis that can't be used."""

import socket
import ssl

import pytest
from redis import exceptions

from qwen_proxy.storage.redis_problems import doubts, is_of_a_replica, problem, too_old, write_failure


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def untrusted(code: int, message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed at canary")
    error.verify_code, error.verify_message = code, message
    return error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (exceptions.AuthenticationError("invalid canary", status_code="WRONGPASS"), "the user or the password"),
        (exceptions.AuthenticationError("canary", status_code="NOAUTH"), "wants a password"),
        (caused(exceptions.ConnectionError("x"), exceptions.AuthenticationError("canary")), "or the password"),
        (exceptions.BusyLoadingError("canary"), "still loading"),
        (exceptions.InvalidResponse("Protocol Error: canary"), "no Redis"),
        (exceptions.TimeoutError("Timeout connecting to canary"), "no connection in time"),
        (TimeoutError(), "no answer in time"),
        (exceptions.ConnectionError("Connection closed by canary"), "broke off"),
        (caused(exceptions.ConnectionError("canary"), ConnectionRefusedError(111, "canary")), "connection refused"),
        (caused(exceptions.ConnectionError("canary"), ConnectionResetError(104, "canary")), "broke off"),
        (caused(exceptions.ConnectionError("canary"), socket.gaierror(-2, "canary")), "its name has no address"),
        (caused(exceptions.ConnectionError("canary"), FileNotFoundError(2, "canary")), "no such socket"),
        (caused(exceptions.ConnectionError("canary"), PermissionError(13, "canary")), "may not be opened"),
        (caused(exceptions.ConnectionError("canary"), OSError("Multiple exceptions: canary")), "no connection"),
        (caused(exceptions.ConnectionError("canary"), ssl.SSLError(1, "canary")), "does not speak TLS"),
        (caused(exceptions.ConnectionError("canary"), untrusted(62, "not for canary")), "another host's"),
        (caused(exceptions.ConnectionError("canary"), untrusted(18, "self-signed certificate")), "self-signed"),
        (exceptions.NoPermissionError("canary", status_code="NOPERM"), "ACL"),
        (exceptions.OutOfMemoryError("canary", status_code="OOM"), "memory is full"),
        (
            exceptions.ResponseError("Error running script (f_1): @user_script: 12: -OOM command canary"),
            "memory is full",
        ),
        (exceptions.ResponseError("MISCONF canary"), "can't write to its disk"),
        (exceptions.MovedError("1234 canary:7000", status_code="MOVED"), "node of a cluster"),
        (exceptions.ResponseError("WRONGTYPE Operation against canary"), "another prefix"),
        (exceptions.ResponseError("unknown command 'canary'", status_code="ERR"), "refuses a command"),
    ],
    ids=repr,
)
def test_a_problem_is_told_without_names_and_values(error: Exception, told: str) -> None:
    assert told in problem(error)
    assert "canary" not in problem(error)


def test_causes_that_go_round_end() -> None:
    first, second = exceptions.ConnectionError("a"), exceptions.ConnectionError("b")
    first.__cause__, second.__cause__ = second, first
    assert problem(first) == "the connection broke off"


def test_a_replica_is_known_by_its_answer() -> None:
    assert is_of_a_replica(exceptions.ReadOnlyError("You can't write", status_code="READONLY"))
    assert is_of_a_replica(exceptions.ResponseError("Error running script: -READONLY You can't write"))
    assert not is_of_a_replica(exceptions.ResponseError("READ"))


@pytest.mark.parametrize(
    ("version", "is_old"), [("6.2.0", False), ("7.0.15", False), ("10.1", False), ("6.0.16", True), ("5.0.14", True)]
)
def test_versions(version: str, is_old: bool) -> None:
    told = too_old(f"# Server\r\nredis_version:{version}\r\nredis_mode:standalone\r\n")
    assert (told is not None) == is_old
    assert told is None or version in told


def test_no_version_is_no_reason_to_refuse() -> None:
    assert too_old("# Server\r\n") is None


def test_settings_that_lose_what_is_kept_are_doubted() -> None:
    assert doubts({}) == ()
    assert doubts({"appendonly": "yes", "maxmemory": "0", "maxmemory-policy": "allkeys-lru"}) == ()
    assert doubts({"appendonly": "yes", "maxmemory": "100", "maxmemory-policy": "noeviction"}) == ()
    (kept,) = doubts({"appendonly": "no"})
    (evicted,) = doubts({"maxmemory": "100", "maxmemory-policy": "allkeys-lru"})
    assert "appendonly" in kept and "allkeys-lru" in evicted


def test_a_disk_that_takes_no_writes_is_told() -> None:
    assert write_failure("aof_enabled:1\r\naof_last_write_status:ok\r\n") is None
    assert "append-only" in (write_failure("aof_enabled:1\r\naof_last_write_status:err\r\n") or "")
