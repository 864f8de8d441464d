"""The command `qwen-proxy`: every group of commands, and what an error becomes."""

import sys
from typing import Final

import typer

from qwen_proxy.cli.accounts import commands as of_accounts
from qwen_proxy.cli.backends import commands as of_backends
from qwen_proxy.cli.batches import accounts_import
from qwen_proxy.cli.batches import commands as of_batches
from qwen_proxy.cli.care import commands as of_care
from qwen_proxy.cli.care import secret_commands as of_secrets
from qwen_proxy.cli.installation import commands as of_installation
from qwen_proxy.cli.keys import commands as of_keys
from qwen_proxy.cli.migration import commands as of_migration
from qwen_proxy.cli.output import fail
from qwen_proxy.cli.qwen_code import commands as of_qwen_code
from qwen_proxy.cli.requests import commands as of_requests
from qwen_proxy.cli.routes import commands as of_routes
from qwen_proxy.cli.service import commands as of_service
from qwen_proxy.cli.settings import audit_commands as of_audit
from qwen_proxy.cli.settings import commands as of_settings
from qwen_proxy.cli.transfer import commands as of_transfer
from qwen_proxy.cli.usage import commands as of_usage
from qwen_proxy.config.settings import WrongSetting
from qwen_proxy.ground.errors import ProxyError
from qwen_proxy.operations.administration import UnknownKey
from qwen_proxy.operations.client import ServerRefused, ServerSilent
from qwen_proxy.operations.migration.found import SourceUnreadable
from qwen_proxy.operations.offline import ServersRunning
from qwen_proxy.operations.rotation import RotationRefused
from qwen_proxy.operations.transfer.bundle import BundleUnreadable
from qwen_proxy.operations.transfer.importing import NotEmpty
from qwen_proxy.state.vault import WrongSecret

FAILURES: Final = (
    BundleUnreadable,
    NotEmpty,
    OSError,
    ProxyError,
    RotationRefused,
    ServerRefused,
    ServerSilent,
    ServersRunning,
    SourceUnreadable,
    UnknownKey,
    WrongSecret,
)


cli: Final = typer.Typer(
    name="qwen-proxy",
    help="A gateway: programs that speak OpenAI's API, served by Qwen.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # it would print local variables, secrets among them
)
of_accounts.command("import")(accounts_import)
for commands in (of_service, of_installation, of_requests, of_usage, of_audit, of_migration, of_transfer, of_care):
    cli.add_typer(commands)
for name, group in (
    ("accounts", of_accounts),
    ("backends", of_backends),
    ("batches", of_batches),
    ("keys", of_keys),
    ("qwen-code", of_qwen_code),
    ("routes", of_routes),
    ("settings", of_settings),
    ("secret", of_secrets),
):
    cli.add_typer(group, name=name)


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
