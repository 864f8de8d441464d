"""Canary secrets, looked for in everything that is printed or answered while things go wrong."""

import io
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qwen_proxy.app.commons import accounts_of
from qwen_proxy.config.settings import WrongSetting, load
from qwen_proxy.ground.redact import redacted
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.logs import LogOptions, Logs
from qwen_proxy.simulator import Account, Scenario
from tests.support.http import ADMIN_KEY, USER_KEY, raw
from tests.support.replies import PATH
from tests.support.running import Running, ask, running

PASSWORD = "canary-password-7Qx"
PROXY_PASSWORD = "canary-proxy-3Wz"
COOKIE = "canary-cookie-9Ty"
WRONG_KEY = "canary-key-5Rt"
ACCOUNTS = (f"a@example.com:{PASSWORD}",)
HEADERS = f'{{"X-Owner": "{COOKIE}"}}'


class Printed:
    """Everything that went out, as text."""

    def __init__(self) -> None:
        self.answers: list[str] = []
        self.log = io.StringIO()
        self.file = ""
        self.tokens: set[str] = set()

    def leaks(self) -> list[str]:
        known = {PASSWORD, PROXY_PASSWORD, COOKIE, WRONG_KEY, ADMIN_KEY, USER_KEY} | self.tokens
        text = "\n".join([*self.answers, self.log.getvalue(), self.file])
        return [secret for secret in known if secret in text]


@contextmanager
def printing() -> Generator[Printed]:
    """What the program logs at DEBUG while the block runs, to its stream and its file, is kept."""
    printed = Printed()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "qwen-proxy.log"
        with Logs(LogOptions(level="DEBUG", form="text", file=path, redact=redacted), printed.log):
            yield printed
        printed.file = path.read_text()


async def visit(
    gateway: Running,
    printed: Printed,
    path: str,
    body: dict[str, object] | None = None,
    headers: dict[str, str] | None = None,
) -> None:
    method = "GET" if body is None else "POST"
    async with gateway.client.request(method, path, json=body, headers=headers) as response:
        printed.answers += [f"{name}: {value}" for name, value in response.headers.items()]
        printed.answers.append(await response.text())


async def look_around(gateway: Running, printed: Printed) -> None:
    admin = {"Authorization": f"Bearer {ADMIN_KEY}"}
    for path in ("/v1/models", "/models", "/healthz", "/readyz", f"/nothing?api_key={USER_KEY}", "/v1/models/nope"):
        await visit(gateway, printed, path)
    await visit(gateway, printed, "/api/admin/diagnostics", headers=admin)
    await visit(gateway, printed, "/api/admin/diagnostics")
    await visit(gateway, printed, "/v1/models", headers={"Authorization": f"Bearer {WRONG_KEY}"})
    await visit(gateway, printed, "/v1/models", headers={"Authorization": "", "x-api-key": WRONG_KEY})
    printed.answers += [
        repr(gateway.settings),
        str(gateway.settings),
        repr(gateway.pool),
        repr(gateway.pool.snapshot()),
    ]
    printed.tokens |= {seen.cookies["token"] for seen in gateway.simulator.requests if "token" in seen.cookies}


FAILURES = [
    "hello",
    "[[sim error RateLimited num=6]]",
    "[[sim error Unauthorized]]",
    "[[sim challenge html]]",
    "[[sim status 503]]",
    "[[sim reset 3]] [[sim repeat 20]]",
    "[[sim stream-error internal_error after=2]] [[sim repeat 9]]",
    "[[sim drift]] hello",
    "[[sim empty-body]]",
]


@pytest.mark.parametrize("text", FAILURES)
async def test_no_failure_of_the_upstream_tells_a_secret(text: str) -> None:
    with printing() as printed:
        async with running(accounts=ACCOUNTS, QWEN_EXTRA_HEADERS=HEADERS) as gateway:
            for streamed in (False, True):
                await visit(gateway, printed, PATH, ask(text, stream=streamed))
            await look_around(gateway, printed)
            assert any(seen.headers.get("x-owner") == COOKIE for seen in gateway.simulator.requests)
            assert printed.tokens
    assert printed.file.count("\n") > 3
    assert printed.leaks() == []


@pytest.mark.parametrize("standing", ["wrong_password", "banned", "unregistered"])
async def test_no_failed_sign_in_tells_the_password(standing: str) -> None:
    account = Account(PASSWORD, "wrong_password" if standing == "wrong_password" else "banned")
    known = {"b@example.com": account} if standing == "unregistered" else {"a@example.com": account}
    with printing() as printed:
        async with running(Scenario(accounts=known), accounts=ACCOUNTS) as gateway:
            await visit(gateway, printed, PATH, ask())
            await look_around(gateway, printed)
    assert printed.leaks() == []


