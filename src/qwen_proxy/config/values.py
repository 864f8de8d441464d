"""How the text of a variable becomes a value: one parser a kind, each of which can say what it accepts."""

import ipaddress
import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from qwen_proxy.config.addresses import PROXY_SCHEMES, url_problem
from qwen_proxy.config.choices import ToolForm
from qwen_proxy.config.lines import FORM, AccountLine, WrongLine, is_blank, read_account_line
from qwen_proxy.config.routes import MOST_NAME_CHARS, Rule, WrongRoute, read_rules
from qwen_proxy.ground.secret import Secret

GGUF_MAGIC: Final = b"GGUF"
LEAST_SECRET_CHARS: Final = 16  # of SECRET_KEY

_TRUE: Final = frozenset(("true", "1", "yes", "on"))
_FALSE: Final = frozenset(("false", "0", "no", "off"))
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_HOST_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9_.-]{1,253}(?<!-)")
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]*")


class WrongValue(ValueError):
    """The text does not fit. Its message, if any, is what would be right, closer than `Parser.accepts`."""


class Parser(Struct, frozen=True):
    """`read` turns text into a value or raises WrongValue; `accepts` says in words what it takes."""

    accepts: str
    read: Callable[[str], object]


def whole(low: int, high: int) -> Parser:
    """An int from `low` to `high`."""
    accepts = f"a whole number from {low} to {high}"

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,15}", text) or not low <= int(text) <= high:
            raise WrongValue(accepts)
        return int(text)

    return Parser(accepts, read)


def decimal(low: float, high: float) -> Parser:
    """A float from `low` to `high`."""
    accepts = f"a number from {low:.10g} to {high:.10g}"  # 10 digits: no 3.2e+07

    def read(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,15})?", text) or not low <= float(text) <= high:
            raise WrongValue(accepts)
        return float(text)

    return Parser(accepts, read)


def choice(kind: type[StrEnum]) -> Parser:
    """A member of `kind`, written in any case."""
    accepts = "one of " + ", ".join(member.value for member in kind)

    def read(text: str) -> StrEnum:
        for member in kind:
            if member.value.casefold() == text.casefold():
                return member
        raise WrongValue(accepts)

    return Parser(accepts, read)


def _boolean(text: str) -> bool:
    folded = text.casefold()
    if folded not in _TRUE | _FALSE:
        raise WrongValue
    return folded in _TRUE


