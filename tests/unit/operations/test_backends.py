"""What to do about a key that failed its test."""

import pytest

from qwen_proxy.accounts.key_health import KeyState
from qwen_proxy.accounts.key_pool import KeyReport
from qwen_proxy.admin.backends import BackendTestBody, TriedKeyBody, backend_body
from qwen_proxy.config.backend_book import BackendOrigin, KnownBackend
from qwen_proxy.config.backends import BackendForm, ServerKind, spec_of
from qwen_proxy.operations.backends import judge_backend, key_advice


@pytest.mark.parametrize(
    ("state", "kind", "says"),
    [
        (KeyState.RETIRED, ServerKind.API, "qwen-proxy backends edit lab --key -"),
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
