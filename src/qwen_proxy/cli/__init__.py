"""The command line: a module a group of commands, put together in `program`. No logic of its own.

Each command reads the settings, calls what does the work, and prints. Exit codes: 0 it went well, 1 it failed, 2 the
command line or the configuration is wrong. With --json a command prints one JSON document on stdout, errors too.
"""

import gc

gc.disable()  # of what is imported nothing is garbage, and to look for some is a sixth of the time that a command takes

from qwen_proxy.cli.program import main  # noqa: E402

gc.freeze()  # nor is it looked through later
gc.enable()

__all__ = ["main"]
