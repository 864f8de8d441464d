"""The commands of Qwen Code: sign-ins by the device flow."""

from typing import Annotated, Final

import typer
from rich.text import Text

from qwen_proxy.admin.qwen_code import BeginBody, BegunBody, ProgressBody, SignInBody
from qwen_proxy.admin.qwen_code_desk import Progress
from qwen_proxy.cli.output import Json, console, print_json, say, say_aside, table
from qwen_proxy.cli.work import administer
from qwen_proxy.operations.administration import Administration
from qwen_proxy.operations.moments import shown

commands: Final = typer.Typer(help="Sign-ins at Qwen Code, whose free tier ended on 2026-04-15.", no_args_is_help=True)

SignInName = Annotated[str, typer.Argument(metavar="ID", help="Its id, as the list has it.")]
STYLES: Final = {"ready": "green", "throttled": "yellow", "out_of_quota": "yellow"}


@commands.command("login")
def qwen_code_login(
    account: Annotated[
        str, typer.Option(help="Approve it with this account of yours, without a browser: its e-mail address.")
    ] = "",
    label: Annotated[str, typer.Option(help="What to call it.")] = "",
    as_json: Json = False,
) -> None:
    """Sign in: open the page, confirm the code; then it serves."""

    async def work(admin: Administration) -> ProgressBody:
        begun = await admin.begin_qwen_code(BeginBody(label=label, account=account))
        if not account:
            _show(begun)
        looks = 0

        def tell(progress: ProgressBody) -> None:
            nonlocal looks
            looks += 1
            if progress.state is Progress.WAITING and looks % 5 == 1:
                say_aside("Waiting for the approval…")

        return await admin.follow_qwen_code(begun, tell)

    ended = administer(work, works=bool(account))
    if as_json:
        print_json(ended)
    elif ended.sign_in is not None:
        name = f"{ended.sign_in.label} ({ended.sign_in.id})"
        say(f"{name} is signed in; qwen-proxy qwen-code test tells whether it serves.")
    else:
        say(f"The sign-in failed: {ended.reason}.", "red")
    if ended.sign_in is None:
        raise typer.Exit(1)


def _show(begun: BegunBody) -> None:
    say_aside(f"Open {begun.complete_uri}")
    say_aside(f"and confirm the code {begun.user_code}; it is good until {shown(begun.expires_at)} (UTC).")


@commands.command("list")
def qwen_code_list(as_json: Json = False) -> None:
    """List the sign-ins and how they are."""
    told = administer(lambda admin: admin.qwen_code())
    if as_json:
        print_json(told)
        return
    say_aside(told.notice + ".", "yellow")
    rows = table("Id", "Label", "Account", "State", "Token until (UTC)", "Service", "Why")
    for each in told.sign_ins:
        rows.add_row(
            Text(each.id),
            Text(each.label),
            Text(each.account or "by browser"),
            _state(each),
            "" if each.expires_at is None else shown(each.expires_at),
            Text(each.service),
            Text(each.reason),
        )
    console().print(rows)


@commands.command("test")
def qwen_code_test(id: SignInName, as_json: Json = False) -> None:
    """Ask one short question with a sign-in; one that answers is used again."""
    tried = administer(lambda admin: admin.test_qwen_code(id))
    if as_json:
        print_json(tried)
    elif tried.problem:
        say(f"{tried.sign_in.label}: {tried.problem}.", "red")
    else:
        say(f"{tried.sign_in.label} answers ({tried.model}).")
    if tried.problem:
        raise typer.Exit(1)


@commands.command("remove")
def qwen_code_remove(id: SignInName, as_json: Json = False) -> None:
    """Forget a sign-in and its tokens."""
    administer(lambda admin: admin.remove_qwen_code(id))
    if as_json:
        print_json({"removed": id})
    else:
        say(f"{id} is forgotten.")


def _state(sign_in: SignInBody) -> Text:
    return Text(sign_in.state, STYLES.get(sign_in.state, "red"))
