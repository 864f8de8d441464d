"""The form of calls that a model is taught, as data: a second one can be tried, and compared.

    [[call 7f3a Write]]
    [[arg 7f3a file_path]]
    src/a.py
    [[arg 7f3a content]]
    print("any text, no escaping")
    [[end 7f3a]]

Every marker stands alone on a line and carries the nonce, so that a value may hold any text but a marker with it.
Exactly one line feed before a marker belongs to the marker. A value whose schema type is string is written raw, any
other as JSON.
"""

from typing import Final

from msgspec import Struct


class Form(Struct, frozen=True, kw_only=True):
    """The lines of one form. `{nonce}`, `{name}`, `{number}` stand for what they say.

    call: opens a call of the tool `{name}`. arg: opens the value of the parameter `{name}`. end: closes a call, or a
    result. result: opens the result of the `{number}`th call (from 1 over the conversation) of the tool `{name}`.
    failed: the same for one that failed.
    """

    id: str
    call: str
    arg: str
    end: str
    result: str
    failed: str


MARKERS: Final = Form(
    id="markers-1",
    call="[[call {nonce} {name}]]",
    arg="[[arg {nonce} {name}]]",
    end="[[end {nonce}]]",
    result="[[result {nonce} #{number} {name}]]",
    failed="[[result {nonce} #{number} {name} error]]",
)

FORMS: Final = {form.id: form for form in (MARKERS,)}
