"""The command `qwen-proxy`: every group of commands, and what an error becomes."""

import sys
from typing import Final

import typer

from qwen_proxy.cli.accounts import commands as of_accounts
from qwen_proxy.cli.data import commands as of_data
from qwen_proxy.cli.installation import commands as of_installation
from qwen_proxy.cli.output import fail
from qwen_proxy.cli.requests import commands as of_requests
from qwen_proxy.cli.service import commands as of_service
from qwen_proxy.config.settings import WrongSetting
from qwen_proxy.ground.errors import ProxyError
from qwen_proxy.operations.client import ServerRefused, ServerSilent
from qwen_proxy.operations.migration.found import SourceUnreadable
from qwen_proxy.operations.offline import ServersRunning

FAILURES: Final = (ServerRefused, ServerSilent, SourceUnreadable, ServersRunning, ProxyError, OSError)

cli: Final = typer.Typer(
    name="qwen-proxy",
    help="A gateway: programs that speak OpenAI's API, served by Qwen.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # it would print local variables, secrets among them
)
for commands in (of_service, of_installation, of_requests, of_data):
    cli.add_typer(commands)
cli.add_typer(of_accounts, name="accounts")


def main() -> None:
    """Raises SystemExit: 0 it went well, 1 it failed, 2 the command line or the configuration is wrong."""
    try:
        cli()
    except WrongSetting as error:
        fail(error, 2)
    except FAILURES as error:
        fail(error, 1)
    except KeyboardInterrupt:
        sys.exit(130)
