"""Thousands of pasted lines: what is good in them, and what is said of the rest."""

from qwen_proxy.accounts.lines import BadLine, RepeatedLine, read_lines

TEXT = """\ufeff# the first team

a@x.org:pw
B@x.org:p:w|socks5://h:1\r
  b@x.org:other
nonsense
c@x.org:pw|ftp://h
\td@x.org:pw\re@x.org:pw
A@X.ORG:pw"""


def test_lines_are_told_apart_and_numbered_as_an_editor_does():
    found = read_lines(TEXT, {"d@x.org"})
    assert [(line.number, line.login.email) for line in found.good] == [(3, "a@x.org"), (4, "B@x.org"), (9, "e@x.org")]
    assert found.repeated == (
        RepeatedLine(number=5, email="b@x.org", first_number=4),
        RepeatedLine(number=8, email="d@x.org"),
        RepeatedLine(number=10, email="A@X.ORG", first_number=3),
    )
    assert [line.number for line in found.bad] == [6, 7]
    assert found.total == 8


def test_each_line_that_is_not_good_has_a_sentence():
    found = read_lines(TEXT, {"d@x.org"})
    assert [line.sentence for line in (*found.bad, *found.repeated)] == [
        "line 6: there is no ':' between email and password; a line is email:password or email:password|proxy",
        "line 7: the proxy must begin with http://, https://, socks5:// or socks5h://",
        "line 5: the same account as line 4",
        "line 8: this account was added before",
        "line 10: the same account as line 3",
    ]
    assert found.bad[1] == BadLine(number=7, problem=found.bad[1].problem, email="c@x.org")


def test_only_line_feeds_and_returns_end_a_line():
    password = "a\x0bb\x0cc\x1cd\x85e\u2028f,g"
    (line,) = read_lines(f"a@x.org:{password}\r\n\r\n").good
    assert line.login.password.reveal() == password
