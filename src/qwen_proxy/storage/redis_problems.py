"""What is wrong with a Redis server, as a short fact for the operator: never an address, a name or a password."""

import re
import socket
import ssl
from collections.abc import Generator
from typing import Final

from redis import exceptions

OLDEST: Final = (6, 2)
BROKEN_OFF: Final = "the connection broke off"

# By the code an answer begins with, or that stands in the message of a script that failed (Redis 6.2).
REFUSALS: Final = {
    "NOAUTH": "it wants a password",
    "WRONGPASS": "it refuses the user or the password",
    "NOPERM": "the user may not do that there: see its ACL",
    "OOM": "its memory is full",
    "MISCONF": "it can't write to its disk",
    "READONLY": "it is a replica that takes no writes",
    "LOADING": "it is still loading its data",
    "BUSY": "it is busy with another's script",
    "CLUSTERDOWN": "its cluster is down",
    "MOVED": "it is a node of a cluster, and another keeps our data",
    "WRONGTYPE": "another program uses our keys: set another prefix",
}
CODE: Final = re.compile(rf"\b({'|'.join(REFUSALS)})\b")

# Codes of OpenSSL for a certificate that is not for the host asked for.
OF_ANOTHER_HOST: Final = (62, 64)


def problem(error: BaseException) -> str:
    """Of a failed call. The nearest cause that tells something counts."""
    for each in _causes(error):
        if (found := _problem(each)) is not None:
            return found
    return BROKEN_OFF


def _problem(error: BaseException) -> str | None:
    match error:
        case exceptions.AuthenticationError():
            return REFUSALS["NOAUTH" if error.status_code == "NOAUTH" else "WRONGPASS"]
        case exceptions.BusyLoadingError():
            return REFUSALS["LOADING"]
        case exceptions.InvalidResponse():
            return "what answers there is no Redis"
        case exceptions.TimeoutError():
            return "no connection in time"
        case exceptions.ResponseError():
            return _refusal(error)
        case TimeoutError():
            return "no answer in time"
        case ssl.SSLCertVerificationError() if error.verify_code in OF_ANOTHER_HOST:
            return "its certificate is another host's"
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted: {error.verify_message}"
        case ssl.SSLError():
            return "it does not speak TLS as we do"
        case socket.gaierror():
            return "its name has no address"
        case ConnectionRefusedError():
            return "connection refused"
        case ConnectionError():
            return BROKEN_OFF
        case FileNotFoundError():
            return "there is no such socket"
        case PermissionError():
            return "its socket may not be opened"
        case OSError():
            return "no connection"
        case _:
            return None


def is_of_a_replica(error: exceptions.ResponseError) -> bool:
    return _code(error) == "READONLY"


def _refusal(error: exceptions.ResponseError) -> str:
    """The words of a server may hold names and values, so they are not repeated."""
    return REFUSALS.get(_code(error), "it refuses a command")


def _code(error: exceptions.ResponseError) -> str:
    found = CODE.search(f"{error.status_code or ''} {error}")
    return "" if found is None else found[1]


def _causes(error: BaseException) -> Generator[BaseException]:
    seen: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in seen:
        seen.append(each)
        yield each
        each = each.__cause__ or each.__context__


def too_old(info: str) -> str | None:
    """Of the server section of INFO; None for a version that will do, or where none is told. Valkey tells the version
    of Redis that it is compatible with."""
    told = re.search(r"^redis_version:(\d+)\.(\d+)([.\d]*)", info, re.MULTILINE)
    if told is None or (int(told[1]), int(told[2])) >= OLDEST:
        return None
    return f"Redis {told[1]}.{told[2]}{told[3]} is too old: 6.2 or later is needed, or Valkey"


def doubts(settings: dict[str, str]) -> tuple[str, ...]:
    """Of CONFIG GET: a sentence for each setting that may cost what is kept."""
    found: list[str] = []
    if settings.get("appendonly") == "no":
        found.append(
            "Redis keeps no append-only file (appendonly no): what was written since its last snapshot is lost when it"
            " ends; docker/redis.conf shows the settings meant for it"
        )
    if settings.get("maxmemory", "0") != "0" and settings.get("maxmemory-policy", "noeviction") != "noeviction":
        found.append(
            f"Redis may throw away accounts and keys when its memory is full (maxmemory-policy"
            f" {settings['maxmemory-policy']}): set it to noeviction"
        )
    return tuple(found)


def write_failure(info: str) -> str | None:
    """Of the persistence section of INFO."""
    if re.search(r"^aof_last_write_status:err", info, re.MULTILINE) is None:
        return None
    return "Redis can't write its append-only file: see its own log"
