"""The commands of routes: where names of models lead."""

from typing import Annotated, Final

import typer
from rich.text import Text

from qwen_proxy.admin.routes import ExplainedBody, StandingBody
from qwen_proxy.cli.output import Json, console, print_json, say, table
from qwen_proxy.cli.work import administer
from qwen_proxy.gateway.explain import State
from qwen_proxy.operations.moments import shown

commands: Final = typer.Typer(help="Where names of models lead.", no_args_is_help=True)

STYLES: Final = {State.OK: "green", State.FULL: "yellow"}
RouteName = Annotated[str, typer.Argument(metavar="NAME", help="A model name, or a pattern of such with * and ?.")]


@commands.command("list")
def routes_list(as_json: Json = False) -> None:
    """List routes, backends and how they are, and names that nobody gave a meaning."""
    told = administer(lambda admin: admin.routes())
    if as_json:
        print_json(told)
        return
    rows = table("Name", "Leads to", "Problems")
    for each in told.routes:
        targets = ", ".join(_words(target.backend, target.model, target.weight) for target in each.targets)
        problems = "; ".join(
            f"{target.backend}:{target.model}: {target.problem}" for target in each.targets if target.problem
        )
        rows.add_row(Text(each.name), Text(targets), Text(problems, "red"))
    if told.routes:
        console().print(rows)
        say("")
    rows = table("Backend", "Kind", "Prefix", "Models", "State", "Why")
    for backend in told.backends:
        models = "unknown" if backend.models is None else str(backend.models)
        rows.add_row(
            Text(backend.name),
            backend.kind.value,
            Text(backend.prefix),
            models,
            _state(backend.standing),
            Text(backend.standing.reason),
        )
    console().print(rows)
    if told.unmapped:
        say("")
        rows = table("Asked for, without a meaning", "Times")
        for unmapped in told.unmapped:
            rows.add_row(Text(unmapped.name), str(unmapped.count))
        console().print(rows)


@commands.command("set")
def routes_set(
    name: RouteName,
    targets: Annotated[
        list[str], typer.Argument(metavar="BACKEND:MODEL…", help="In order; or each with *WEIGHT behind it.")
    ],
    as_json: Json = False,
) -> None:
    """Have a name lead to these models, in every worker, within a second."""
    made = administer(lambda admin: admin.set_route(name, targets))
    if as_json:
        print_json(made)
        return
    say(f"{made.name} leads to {', '.join(_words(each.backend, each.model, each.weight) for each in made.targets)}.")
    for each in made.targets:
        if each.problem:
            say(f"{each.backend}:{each.model} is not there: {each.problem}.", "yellow")


@commands.command("remove")
def routes_remove(name: RouteName, as_json: Json = False) -> None:
    """Forget a route; the name means again what it would mean without."""
    administer(lambda admin: admin.remove_route(name))
    if as_json:
        print_json({"removed": name})
    else:
        say(f"{name} is no route any more.")


@commands.command("explain")
def routes_explain(
    model: Annotated[str, typer.Argument(help="As a program asks for it; without it, a request that names none.")] = "",
    key: Annotated[str, typer.Option(help="For what this key may do: its id, name or hint.")] = "",
    as_json: Json = False,
) -> None:
    """Tell where a request would go now, and why, without sending one."""
    told = administer(lambda admin: admin.explain_route(model, key))
    if as_json:
        print_json(told)
        return
    say(_sentence(told))
    rows = table("Backend", "Model", "Weight", "State", "Until (UTC)", "Why")
    for each in told.targets:
        rows.add_row(
            Text(each.backend),
            Text(each.model),
            "" if each.weight is None else str(each.weight),
            _state(each.standing),
            "" if each.standing.until is None else shown(each.standing.until),
            Text(each.standing.reason),
        )
    console().print(rows)
    if told.goes_to is None:
        raise typer.Exit(1)


def _sentence(told: ExplainedBody) -> str:
    asked = f"{told.model!r}" if told.model else "A request without a model"
    by_way = f" (by way of {told.via!r})" if told.via else ""
    if told.goes_to is None:
        return f"{asked}{by_way} would be refused: {told.refusal}."
    return f"{asked}{by_way} would go to {told.goes_to}."


def _state(standing: StandingBody) -> Text:
    return Text(standing.state.value, STYLES.get(standing.state, "red"))


def _words(backend: str, model: str, weight: int | None) -> str:
    return f"{backend}:{model}" + ("" if weight is None else f"*{weight}")
