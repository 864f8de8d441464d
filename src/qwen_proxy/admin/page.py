"""GET /docs: the OpenAPI document as one page of HTML, made here: nothing is fetched, and no script runs. Pure."""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final

import msgspec

Json = Mapping[str, Any]  # the document, read here

STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
body { color: #1b1b1f; background: #fff }
h1 { margin-bottom: 0 } h2 { margin-top: 2rem; border-bottom: 1px solid #ccc }
details { border: 1px solid #ddd; border-radius: .4rem; margin: .4rem 0; padding: .4rem .8rem }
summary { cursor: pointer } code, pre { font-family: ui-monospace, monospace; font-size: .9em }
.method { display: inline-block; min-width: 4.5em; font-weight: bold } table { border-collapse: collapse }
td, th { text-align: left; vertical-align: top; padding: .15rem 1rem .15rem 0 }
@media (prefers-color-scheme: dark) {
  body { color: #e4e4e8; background: #16161a } details, h2 { border-color: #444 } a { color: #9ab8ff }
}
"""
_HASH: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page(document: bytes) -> str:
    """The page for an OpenAPI document of ours."""
    read: Json = msgspec.json.decode(document)
    sections: dict[str, list[str]] = {}
    for path, operations in read["paths"].items():
        for method, operation in operations.items():
            sections.setdefault(operation["tags"][0], []).append(_operation(method, path, operation))
    title = f"{read['info']['title']} {read['info']['version']}"
    routes = "".join(f"<h2>{escape(tag)}</h2>{''.join(each)}" for tag, each in sections.items())
    shapes = "".join(_shape(name, schema) for name, schema in read["components"]["schemas"].items())
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f"<h1>{escape(title)}</h1><p>{escape(read['info']['description'])} "
        f'<a href="/openapi.json">openapi.json</a></p>{routes}<h2>Shapes</h2>{shapes}</body></html>'
    )


def _operation(method: str, path: str, operation: Json) -> str:
    parts = [f"<p>{escape(operation['description'])}</p>"]
    if operation["parameters"]:
        rows = ((f"{each['name']} ({each['in']})", each["schema"]) for each in operation["parameters"])
        parts.append(_table("Parameters", rows))
    if (body := operation.get("requestBody")) is not None:
        parts.append(f"<p>Body: {_contents(body['content'])}</p>")
    for status, answer in operation["responses"].items():
        contents = _contents(answer.get("content", {}))
        parts.append(f"<p>{escape(status)}: {escape(answer['description'])} {contents}</p>")
    head = f'<span class="method">{escape(method.upper())}</span> <code>{escape(path)}</code> '
    return f"<details><summary>{head}{escape(operation['summary'])}</summary>{''.join(parts)}</details>"


def _shape(name: str, schema: Json) -> str:
    parts = [f"<p>{escape(schema['description'])}</p>"] if "description" in schema else []
    if "properties" in schema:
        needed = schema.get("required", ())
        rows = ((f"{each}{'' if each in needed else ' (optional)'}", of) for each, of in schema["properties"].items())
        parts.append(_table("", rows))
    else:
        parts.append(f"<p>{_type(schema)}</p>")
    return f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>{"".join(parts)}</details>'


def _table(title: str, rows: Iterable[tuple[str, Json]]) -> str:
    cells = "".join(f"<tr><td><code>{escape(name)}</code></td><td>{_type(schema)}</td></tr>" for name, schema in rows)
    return f"<p>{escape(title)}</p><table>{cells}</table>" if title else f"<table>{cells}</table>"


def _contents(content: Json) -> str:
    return " ".join(f"{escape(media)}: {_type(each['schema'])}" for media, each in content.items())


def _type(schema: Json) -> str:
    """A schema in a few words; what has a name links to it."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"<code>{escape(str(each))}</code>" for each in schema["enum"])
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {_type(schema['items'])}" if "items" in schema else "list"
    if kind == "object":
        inner: Json | bool = schema.get("additionalProperties", False)
        return "object" if isinstance(inner, bool) else f"object of {_type(inner)}"
    limits = [f"{word} {schema[key]}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in schema]
    return escape(" ".join([kind, *limits]))
