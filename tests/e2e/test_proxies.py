"""Every call goes through the proxy that was set, and none goes around it.

`chat.qwen.test` is known to the proxies only: a call that went directly, or a name looked up here, would fail.
"""

import asyncio
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from qwen_proxy.simulator import Scenario, challenge
from tests.support.asking import streamed, whole
from tests.support.proxies import HttpProxy, Proxy, Socks5Proxy
from tests.support.running import Running, running
from tests.support.waiting import until

NAME = "chat.qwen.test"
URL = f"http://{NAME}"
EVERY_CALL = {"signin_v1", "models", "chats_new", "completions", "chat_delete"}
ONE = ("a@example.com:pw",)
KINDS: dict[str, type[Proxy]] = {"http": HttpProxy, "socks5": Socks5Proxy, "socks5h": Socks5Proxy}
CANARY = "canary-of-the-proxy"


@asynccontextmanager
async def behind(
    accounts: Sequence[str] = ONE, scenario: Scenario | None = None, **settings: str
) -> AsyncGenerator[Running]:
    """The gateway, with an upstream it can't reach by itself."""
    async with running(scenario, accounts=accounts, **{"QWEN_CHAT_PROXY_URL": URL} | settings) as gateway:
        yield gateway


def known() -> dict[str, asyncio.Future[int]]:
    """What the proxies know; the port comes later, with the simulator."""
    return {NAME: asyncio.get_running_loop().create_future()}


def lead(names: dict[str, asyncio.Future[int]], gateway: Running) -> None:
    names[NAME].set_result(port_of(gateway.simulator.base_url))


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


async def use(gateway: Running) -> None:
    """One chat of each kind, and the deletion of both."""
    assert (await whole(gateway)).status == 200
    assert (await streamed(gateway)).done
    await until(lambda: len(gateway.simulator.seen("chat_delete")) == 2)


def calls_through(proxy: Proxy, gateway: Running) -> set[str]:
    return {seen.endpoint for seen in gateway.simulator.requests if seen.peer[1] in proxy.ports}


@pytest.mark.parametrize("credentials", [None, "user:p%40ss"])
@pytest.mark.parametrize("scheme", KINDS)
async def test_every_call_goes_through_the_proxy(scheme: str, credentials: str | None) -> None:
    names = known()
    async with KINDS[scheme](names=names, credentials=credentials and "user:p@ss") as proxy:
        url = f"{scheme}://{credentials + '@' if credentials else ''}127.0.0.1:{proxy.port}"
        async with behind(PROXY_URL=url) as gateway:
            lead(names, gateway)
            await use(gateway)
            assert {seen.endpoint for seen in gateway.simulator.requests} == EVERY_CALL
            assert calls_through(proxy, gateway) == EVERY_CALL
            assert all(seen.peer[1] in proxy.ports for seen in gateway.simulator.requests)
            assert set(proxy.asked) == {f"{NAME}:80"}


@pytest.mark.parametrize("scheme", KINDS)
async def test_the_proxy_of_an_account_is_used_for_all_it_does_and_wins_over_the_general_one(scheme: str) -> None:
    names = known()
    async with KINDS[scheme](names=names) as own, HttpProxy(names=names) as general:
        account = f"{ONE[0]}|{scheme}://127.0.0.1:{own.port}"
        async with behind([account], PROXY_URL=f"http://127.0.0.1:{general.port}") as gateway:
            lead(names, gateway)
            await use(gateway)
            assert calls_through(own, gateway) == EVERY_CALL - {"models"}
            assert calls_through(general, gateway) == {"models"}


async def test_nothing_is_direct_when_every_account_has_a_proxy_of_its_own() -> None:
    names = known()
    async with Socks5Proxy(names=names) as proxy:
        async with behind([f"{ONE[0]}|socks5://127.0.0.1:{proxy.port}"]) as gateway:
            lead(names, gateway)
            await use(gateway)
            assert calls_through(proxy, gateway) == EVERY_CALL


