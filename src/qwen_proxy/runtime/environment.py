"""The process environment, as something that is handed in."""

import os
import platform
import socket


def environment() -> dict[str, str]:
    """A copy: nobody changes the process's own."""
    return dict(os.environ)  # noqa: TID251


def processors() -> int:
    """How many this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def process_place() -> tuple[str, int]:
    """This machine's name, and this process's number on it."""
    return socket.gethostname(), os.getpid()


def platform_names() -> tuple[str, str]:
    """The system and the processor, as Node.js names them: `linux`, `x64`."""
    system, machine = platform.system().lower(), platform.machine().lower()
    return {"windows": "win32"}.get(system, system), {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64"}.get(
        machine, machine
    )
