"""A request as bytes."""

import pytest

from qwen_proxy.upstreams.question import Question


def test_a_request_says_what_its_caller_did_not() -> None:
    assert (
        Question("POST", "/a?b", "host:1", {"X-A": "ü"}).render(b"body")
        == (
            "POST /a?b HTTP/1.1\r\nHost: host:1\r\nX-A: ü\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate, zstd\r\n"
            "Content-Length: 4\r\n\r\nbody"
        ).encode()
    )
    own = {"host": "h", "accept": "a", "accept-encoding": "identity"}
    assert Question("GET", "/", "other", own, hop="X-Hop: 1\r\n").render(None) == (
        b"GET / HTTP/1.1\r\nhost: h\r\naccept: a\r\naccept-encoding: identity\r\nX-Hop: 1\r\n\r\n"
    )
    assert b"Content-Length: 0\r\n" in Question("POST", "/", "h", {}).render(None)


@pytest.mark.parametrize("bad", ["a\rb", "a\nb", "a\r\nX: b", "a\0b", "a\r\n\r\nb"])
def test_a_request_that_would_be_two_is_refused(bad: str) -> None:
    for headers in ({"X": bad}, {bad: "x"}, {"Host": bad}):
        with pytest.raises(ValueError, match="character"):
            Question("GET", "/", "h", headers).render(None)
    with pytest.raises(ValueError, match="character"):
        Question("GET", f"/{bad}", "h", {}).render(None)
    with pytest.raises(ValueError, match="character"):
        Question("GET", "/", bad, {}).render(None)


def test_a_target_with_a_space_and_a_length_of_the_callers_own_are_refused() -> None:
    with pytest.raises(ValueError, match="character"):
        Question("GET", "/a HTTP/1.1", "h", {}).render(None)
    for name in ("Content-Length", "Transfer-Encoding"):
        with pytest.raises(ValueError, match="length"):
            Question("POST", "/", "h", {name: "1"}).render(b"")