def _size(text: str) -> int:
    """Bytes. PM2 counts in powers of 1024."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise WrongValue
    size = int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))
    if size <= 0:
        raise WrongValue
    return size


def _megabytes(text: str) -> int:
    """Bytes."""
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text) or float(text) <= 0:
        raise WrongValue
    return max(1, int(float(text) * 1024**2))


def _optional_size(text: str) -> int:
    return 0 if text == "0" else _size(text)


def _host(text: str) -> str:
    if not _HOST_NAME.fullmatch(text):
        try:
            ipaddress.ip_address(text)
        except ValueError as error:
            raise WrongValue from error
    return text


def _workers(text: str) -> int:
    if text.casefold() == "max":
        return 0
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= 1024:
        raise WrongValue
    return int(text)


def _base_url(text: str) -> str:
    """Without its trailing slashes: paths are joined to it as text (upstream protocol §0.3)."""
    problem = url_problem(text, ("https", "http"))
    if problem is None and ("?" in text or "#" in text):
        problem = "holds a query or a fragment"
    if problem is not None:
        raise WrongValue(f"an http:// or https:// address, with or without a path (it {problem})")
    return text.rstrip("/")


def _proxy(text: str) -> str:
    if text and (problem := url_problem(text, PROXY_SCHEMES)):
        raise WrongValue(f"a proxy such as http://127.0.0.1:7890 or socks5://user:password@host:1080 (it {problem})")
    return text


def _api_keys(text: str) -> tuple[Secret, ...]:
    keys = [key.strip() for key in text.split(",") if key.strip()]
    for number, key in enumerate(keys, 1):
        if not re.fullmatch(r"[\x21-\x7e]{1,512}", key):
            raise WrongValue(f"keys of 1 to 512 printable ASCII characters without spaces (key {number} is not)")
        if key in keys[: number - 1]:
            raise WrongValue(f"keys that differ (key {number} is a copy of key {keys.index(key) + 1})")
    return tuple(Secret(key) for key in keys)


def _accounts(text: str) -> tuple[AccountLine, ...]:
    """Names an entry by number only."""
    seen: dict[str, int] = {}
    lines: list[AccountLine] = []
    for number, entry in enumerate(re.split(r",|\r\n|\r|\n", text), 1):
        if is_blank(entry):
            continue
        try:
            line = read_account_line(entry)
        except WrongLine as error:
            hint = "; a password in this list can't hold a comma" if ":" not in entry else ""
            raise WrongValue(f"{FORM}, with commas between (entry {number}: {error}{hint})") from error
        if (first := seen.setdefault(line.account_id, number)) != number:
            raise WrongValue(f"accounts that differ (entry {number} is the same account as entry {first})")
        lines.append(line)
    return tuple(lines)


def _cleanup(text: str) -> float | None:
    """Minutes until an upstream chat is deleted: 0 is at once after use, None is never."""
    folded = text.casefold()
    if folded in ("delete", "keep"):
        return 0.0 if folded == "delete" else None
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text):
        raise WrongValue
    return float(text)


def _model_map(text: str) -> tuple[tuple[str, str], ...]:
    """Pairs of pattern and model, in the order in which they are tried."""
    pairs = _json_object(text) if text.startswith("{") else [_pair(part) for part in text.split(",") if part.strip()]
    if any(not pattern or not model for pattern, model in pairs):
        raise WrongValue
    return tuple(pairs)


def _pair(text: str) -> tuple[str, str]:
    pattern, _, model = text.partition("=")
    return pattern.strip(), model.strip()


def _json_object(text: str) -> list[tuple[str, str]]:
    try:
        return list(msgspec.json.decode(text, type=dict[str, str]).items())
    except msgspec.DecodeError as error:
        raise WrongValue from error


def _model_routes(text: str) -> tuple[Rule, ...]:
    try:
        return read_rules(text)
    except WrongRoute as error:
        raise WrongValue(f"routes as name=backend:model,backend:model;… ({error})") from error


def _other_names(text: str) -> str | None:
    """The model that stands for other vendors' names: None for none, empty to choose one."""
    folded = text.casefold()
    if folded in ("off", "auto"):
        return None if folded == "off" else ""
    if not 1 <= len(text) <= MOST_NAME_CHARS or not text.isprintable():
        raise WrongValue
    return text


def _tool_forms(text: str) -> tuple[ToolForm, ...]:
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    known = {form.value: form for form in ToolForm}
    if not known.keys() >= set(names):
        raise WrongValue
    return tuple(known[name] for name in dict.fromkeys(names))


