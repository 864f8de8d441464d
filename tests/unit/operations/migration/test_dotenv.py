"""The original's .env."""

from qwen_proxy.ground.secret import Secret
from qwen_proxy.operations.migration.dotenv import FoundEnv, read
from qwen_proxy.operations.migration.found import FoundAccount, Problem

README = """\ufeff# 🌐 Service Configuration
LISTEN_ADDRESS=localhost # Listen address
SERVICE_PORT=3000 # Service port

API_KEY=sk-123456,sk-456789 # API keys (required, supports multiple keys)
ACCOUNTS= # Account configuration (format: user1:pass1,user2:pass2)
REDIS_URL=redis://:canary@localhost
DATA_SAVE_MODE=none # Data persistence mode (none/file/redis)
HTTP_TIMEOUT=5
EMPTY=
"""


def test_the_example_of_the_originals_readme() -> None:
    assert read(README, ".env") == FoundEnv(
        admin_key=Secret("sk-123456"),
        keys=(Secret("sk-456789"),),
        settings={"LISTEN_ADDRESS": "localhost", "SERVICE_PORT": "3000"},
        problems=(Problem(".env", "HTTP_TIMEOUT is not a variable of this program, and is left out"),),
    )


def test_accounts_that_can_be_read_are_read_and_the_rest_is_told_of() -> None:
    text = "ACCOUNTS='a@x.example:p$w:1,b@x.example:pw|socks5://h:1, ,canary,c@x.example:pw|ftp://canary'"
    found = read(text, ".env")
    assert found.accounts == (
        FoundAccount(email="a@x.example", password=Secret("p$w:1"), where=".env, ACCOUNTS, entry 1"),
        FoundAccount(email="b@x.example", password=Secret("pw"), proxy="socks5://h:1", where=".env, ACCOUNTS, entry 2"),
    )
    assert [problem.where for problem in found.problems] == [
        ".env, ACCOUNTS, entry 4",
        ".env, ACCOUNTS, entry 5 (c***@x.example)",
    ]
    assert "canary" not in str([problem.says for problem in found.problems])


def test_it_tells_where_the_accounts_are() -> None:
    assert read("DATA_SAVE_MODE=Redis\nREDIS_URL=rediss://h", ".env").redis_url == Secret("rediss://h")
    assert read("DATA_SAVE_MODE=redis", ".env").redis_url is None
    assert read("", ".env") == FoundEnv()
    assert read("= \n\0\nnonsense\n'", ".env").accounts == ()
