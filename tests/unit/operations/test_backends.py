"""What to do about a key that failed its test."""

import pytest

from qwen_proxy.accounts.key_health import KeyState
from qwen_proxy.accounts.key_pool import KeyReport
from qwen_proxy.admin.backends import BackendTestBody, TriedKeyBody, backend_body
from qwen_proxy.config.backend_book import BackendOrigin, KnownBackend
from qwen_proxy.config.backends import BackendForm, ServerKind, spec_of
from qwen_proxy.operations.backends import judge_backend, key_advice, keys_called


@pytest.mark.parametrize(
    ("state", "kind", "says"),
    [
        (
            KeyState.RETIRED,
            ServerKind.API,
            "qwen-proxy backends keys add lab, and: qwen-proxy backends keys remove lab k",
        ),
        (KeyState.OUT_OF_QUOTA, ServerKind.API, "another key"),
        (KeyState.THROTTLED, ServerKind.LOCAL, "rests no more"),
        (KeyState.READY, ServerKind.LOCAL, "whether the server runs"),
        (KeyState.READY, ServerKind.API, "right address"),
        (None, ServerKind.API, "http://lab/v1"),
    ],
)
def test_each_state_has_its_advice(state: KeyState | None, kind: ServerKind, says: str) -> None:
    spec = spec_of(BackendForm(name="lab", base_url="http://lab/v1", kind=kind))
    reports = [] if state is None else [KeyReport(id="k", hint="", state=state, in_use=0, until=None, reason="")]
    body = backend_body(KnownBackend(spec=spec, origin=BackendOrigin.ADDED), reports, None)
    assert says in key_advice(body, next(iter(body.keys), None))


def test_a_key_of_the_environment_is_changed_there() -> None:
    spec = spec_of(BackendForm(name="lab", base_url="http://lab/v1", key="k"))
    report = KeyReport(id="k", hint="", state=KeyState.RETIRED, in_use=0, until=None, reason="")
    body = backend_body(KnownBackend(spec=spec, origin=BackendOrigin.ENVIRONMENT), [report], None)
    assert "change it there" in key_advice(body, body.keys[0])


@pytest.mark.parametrize(
    ("asked", "ids"),
    [
        ("id-1", ["id-1"]),
        ("…aaaa", ["id-1", "id-3"]),
        ("aaaa", ["id-1", "id-3"]),
        ("bbb", ["id-2"]),
        ("bbbb", ["bbbb"]),  # an id comes before an end
        ("", []),
        ("…", []),
        ("zzzz", []),
    ],
)
def test_a_key_goes_by_its_id_or_its_end(asked: str, ids: list[str]) -> None:
    spec = spec_of(BackendForm(name="lab", base_url="http://lab/v1"))
    hints = {"id-1": "…aaaa", "id-2": "…abbb", "id-3": "…aaaa", "bbbb": ""}
    reports = [
        KeyReport(id=id, hint=hint, state=KeyState.READY, in_use=0, until=None, reason="") for id, hint in hints.items()
    ]
    body = backend_body(KnownBackend(spec=spec, origin=BackendOrigin.ADDED), reports, None)
    assert keys_called(body, asked) == ids


@pytest.mark.parametrize(
    ("problems", "verdict", "says"),
    [
        (("", ""), "ok", "lists 2 models"),
        (("refused", ""), "warn", "1 of 2 keys are not taken: refused"),
        (("refused", "down"), "fail", "refused"),
    ],
)
def test_a_backend_is_judged_by_its_keys(problems: tuple[str, ...], verdict: str, says: str) -> None:
    spec = spec_of(BackendForm(name="lab", base_url="http://lab/v1"))
    keys = tuple(
        TriedKeyBody(id=str(at), hint="", models=() if problem else ("a", "b"), problem=problem)
        for at, problem in enumerate(problems)
    )
    backend = backend_body(KnownBackend(spec=spec, origin=BackendOrigin.ADDED), [], None)
    check = judge_backend(BackendTestBody(works=False, keys=keys, took_seconds=1.0, backend=backend))
    assert (check.name, check.verdict.value) == ("backend lab", verdict) and says in check.says
