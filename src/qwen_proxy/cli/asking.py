"""What is asked of a person, and what stands in for the answer where nobody is there."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from qwen_proxy.cli.output import say_aside
from qwen_proxy.ground.secret import Secret
from qwen_proxy.operations.transfer.bundle import LEAST_PASSPHRASE_CHARS

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")]
ApiKeys = Annotated[
    list[str] | None,
    typer.Option("--key", metavar="-", help="- asks for the API keys, or reads them from a pipe, one a line."),
]
ApiKeyFile = Annotated[Path | None, typer.Option("--key-file", help="File with the API keys, one a line.")]
BackendName = Annotated[str, typer.Argument(metavar="NAME", help="The backend's name.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]
PassphraseFile = Annotated[Path | None, typer.Option(help="File whose first line is the passphrase.")]

NOTHING_WRITTEN: Final = "Nothing was written; with --yes it is done."


def goes_ahead(*, dry_run: bool, yes: bool, as_json: bool, question: str = "Do it?") -> bool:
    """--yes decides; else a person where there is one; else no."""
    if dry_run:
        return False
    return yes or (not as_json and sys.stdin.isatty() and typer.confirm(question))


def words(text: str) -> tuple[str, ...]:
    """What stands between commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def passphrase(file: Path | None, *, is_new: bool) -> Secret:
    """From the file, else asked for without showing it, twice when it is new. Raises typer.BadParameter, OSError."""
    if file is not None:
        lines = file.read_text("utf-8-sig").splitlines()
        text = lines[0] if lines else ""
    elif sys.stdin.isatty():
        text = str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=is_new))
    else:
        raise typer.BadParameter("nobody is there to be asked for the passphrase; give --passphrase-file FILE")
    if is_new and len(text) < LEAST_PASSPHRASE_CHARS:
        raise typer.BadParameter(f"the passphrase has fewer than {LEAST_PASSPHRASE_CHARS} characters")
    return Secret(text)


def read_api_keys(file: Path | None) -> tuple[str, ...]:
    """One a line or with commas between: from the file, else from a person without showing them, else from stdin.

    Raises typer.BadParameter where there is none, OSError.
    """
    if file is not None:
        text = file.read_text("utf-8-sig")
    elif sys.stdin.isatty():
        text = str(typer.prompt("API key (several with commas between)", hide_input=True))
    else:
        text = sys.stdin.read()
    keys = tuple(key for line in text.splitlines() for key in words(line))
    if not keys:
        raise typer.BadParameter("no API key was given: pipe it to '--key -', or name a file with --key-file")
    return keys


def given_api_keys(given: Sequence[str] | None, file: Path | None) -> tuple[str, ...] | None:
    """What --key (- asks for them) and --key-file say; None where neither was given. Raises as `read_api_keys`."""
    if given is None and file is None:
        return None
    on_line = tuple(key for key in given or () if key != "-")
    if on_line:
        say_aside("warning: a key on the command line is seen by others on this machine; '--key -' reads it", "yellow")
    asked = read_api_keys(file) if file is not None or len(on_line) < len(given or ()) else ()
    return (*on_line, *asked)


def read_password(file: Path | None) -> str:
    """An account's password: from the file, else from a person, else the first line of stdin. Raises OSError."""
    if file is not None:
        return file.read_text("utf-8").partition("\n")[0]
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True))
    return sys.stdin.readline().rstrip("\r\n")