def _words(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not found or not all(re.fullmatch(r"[\x21-\x7e]{1,200}", word) for word in found):
        raise WrongValue("one or more words, with commas between")
    return found


def _version(text: str) -> str:
    if not re.fullmatch(r"[0-9A-Za-z.+-]{1,40}", text):
        raise WrongValue("a version such as 1.2.3")
    return text


def _backend_order(text: str) -> tuple[str, ...]:
    words = tuple(part.strip() for part in text.split(",") if part.strip())
    if not all(re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", word) for word in words):
        raise WrongValue
    return words


def _headers(text: str) -> tuple[tuple[str, str], ...]:
    pairs = _json_object(text) if text else []
    if any(not _HEADER_NAME.fullmatch(name) or not _PRINTABLE.fullmatch(value) for name, value in pairs):
        raise WrongValue
    return tuple(pairs)


def _header_value(text: str) -> str:
    if not _PRINTABLE.fullmatch(text):
        raise WrongValue
    return text


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(part.strip() for part in text.split(",") if part.strip())
    for origin in origins:
        if origin != "*" and (url_problem(origin, ("https", "http")) or urlsplit(origin).path):
            raise WrongValue
    return origins


def _host_names(text: str) -> tuple[str, ...]:
    """In lower case."""
    names = tuple(part.strip().casefold() for part in text.split(",") if part.strip())
    if not all(_HOST_NAME.fullmatch(name) for name in names):
        raise WrongValue
    return names


def _networks(text: str) -> tuple[str, ...]:
    """As `ipaddress.ip_network` writes and reads them."""
    try:
        return tuple(str(ipaddress.ip_network(part.strip())) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise WrongValue from error


def _file(text: str) -> Path | None:
    if text and not Path(text).is_file():
        raise WrongValue
    return Path(text) if text else None


def _gguf(text: str) -> Path | None:
    """Whether it is one is told by its first bytes; the rest is llama.cpp's to judge."""
    if not text:
        return None
    try:
        with Path(text).expanduser().open("rb") as file:
            is_gguf = file.read(len(GGUF_MAGIC)) == GGUF_MAGIC
    except FileNotFoundError:
        raise WrongValue("the path of a GGUF file: there is none") from None
    except OSError as error:
        raise WrongValue(f"the path of a GGUF file that can be read ({error.strerror})") from error
    if not is_gguf:
        raise WrongValue("the path of a GGUF file: this file is something else")
    return Path(text).expanduser()


def _redis(text: str) -> Secret | None:
    """Of what may stand behind `?` only the number of the database: no option turns the check of certificates off."""
    if not text:
        return None
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise WrongValue from error
    if parts.scheme == "unix":
        is_wrong = not parts.path.strip("/") or bool(parts.hostname) or not text.isprintable()
    else:
        is_wrong = bool(url_problem(text, ("redis", "rediss"))) or not re.fullmatch(r"(/\d*)?", parts.path)
    if is_wrong or not re.fullmatch(r"(db=\d+)?", parts.query) or "#" in text:
        raise WrongValue
    return Secret(text)


def _prefix(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", text):
        raise WrongValue
    return text


def _secret(text: str) -> Secret | None:
    if text and len(text) < LEAST_SECRET_CHARS:
        raise WrongValue
    return Secret(text) if text else None


BOOLEAN: Final = Parser("true or false", _boolean)
SIZE: Final = Parser("a size such as 300M, 1G or a number of bytes", _size)
MEGABYTES: Final = Parser("a number of megabytes above 0", _megabytes)
OPTIONAL_SIZE: Final = Parser("a size such as 300M or 1G; 0 for no limit", _optional_size)
HOST: Final = Parser("an address such as 127.0.0.1, 0.0.0.0, :: or localhost", _host)
WORKERS: Final = Parser("a whole number from 1 to 1024, or max (one per processor)", _workers)
BASE_URL: Final = Parser("an http:// or https:// address, with or without a path", _base_url)
PROXY: Final = Parser("a proxy: http://, https://, socks5:// or socks5h://, with user:password@ or without", _proxy)
API_KEYS: Final = Parser("keys with commas between; the first is the admin key", _api_keys)
ACCOUNTS: Final = Parser(f"{FORM}, with commas between", _accounts)
CLEANUP: Final = Parser("delete, keep, or a number of minutes", _cleanup)
MODEL_MAP: Final = Parser("gpt-*=qwen3.7-plus,claude-*=qwen3.8-max, or a JSON object of the same", _model_map)
MODEL_ROUTES: Final = Parser(
    "fast=web:qwen3.6-flash,studio:qwen-flash;best=…, or a JSON object of lists", _model_routes
)
OTHER_NAMES: Final = Parser("auto, off, or a model's name", _other_names)
BACKEND_ORDER: Final = Parser("backends, or kinds of them (web, api, local), with commas between", _backend_order)
TOOL_FORMS: Final = Parser(f"of {', '.join(ToolForm)}, with commas between", _tool_forms)
HEADERS: Final = Parser('a JSON object of header names and values, such as {"bx-v": "2.5.36"}', _headers)
HEADER_VALUE: Final = Parser("printable ASCII", _header_value)
ORIGINS: Final = Parser("origins such as https://chat.example with commas between, or *", _origins)
HOST_NAMES: Final = Parser("host names such as proxy.example.com with commas between", _host_names)
NETWORKS: Final = Parser("addresses or networks such as 172.18.0.0/16 with commas between", _networks)
FILE: Final = Parser("the path of a file that exists", _file)
GGUF: Final = Parser("the path of a GGUF file", _gguf)
WORD: Final = Parser("any word", str)
WORDS: Final = Parser("one or more words, with commas between", _words)
VERSION: Final = Parser("a version such as 1.2.3", _version)
FOLDER: Final = Parser("a path", Path)
REDIS: Final = Parser("redis://user:password@host:6379/0, rediss://… with TLS, or unix:///path?db=0", _redis)
PREFIX: Final = Parser("up to 64 letters, digits and . _ -", _prefix)
SECRET: Final = Parser(f"at least {LEAST_SECRET_CHARS} characters, such as `openssl rand -hex 32` gives", _secret)
