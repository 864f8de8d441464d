"""The original's `data/data.json` (upstream protocol §10.7), in order or damaged. Pure."""

import codecs
from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Raw

from qwen_proxy.operations.migration.found import Found, FoundAccount, Problem, account_from, settings_from
from qwen_proxy.operations.migration.scanning import Piece, scan
from qwen_proxy.upstreams.qwen_web.wire import is_object, loads, members

MOST_PROBLEMS: Final = 100

_WIDE: Final = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def read(data: bytes, where: str, *, today: int) -> Found:
    """All that can be read of it; never raises. where: what to call it. today: see `account_from`."""
    text = _as_utf8(data)
    document, fault = _decoded(text)
    listed = None if document is None else _list(document.get("accounts"))
    if document is None or listed is None:
        return _read_damaged(text, where, fault or "it has no list of accounts", today)
    return _read_whole(document, listed, where, today)


def _as_utf8(data: bytes) -> bytes:
    """An editor may have put a mark before it, or saved it in two bytes a character."""
    if (encoding := _WIDE.get(data[:2])) is not None:
        return data.decode(encoding, "replace").encode("utf-8", "replace")
    return data.removeprefix(codecs.BOM_UTF8)


def _decoded(text: bytes) -> tuple[Mapping[str, Raw] | None, str]:
    """The members of the document, or why they can't be had."""
    if not text.strip():
        return None, "it is empty"
    try:
        return msgspec.json.decode(text, type=dict[str, Raw]), ""
    except RecursionError:
        return None, "it is nested too deeply"
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return None, str(error)


def _list(raw: Raw | None) -> list[Raw] | None:
    try:
        return None if raw is None else msgspec.json.decode(raw, type=list[Raw])
    except msgspec.DecodeError:
        return None


def _read_whole(document: Mapping[str, Raw], listed: list[Raw], where: str, today: int) -> Found:
    accounts: list[FoundAccount] = []
    problems: list[Problem] = []
    for number, raw in enumerate(listed, 1):
        fields = _loads(raw)
        if not is_object(fields):
            problems.append(Problem(f"{where}, account {number}", "it is no object"))
            continue
        account, said = account_from(fields, f"{where}, account {number}", today=today)
        accounts += [] if account is None else [account]
        problems += said
    of_settings = settings_from(members(_loads(document.get("settings"))), where)
    for name in ("defaultHeaders", "defaultCookie"):
        if _loads(document.get(name)):
            problems.append(Problem(where, f"its {name} are of no use here and left out"))
    return _found(accounts, of_settings, problems)


def _read_damaged(text: bytes, where: str, fault: str, today: int) -> Found:
    scanned = scan(text)
    accounts: list[FoundAccount] = []
    problems = [Problem(where, f"it is damaged ({fault}); what could be found in it was taken")]
    for piece in scanned.pieces:
        place = f"{where}, byte {piece.start}"
        account, said = account_from(_fields(piece), place, today=today, is_whole=piece.is_whole)
        accounts += [] if account is None else [account]
        problems += said
        if not piece.is_whole:
            problems.append(Problem(place, f"the account breaks off at byte {piece.end}"))
    for start, end in scanned.unreadable:
        problems.append(Problem(where, f"{end - start} bytes from byte {start} on can't be read"))
    settings = Found()
    for each in scanned.settings:  # which was written last is not known; the first stands where the file begins
        settings = settings_from(members(_loads(each)), where)
        break
    return _found(accounts, settings, problems)


def _fields(piece: Piece) -> dict[str, object]:
    """Without those of which the text is no JSON after all."""
    fields: dict[str, object] = {}
    for name, value in piece.members.items():
        try:
            fields[str(loads(name))] = loads(value)
        except ValueError:
            continue
    return fields


def _loads(raw: bytes | Raw | None) -> object:
    try:
        return None if raw is None else loads(bytes(raw))
    except ValueError:
        return None


def _found(accounts: list[FoundAccount], of_settings: Found, problems: list[Problem]) -> Found:
    problems = [*problems, *of_settings.problems]
    if len(problems) > MOST_PROBLEMS:
        more = Problem(problems[-1].where, f"{len(problems) - MOST_PROBLEMS} more places like these")
        problems = [*problems[:MOST_PROBLEMS], more]
    return msgspec.structs.replace(of_settings, accounts=tuple(accounts), problems=tuple(problems))
