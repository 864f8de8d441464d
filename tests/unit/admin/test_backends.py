"""What is told of a backend, and what of a form goes into the audit log: no secret."""

import msgspec

from qwen_proxy.accounts.key_health import KeyState
from qwen_proxy.accounts.key_pool import KeyReport
from qwen_proxy.admin.backends import backend_body, told, without_keys
from qwen_proxy.config.backend_book import BackendOrigin, KnownBackend
from qwen_proxy.config.backends import BackendForm, ServerKind, Thinking, spec_of

FORM = BackendForm(
    name="lab",
    base_url="https://user:canary-login@lab.example/v1",
    kind=ServerKind.LOCAL,
    keys=("canary-key-one", "canary-key-two"),
    models=("m-1",),
    prefix="lab/",
    headers={"X-Access": "canary-header"},
    exit="socks5://user:canary-exit@127.0.0.1:1080",
    concurrency=4,
    key_concurrency=2,
    thinking=Thinking.TEMPLATE,
    enabled=False,
)


def test_a_backend_is_told_without_its_secrets() -> None:
    refused = "401: canary-key-one is no key of ours, nor is canary-header"
    report = KeyReport(id="k1", hint="…", state=KeyState.RETIRED, in_use=1, until=None, reason=refused)
    body = backend_body(KnownBackend(spec=spec_of(FORM), origin=BackendOrigin.ADDED), [report], 7)
    assert "canary" not in msgspec.json.encode(body).decode()
    assert (body.base_url, body.exit, body.headers) == (
        "https://***@lab.example/v1",
        "socks5://127.0.0.1:1080",
        ("X-Access",),
    )
    assert (body.name, body.listed, body.models, body.enabled) == ("lab", 7, ("m-1",), False)
    assert body.keys[0].reason == "401: *** is no key of ours, nor is ***"


def test_without_an_exit_of_its_own_none_is_told() -> None:
    known = KnownBackend(
        spec=spec_of(BackendForm(preset="vllm", base_url="http://gpu:8000")), origin=BackendOrigin.ADDED
    )
    assert backend_body(known, [], None).exit == ""


def test_a_form_is_told_by_what_it_names() -> None:
    line = told(FORM)
    assert (line["keys"], line["headers"], line["exit"]) == (2, "X-Access", "socks5://127.0.0.1:1080")
    assert "canary" not in str({name: value for name, value in line.items() if name != "base_url"})  # masked by the log
    assert told(BackendForm(key="canary"))["keys"] == 1
    assert set(told(BackendForm()).values()) == {None}


def test_short_values_are_not_searched_for() -> None:
    spec = spec_of(BackendForm(name="lab", base_url="http://lab/v1", headers={"X-Title": "the"}))
    assert without_keys("the key is wrong", spec) == "the key is wrong"
