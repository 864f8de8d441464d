"""One account as an operator writes it."""

import pytest

from qwen_proxy.config.lines import AccountLine, WrongLine, is_blank, read_account_line
from qwen_proxy.ground.secret import Secret


@pytest.mark.parametrize(
    ("line", "email", "password", "exit"),
    [
        ("a@x.org:pw", "a@x.org", "pw", ""),
        ("  A@x.org : p:w:  ", "A@x.org", " p:w:", ""),
        ("a@x.org:pw|", "a@x.org", "pw", ""),
        ("a@x.org:p w#|socks5://u:p|w@h:1", "a@x.org", "p w#", "socks5://u:p|w@h:1"),
        ("a@x.org:pw| socks5h://[::1]:1080 ", "a@x.org", "pw", "socks5h://[::1]:1080"),
        ("a@x.org:пароль|http://h:1", "a@x.org", "пароль", "http://h:1"),
        ("a@x.org:pw|https://h", "a@x.org", "pw", "https://h"),
    ],
)
def test_the_first_bar_splits_off_the_proxy_and_the_first_colon_the_password(
    line: str, email: str, password: str, exit: str
):
    assert read_account_line(line) == AccountLine(email=email, password=Secret(password), exit=exit)


@pytest.mark.parametrize(
    ("line", "problem", "email"),
    [
        (
            "canary",
            "there is no ':' between email and password; a line is email:password or email:password|proxy",
            "",
        ),
        (":canary", "the email, which is what stands before the first ':', is missing", ""),
        ("http://canary:1", "the email, which is what stands before the first ':', has no name, no '@' or no host", ""),
        ("@canary:pw", "the email, which is what stands before the first ':', has no name, no '@' or no host", ""),
        ("canary@:pw", "the email, which is what stands before the first ':', has no name, no '@' or no host", ""),
        (
            "a canary@x:pw",
            "the email, which is what stands before the first ':', holds a space or an unprintable character",
            "",
        ),
        (
            "a\x00@x:canary",
            "the email, which is what stands before the first ':', holds a space or an unprintable character",
            "",
        ),
        (
            f"{'a' * 320}@x:canary",
            "the email, which is what stands before the first ':', has more than 320 characters",
            "",
        ),
        ("a@x:", "the password is missing", "a@x"),
        ("a@x:|http://canary", "the password is missing", "a@x"),
        ("a@x:canary\udcff", "the password holds bytes that are no text in UTF-8", "a@x"),
        (f"a@x:canary{'a' * 1019}", "the password has more than 1024 characters", "a@x"),
        ("a@x:pw|canary:1", "the proxy must begin with http://, https://, socks5:// or socks5h://", "a@x"),
        ("a@x:canary|socks4://h:1", "the proxy must begin with http://, https://, socks5:// or socks5h://", "a@x"),
        ("a@x:pw|http://canary:x", "the proxy has a host or a port that can't be read", "a@x"),
        ("a@x:pw|http://canary:0", "the proxy has no host", "a@x"),
        ("a@x:pw|http://canary@:8", "the proxy has no host", "a@x"),
        ("a@x:pw|http://h:1 canary", "the proxy has a host or a port that can't be read", "a@x"),
        ("a@x:pw|http://h/ canary", "the proxy holds a space or a character that is not ASCII", "a@x"),
        (f"a@x:pw|http://canary{'a' * 2048}", "the proxy has more than 2048 characters", "a@x"),
    ],
)
def test_a_wrong_line_is_told_what_would_be_right_and_never_printed(line: str, problem: str, email: str):
    with pytest.raises(WrongLine) as caught:
        read_account_line(line)
    assert (str(caught.value), caught.value.email) == (problem, email)
    assert "canary" not in repr(caught.value)


def test_a_comment_is_as_good_as_nothing():
    assert is_blank("") and is_blank(" \t") and is_blank(" # a@x.org:pw")
    assert not is_blank("a@x.org:pw # no comment")


def test_the_account_is_known_by_its_email_in_lower_case_and_printed_without_secrets():
    line = read_account_line("Alice@X.org:canary|http://u:canary@h:1")
    assert line.account_id == "alice@x.org"
    assert repr(line) == "AccountLine('Al***@X.org', exit='http://***@h:1')"
