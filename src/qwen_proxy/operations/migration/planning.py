"""What a migration would do: what was found, against what is kept here.

Accounts: see `account_plan`. A regular key is added unless it is known already, whether it works or not. A setting that
differs is set at run time when it is one that may be, and told of otherwise.
"""

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.config.credentials import weakness
from qwen_proxy.config.keys import KEY_SHAPE, hint_of
from qwen_proxy.config.values import WrongValue
from qwen_proxy.config.variables import BY_NAME
from qwen_proxy.ground.redact import redacted
from qwen_proxy.ground.secret import MASK, Secret
from qwen_proxy.operations.migration.account_plan import Fate, Kept, PlannedAccount, Row, plan_account
from qwen_proxy.operations.migration.found import Found
from qwen_proxy.state.store import UsageCounts, UsageKey


class Present(Struct, frozen=True, kw_only=True):
    """What is kept here. accounts: by id. keys: of those found, what is known of each: a clause. settings: the texts in
    force, by variable. usage: by day, of the keys that `account_plan.usage_key` makes."""

    now: float
    accounts: Mapping[str, Kept] = {}
    keys: Mapping[Secret, str] = {}
    settings: Mapping[str, str] = {}
    usage: Mapping[UsageKey, UsageCounts] = {}


class Plan(Struct, frozen=True, kw_only=True):
    """rows: all that was found, in its order; the rest is what there is to do."""

    rows: tuple[Row, ...]
    accounts: tuple[PlannedAccount, ...] = ()
    keys: tuple[Secret, ...] = ()
    settings: Mapping[str, str] = {}
    usage: Mapping[UsageKey, UsageCounts] = {}

    @property
    def is_empty(self) -> bool:
        return not (self.accounts or self.keys or self.settings or self.usage)

    def count(self, fate: Fate) -> int:
        return sum(row.fate is fate for row in self.rows)


def plan(found: Found, present: Present, *, overwrites: bool = False) -> Plan:
    """overwrites: password and proxy of the original stand over those that are kept here."""
    rows: list[Row] = []
    accounts: list[PlannedAccount] = []
    usage: dict[UsageKey, UsageCounts] = {}
    for account in found.accounts:
        kept = present.accounts.get(account.email.lower())
        step = plan_account(account, kept, present.usage, now=present.now, overwrites=overwrites)
        rows.append(step.row)
        accounts += [] if step.planned is None else [step.planned]
        usage |= step.usage
    keys: list[Secret] = []
    for key in found.keys:
        row = _key(key, present)
        rows.append(row)
        keys += [key] if row.fate is Fate.ADDED else []
    if found.admin_key is not None:
        rows.append(_admin_key(found.admin_key))
    settings: dict[str, str] = {}
    for name, text in found.settings.items():
        row = _setting(name, text, present)
        rows.append(row)
        settings |= {name: text} if row.fate is Fate.CHANGED else {}
    return Plan(rows=tuple(rows), accounts=tuple(accounts), keys=tuple(keys), settings=settings, usage=usage)


def _key(key: Secret, present: Present) -> Row:
    text = key.reveal()
    name = hint_of(text)
    if not KEY_SHAPE.fullmatch(text):
        says = "a key has 1 to 512 printable ASCII characters and no space"
        return Row(what="key", name=name, fate=Fate.INVALID, says=says)
    if (known := present.keys.get(key)) is not None:
        return Row(what="key", name=name, fate=Fate.SKIPPED, says=known)
    if (problem := weakness(text)) is not None:
        return Row(what="key", name=name, fate=Fate.INVALID, says=f"it {problem}; make a new one for who uses it")
    return Row(what="key", name=name, fate=Fate.ADDED, says="a regular key; only its digest is kept")


def _admin_key(key: Secret) -> Row:
    return Row(
        what="key",
        name=hint_of(key.reveal()),
        fate=Fate.SKIPPED,
        says="the original's admin key; the one here is the first of API_KEY, or the generated one",
    )


def _setting(name: str, text: str, present: Present) -> Row:
    variable = BY_NAME[name]
    shown = MASK if variable.secret else redacted(text)
    row = Row(what="setting", name=f"{name}={shown}", fate=Fate.CHANGED, says="")
    try:
        variable.parser.read(text)
    except WrongValue as error:
        return replace(row, fate=Fate.INVALID, says=f"it should be {str(error) or variable.parser.accepts}")
    now = present.settings.get(name, variable.default)
    if not variable.secret and variable.parser.read(now) == variable.parser.read(text):
        return replace(row, fate=Fate.SKIPPED, says="it is so already")
    if not variable.is_live:
        return replace(row, fate=Fate.SKIPPED, says="it is read at the start only: put it into .env")
    return replace(row, says=f"was {redacted(now) or 'unset'}; set at run time")
