"""The variables written out: as the tables of docs/configuration.md, and as `.env.example`. Pure."""

from qwen_proxy.config.variables import GROUPS, LIVE, Group, Variable


def markdown(group: Group) -> str:
    """A table of the group: name, default, what is accepted, meaning."""
    rows = ["| Variable | Default | Value | Meaning |", "|---|---|---|---|"]
    rows += [f"| {' | '.join(_cells(variable))} |" for variable in group.variables]
    return "\n".join(rows) + "\n"


def live_names() -> str:
    """A list of the variables that may be changed at run time."""
    return "".join(f"- `{variable.name}`\n" for variable in LIVE)


def dotenv() -> str:
    """Every variable, commented out at its default, so that the file as it stands changes nothing."""
    head = "# Copy to .env, and take the # away before what is to differ. The environment wins over this file.\n"
    return head + "".join(f"\n# --- {group.title} ---\n{''.join(map(_entry, group.variables))}" for group in GROUPS)


def _entry(variable: Variable) -> str:
    return f"\n# {variable.meaning}\n# ({variable.parser.accepts})\n# {variable.name}={variable.default}\n"


def _cells(variable: Variable) -> list[str]:
    default = f"`{variable.default}`" if variable.default else "unset"
    return [f"`{variable.name}`", default, _cell(variable.parser.accepts), _cell(variable.meaning)]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