async def test_a_withdrawn_token_is_renewed_in_silence() -> None:
    with printing() as printed:
        async with running(accounts=ACCOUNTS) as gateway:
            await visit(gateway, printed, PATH, ask())
            gateway.simulator.revoke_tokens()
            await visit(gateway, printed, PATH, ask())
            await look_around(gateway, printed)
            assert len(printed.tokens) == 2
    assert printed.leaks() == []


@pytest.mark.parametrize("scheme", ["http", "socks5"])
async def test_no_dead_proxy_tells_its_password(scheme: str) -> None:
    proxy = f"{scheme}://owner:{PROXY_PASSWORD}@127.0.0.1:9"
    with printing() as printed:
        async with running(accounts=(f"a@example.com:{PASSWORD}|{proxy}",)) as gateway:
            await visit(gateway, printed, PATH, ask())
            await look_around(gateway, printed)
            assert gateway.simulator.requests == []
    assert printed.leaks() == []


async def test_no_request_of_a_client_puts_its_key_into_the_log() -> None:
    heads = [
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {WRONG_KEY}\x01\r\n\r\n",
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nx-api-key: {WRONG_KEY}\x00\r\n\r\n",
        f"POST {PATH} HTTP/1.1\r\nHost x-api-key {WRONG_KEY}\r\n\r\n",
        f"GET /{WRONG_KEY} HTTP/9.9\r\n\r\n",
        f"{WRONG_KEY}\r\n\r\n",
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nx-api-key: {USER_KEY}\r\nContent-Length: 2, 3\r\n\r\n{{}}",
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nx-api-key: {USER_KEY}\r\nContent-Encoding: gzip\r\n"
        f"Content-Length: 20\r\n\r\n{WRONG_KEY}xxxxxx",
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nx-api-key: {USER_KEY}\r\n"
        f"Transfer-Encoding: chunked\r\n\r\n{WRONG_KEY}\r\n",
    ]
    with printing() as printed:
        async with running() as gateway:
            for head in heads:
                reader, writer = await raw(int(gateway.url.rpartition(":")[2]), head.encode())
                writer.write_eof()
                await reader.read()
                writer.close()
                await writer.wait_closed()
    assert printed.leaks() == []


def test_settings_and_what_is_made_of_them_print_no_secret() -> None:
    environ = {
        "API_KEY": f"{ADMIN_KEY},{USER_KEY}",
        "ACCOUNTS": f"a@example.com:{PASSWORD}|http://owner:{PROXY_PASSWORD}@127.0.0.1:9",
        "PROXY_URL": f"socks5://owner:{PROXY_PASSWORD}@127.0.0.1:9",
        "REDIS_URL": f"redis://:{PROXY_PASSWORD}@127.0.0.1",
        "QWEN_EXTRA_HEADERS": HEADERS,
    }
    settings = load(environ, None)
    printed = Printed()
    printed.answers = [
        repr(settings),
        str(settings),
        f"{settings.accounts}",
        repr(accounts_of(settings)),
        repr(settings.api_keys),
        repr(settings.texts),
        repr(Secret(PASSWORD)),
        f"{Secret(PASSWORD)!s:>20}",
    ]
    assert printed.leaks() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACCOUNTS", PASSWORD),
        ("ACCOUNTS", f"a@example.com:{PASSWORD}|ftp://owner:{PROXY_PASSWORD}@x"),
        ("PROXY_URL", f"gopher://owner:{PROXY_PASSWORD}@127.0.0.1:9"),
        ("REDIS_URL", f"http://:{PROXY_PASSWORD}@127.0.0.1"),
        ("QWEN_EXTRA_HEADERS", f'{{"Cookie": "{COOKIE}"'),
        ("QWEN_CHAT_PROXY_URL", f"ftp://owner:{PROXY_PASSWORD}@127.0.0.1"),
    ],
)
def test_a_wrong_setting_is_named_without_its_secret(name: str, value: str) -> None:
    with pytest.raises(WrongSetting) as wrong:
        load({name: value}, None)
    printed = Printed()
    printed.answers = [str(wrong.value), repr(wrong.value), wrong.value.value, repr(wrong.value.__cause__)]
    assert name in str(wrong.value)
    assert printed.leaks() == []