async def test_a_renewed_token_comes_through_the_proxy_of_its_account() -> None:
    names = known()
    async with HttpProxy(names=names) as own, Socks5Proxy(names=names) as general:
        account = f"{ONE[0]}|http://127.0.0.1:{own.port}"
        async with behind([account], PROXY_URL=f"socks5://127.0.0.1:{general.port}") as gateway:
            lead(names, gateway)
            assert (await whole(gateway)).status == 200
            gateway.simulator.revoke_tokens()
            assert (await whole(gateway)).status == 200
            sign_ins = gateway.simulator.seen("signin_v1")
            assert len(sign_ins) == 2
            assert all(seen.peer[1] in own.ports for seen in sign_ins)


async def test_the_model_list_comes_through_another_accounts_proxy_where_the_first_is_dead() -> None:
    names = known()
    with socket.create_server(("127.0.0.1", 0)) as gone:
        dead = gone.getsockname()[1]
    async with HttpProxy(names=names) as proxy:
        accounts = [f"{ONE[0]}|http://127.0.0.1:{dead}", f"b@example.com:pw|http://127.0.0.1:{proxy.port}"]
        async with behind(accounts) as gateway:
            lead(names, gateway)
            assert (await whole(gateway)).status == 200
            assert "models" in calls_through(proxy, gateway)


