import pytest

from qwen_proxy.upstreams.qwen_web.token import token_end

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJpZCI6ICJhIiwgImV4cCI6IDE3OTM4MDAwMDB9.c2ln"


@pytest.mark.parametrize(
    ("token", "end"),
    [
        (JWT, 1_793_800_000.0),
        ("opaque", None),
        ("a.b.c", None),
        ("a.\u4e2d.c", None),
        ("a.e30.c", None),
        ("a.eyJleHAiOiAtMX0.c", None),
        ("a.eyJleHAiOiAidG9tb3Jyb3cifQ.c", None),
    ],
)
def test_a_tokens_own_end(token: str, end: float | None) -> None:
    assert token_end(token) == end
