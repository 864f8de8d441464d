"""Commands as browsers write them, taken apart."""

import pytest

from qwen_proxy.accounts.shells import Unclosed, powershell_cookies, powershell_headers, words


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("curl 'https://x' \\\n  -H 'a: b c' \\\r\n -b ''", ["curl", "https://x", "-H", "a: b c", "-b", ""]),
        ("curl 'it'\\''s' plain\\ word", ["curl", "it's", "plain word"]),
        (
            r"curl $'a\'b\u0021\x41\101\n\q\\' $'\U0001F600\UFFFFFFFF'",
            ["curl", "a'b!AA\nq\\", "\U0001f600\U0010ffff"],
        ),
        ('curl "a \\"b\\" \\$c \\d \\\ne" $"f" $g', ["curl", 'a "b" $c \\d e', "f", "$g"]),
        ("  curl  ", ["curl"]),
        ("", []),
    ],
)
def test_words_for_bash(command: str, found: list[str]):
    assert words(command) == found


@pytest.mark.parametrize(
    ("command", "found"),
    [
        # Chromium: everything special behind a caret, quotes inside a word behind a backslash too.
        (
            'curl ^"https://x/?a=1^&b=^%^2F^" ^\n  -H ^"etag: W/^\\^"1^\\^"^" ^\r\n  -b ^"a=^{1^}; b=c:\\\\d^"',
            ["curl", "https://x/?a=1&b=%2F", "-H", 'etag: W/"1"', "-b", "a={1}; b=c:\\d"],
        ),
        ('  curl ^"a^\n\nb^" ^"^" x^', ["curl", "a\nb", "", "x"]),
        # Firefox and older Chromium: carets at the ends of lines only.
        (
            'curl "https://x" ^\n  -H "a: ""b"" ^c" ^\r\n -H "d: "%"e" "" f\\g ',
            ["curl", "https://x", "-H", 'a: "b" ^c', "-H", "d: %e", "", "f\\g"],
        ),
    ],
)
def test_words_for_a_windows_prompt(command: str, found: list[str]):
    assert words(command) == found


@pytest.mark.parametrize("command", ["curl 'a", 'curl "a', "curl $'a\\'", "curl a\\", 'curl ^"a b', 'curl ^\n "a'])
def test_a_command_that_was_cut_is_told(command: str):
    with pytest.raises(Unclosed):
        words(command)


def test_carets_within_bash_quotes_are_left_alone():
    assert words("curl 'a^\"b' -b 'c=^\n'") == ["curl", 'a^"b', "-b", "c=^\n"]


def test_cookies_of_a_powershell_script():
    script = """
        $session = New-Object Microsoft.PowerShell.Commands.WebRequestSession
        $session.Cookies.Add((New-Object System.Net.Cookie("cna", "a`"b`$c``d""e", "/", ".qwen.ai")))
        $session.Cookies.Add((New-Object System.Net.Cookie("x", "$([char]233)$([char]9999999)", "/a", "chat.qwen.ai")))
        Invoke-WebRequest -Uri "https://chat.qwen.ai/" -Headers @{ "Cookie"="token=1; b=2" }
    """
    assert powershell_cookies(script) == [
        ("cna", 'a"b$c`d"e', "/", ".qwen.ai"),
        ("x", "é\U0010ffff", "/a", "chat.qwen.ai"),
    ]
    assert powershell_headers(script) == ["token=1; b=2"]