@pytest.mark.parametrize("scheme", ["http", "https", "socks5"])
async def test_with_the_proxy_dead_nothing_goes_direct(scheme: str) -> None:
    """The upstream is reachable directly here, so that a call around the proxy would be seen."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    async with running(accounts=ONE, PROXY_URL=f"{scheme}://user:{CANARY}@127.0.0.1:{port}") as gateway:
        for _ in range(2):
            reply = await whole(gateway)
            assert reply.error is not None
            assert (reply.status, reply.error.code) == (502, "upstream_unavailable")
            assert "outbound proxy can't be used" in reply.error.message
            assert CANARY not in reply.error.message
        assert gateway.simulator.requests == []
        (account,) = gateway.pool.snapshot()
        assert account.sign_in_state == "failed"
        async with gateway.client.get("/readyz") as response:
            assert response.status == 503
            assert "on an exit that does not answer" in await response.text()


async def test_a_proxy_that_dies_between_two_requests_is_not_gone_around() -> None:
    async with HttpProxy() as proxy:
        async with running(accounts=ONE, PROXY_URL=f"http://127.0.0.1:{proxy.port}") as gateway:
            await use(gateway)
            await proxy.__aexit__(None, None, None)
            before = len(gateway.simulator.requests)
            for status in (503, 503):  # it was found out by the first, and rests
                reply = await whole(gateway)
                assert reply.error is not None
                assert (reply.status, reply.error.code) == (status, "no_account")
                assert "on an exit that does not answer" in reply.error.message
                assert 1 <= int(reply.headers["retry-after"]) <= 5
            assert len(gateway.simulator.requests) == before
            async with proxy:
                pass  # its port is free again: nobody else took it


async def test_a_request_that_meets_a_dead_proxy_is_answered_through_another_exit() -> None:
    async with HttpProxy() as first, Socks5Proxy() as second:
        accounts = (
            f"a@example.com:pw|http://127.0.0.1:{first.port}",
            f"b@example.com:pw|socks5://127.0.0.1:{second.port}",
        )
        async with running(accounts=accounts) as gateway:
            await until(lambda: all(each.has_token for each in gateway.pool.snapshot()))
            assert (await whole(gateway)).status == 200
            assert (await whole(gateway)).status == 200
            await first.__aexit__(None, None, None)
            for _ in range(3):
                assert (await whole(gateway)).status == 200
            tried = [seen.account for seen in gateway.simulator.seen("completions")[2:]]
            assert tried == ["b@example.com"] * 3


async def test_accounts_on_another_exit_go_on_while_one_proxy_is_dead() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    async with HttpProxy() as alive:
        dead = f"a@example.com:pw|socks5://127.0.0.1:{port}"
        async with running(accounts=(dead, "b@example.com:pw"), PROXY_URL=f"http://127.0.0.1:{alive.port}") as gateway:
            for _ in range(4):
                assert (await whole(gateway)).status == 200
            assert {seen.account for seen in gateway.simulator.seen("completions")} == {"b@example.com"}
            assert all(seen.peer[1] in alive.ports for seen in gateway.simulator.requests)


@pytest.mark.parametrize("scheme", ["http", "socks5"])
async def test_wrong_credentials_of_the_proxy_are_said_without_showing_them(scheme: str) -> None:
    async with KINDS[scheme](credentials="user:right") as proxy:
        async with running(accounts=ONE, PROXY_URL=f"{scheme}://user:{CANARY}@127.0.0.1:{proxy.port}") as gateway:
            reply = await whole(gateway)
            assert reply.error is not None
            assert (reply.status, reply.error.code) == (502, "upstream_unavailable")
            assert "outbound proxy can't be used" in reply.error.message
            assert CANARY not in reply.error.message
            assert gateway.simulator.requests == []
            (account,) = gateway.pool.snapshot()
            (exit,) = gateway.pool.exits()
            assert CANARY not in f"{account} {exit}"


async def test_a_challenge_is_answered_through_another_exit() -> None:
    async with HttpProxy() as first, Socks5Proxy() as second:
        accounts = (
            f"a@example.com:pw|http://127.0.0.1:{first.port}",
            f"b@example.com:pw|socks5://127.0.0.1:{second.port}",
        )
        async with running(Scenario(faults=[challenge(account="a@example.com")]), accounts=accounts) as gateway:
            await until(lambda: all(each.has_token for each in gateway.pool.snapshot()))
            assert (await whole(gateway)).status == 200
            tried = [seen.peer[1] for seen in gateway.simulator.seen("completions")]
            assert [port in first.ports for port in tried] == [True, False]
            assert [port in second.ports for port in tried] == [False, True]


# --- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Key and certificate of a site of our own."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    key, chain = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={NAME}", "-addext",
         f"subjectAltName=DNS:{NAME}", "-keyout", str(key), "-out", str(chain)],
        check=True, capture_output=True,
    )  # fmt: skip
    return key, chain


@pytest.mark.parametrize("scheme", ["http", "socks5"])
async def test_tls_goes_through_the_proxy_to_the_site_itself(certificate: tuple[Path, Path], scheme: str) -> None:
    key, chain = certificate
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(chain, key)
    inner = known()
    outer = known()
    terminator = HttpProxy(names=inner)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await terminator.join(NAME, 443, reader, writer, first=b"", ready=b"")
        writer.close()

    async with KINDS[scheme](names=outer) as proxy, terminator:
        server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
        outer[NAME].set_result(server.sockets[0].getsockname()[1])
        url = f"{scheme}://127.0.0.1:{proxy.port}"
        async with behind(PROXY_URL=url, QWEN_CHAT_PROXY_URL=f"https://{NAME}", CA_FILE=str(chain)) as gateway:
            lead(inner, gateway)
            await use(gateway)
            assert set(proxy.asked) == {f"{NAME}:443"}
            assert calls_through(terminator, gateway) == EVERY_CALL
        server.close()
        await server.wait_closed()


# --- a proxy that others wrote


# It wants the current event loop, which neither uvloop nor later versions of Python make by themselves.
RUN_PPROXY = """
import asyncio, sys
sys.modules["uvloop"] = None
asyncio.set_event_loop(asyncio.new_event_loop())
from pproxy.server import main
main(sys.argv[1:])
"""


@asynccontextmanager
async def pproxy(scheme: str) -> AsyncGenerator[tuple[int, psutil.Process]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RUN_PPROXY, "-l", f"{scheme}://127.0.0.1:{port}", stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(15):
            while not await _listens(port):
                assert process.returncode is None
                await asyncio.sleep(0.05)
        yield port, psutil.Process(process.pid)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@pytest.mark.parametrize("scheme", ["http", "socks5"])
async def test_every_call_goes_through_a_proxy_that_others_wrote(scheme: str) -> None:
    async with pproxy(scheme) as (port, process):
        async with running(accounts=ONE, PROXY_URL=f"{scheme}://127.0.0.1:{port}") as gateway:
            ports: set[int] = set()
            assert (await whole(gateway)).status == 200
            ports |= {each.laddr.port for each in process.net_connections()}
            await use(gateway)
            ports |= {each.laddr.port for each in process.net_connections()}
            assert {seen.endpoint for seen in gateway.simulator.requests} == EVERY_CALL
            assert {seen.peer[1] for seen in gateway.simulator.requests} <= ports
