"""One decision for every carrier of a key."""

import pytest
from msgspec import structs

from qwen_proxy.config.keys import Role
from qwen_proxy.ground.errors import (
    OriginRefused,
    PermissionDenied,
    ProxyError,
    StoreUnavailable,
    TooManyAttempts,
    Unauthenticated,
)
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.ids import SystemIds
from qwen_proxy.serving.auth import Access, Admitted, Authenticator, Doors, Visit
from qwen_proxy.serving.sessions import COOKIE, Session, Sessions
from qwen_proxy.serving.throttle import Throttle
from qwen_proxy.state.store import Drawn
from qwen_proxy.state.vault import Vault, new_document
from qwen_proxy.storage.memory import MemoryStore
from tests.support.clock import FakeClock
from tests.support.fixed_keys import FixedKeys

ADMIN, USER = "sk-admin-0001", "sk-user-0001"
KEYS = FixedKeys([Secret(ADMIN), Secret(USER)])
HOST = "127.0.0.1:3000"

CARRIERS: list[dict[str, str]] = [
    {"Authorization": "Bearer KEY"},
    {"Authorization": "bearer   KEY "},
    {"Authorization": "KEY"},
    {"x-api-key": "KEY"},
    {"x-goog-api-key": "KEY"},
    {"query": "KEY"},
    {"query": "KEY", "x-goog-api-key": "dummy"},
    {"Authorization": "Bearer dummy", "x-api-key": "KEY"},
]


def visit(headers: dict[str, str] | None = None, method: str = "GET", peer: str = "203.0.113.5") -> Visit:
    return Visit(method=method, headers={"Host": HOST} | (headers or {}), peer=peer)


def carried(carrier: dict[str, str], key: str) -> Visit:
    headers = {name: value.replace("KEY", key) for name, value in carrier.items()}
    query_key = headers.pop("query", "")
    return structs.replace(visit(headers), query_key=query_key)


class House:
    """An authenticator with every door open, over one store; three wrong keys are too many."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.clock = FakeClock()
        self.store = store or MemoryStore(self.clock)
        vault = Vault(new_document())
        self.sessions = Sessions(self.store, vault, self.clock, SystemIds())
        throttle = Throttle(self.store, vault, self.clock, per_address=3)
        self.doors = Doors(sessions=self.sessions, throttle=throttle, hosts=("proxy.example",))
        self.authenticator = Authenticator(KEYS, self.doors)

    async def signed_in(self, key_id: str = "key-1") -> tuple[str, Session]:
        token, session = await self.sessions.begin(key_id)
        return f"{COOKIE}={token}", session

    async def decide(self, visit: Visit, access: Access = Access.ADMIN) -> str:
        """Who is admitted, or the error's name."""
        try:
            admitted = await self.authenticator.admit(visit, access)
        except ProxyError as error:
            return type(error).__name__
        return "anyone" if admitted is None else admitted.caller.name


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_every_carrier_gives_the_same_decision(carrier: dict[str, str]) -> None:
    house = House()
    for key, access, decision in (
        (ADMIN, Access.ADMIN, "key-1"),
        (ADMIN, Access.KEY, "key-1"),
        (USER, Access.ADMIN, "PermissionDenied"),
        (USER, Access.KEY, "key-2"),
        ("sk-user-0002", Access.KEY, "Unauthenticated"),
        ("sk-user-0002", Access.ADMIN, "Unauthenticated"),
        ("sk-user-0002", Access.OPEN, "anyone"),
    ):
        assert await house.decide(carried(carrier, key), access) == decision
    for wrong in ("", "' OR 1=1 --", "x" * 10_000, "kéy"):
        assert await house.decide(carried(carrier, wrong), Access.KEY) == "Unauthenticated"


async def test_without_a_key_nobody_is_let_in() -> None:
    house = House()
    assert await house.decide(visit(), Access.KEY) == "Unauthenticated"
    assert await Authenticator(KEYS).admit(visit(), Access.OPEN) is None
    with pytest.raises(Unauthenticated):
        await Authenticator(KEYS).admit(visit({"Cookie": f"{COOKIE}=x"}), Access.KEY)


async def test_an_admin_route_takes_the_admin_key_only() -> None:
    authenticator = Authenticator(KEYS)
    admitted = await authenticator.admit(visit({"x-api-key": ADMIN}), Access.ADMIN)
    assert admitted is not None and admitted.caller.role is Role.ADMIN and admitted.session is None
    with pytest.raises(PermissionDenied):
        await authenticator.admit(visit({"x-api-key": USER}), Access.ADMIN)
    with pytest.raises(Unauthenticated):
        await authenticator.admit(visit({"x-api-key": "sk-user-0002"}), Access.ADMIN)


# --- sessions ----------------------------------------------------------------------------------------------


async def test_a_session_stands_for_its_key_and_its_role() -> None:
    house = House()
    cookie, session = await house.signed_in()
    for access in (Access.KEY, Access.ADMIN):
        admitted = await house.authenticator.admit(visit({"Cookie": cookie}), access)
        assert isinstance(admitted, Admitted) and (admitted.caller.name, admitted.session) == ("key-1", session)
    cookie, _ = await house.signed_in("key-2")
    assert await house.decide(visit({"Cookie": cookie})) == "PermissionDenied"
    assert await house.decide(visit({"Cookie": cookie}), Access.KEY) == "key-2"


async def test_a_session_ends_with_its_key() -> None:
    house = House()
    cookie, _ = await house.signed_in("a key that was revoked")
    assert await house.decide(visit({"Cookie": cookie}), Access.KEY) == "Unauthenticated"


async def test_a_key_that_is_sent_decides_alone_whatever_the_cookie() -> None:
    house = House()
    cookie, _ = await house.signed_in()
    for headers, decision in (
        ({"Authorization": f"Bearer {USER}"}, "PermissionDenied"),
        ({"x-api-key": "wrong"}, "Unauthenticated"),
        ({"Authorization": "Bearer ", "x-api-key": ""}, "key-1"),
    ):
        assert await house.decide(visit({"Cookie": cookie} | headers)) == decision


async def test_what_changes_things_needs_the_sessions_own_proof_and_a_page_of_ours() -> None:
    house = House()
    cookie, session = await house.signed_in()
    _, other = await house.signed_in()
    same, proof = {"Sec-Fetch-Site": "same-origin"}, {"x-csrf-token": session.csrf}
    origin, foreign = {"Origin": f"http://{HOST}"}, {"Origin": "http://evil.example"}
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for headers, decision in (
            (same | proof, "key-1"),
            (origin | proof, "key-1"),
            (proof, "OriginRefused"),
            (same, "OriginRefused"),
            (same | {"x-csrf-token": other.csrf}, "OriginRefused"),
            (foreign | proof, "OriginRefused"),
            ({"Sec-Fetch-Site": "cross-site"} | origin | proof, "OriginRefused"),
        ):
            assert await house.decide(visit({"Cookie": cookie} | headers, method)) == decision, headers
    for method in ("GET", "HEAD"):
        assert await house.decide(visit({"Cookie": cookie} | foreign, method)) == "key-1"


async def test_a_session_is_taken_under_names_of_this_server_only() -> None:
    house = House()
    cookie, _ = await house.signed_in()
    for host, decision in ((HOST, "key-1"), ("proxy.example", "key-1"), ("evil.example", "OriginRefused")):
        assert await house.decide(visit({"Cookie": cookie, "Host": host})) == decision
    assert await house.decide(visit({"x-api-key": ADMIN, "Host": "evil.example"})) == "key-1"
    with pytest.raises(OriginRefused, match="ADMIN_HOSTS"):
        house.authenticator.check_host(visit({"Host": "evil.example"}))


# --- throttling --------------------------------------------------------------------------------------------


async def test_wrong_keys_on_admin_routes_are_throttled_and_right_ones_never() -> None:
    house = House()
    wrong, right = visit({"x-api-key": "sk-wrong-key"}), visit({"x-api-key": ADMIN})
    assert [await house.decide(wrong) for _ in range(4)] == ["Unauthenticated"] * 3 + ["TooManyAttempts"]
    assert await house.decide(right) == "key-1"
    assert await house.decide(visit({"x-api-key": USER})) == "PermissionDenied"
    assert await house.decide(wrong, Access.KEY) == "Unauthenticated"
    with pytest.raises(TooManyAttempts):
        await house.authenticator.sign_in(ADMIN, visit())


async def test_signing_in_is_throttled_by_the_clients_address() -> None:
    house = House()
    behind = Authenticator(KEYS, Doors(throttle=house.doors.throttle, trusted_proxies=("203.0.113.0/24",)))
    client = visit({"X-Forwarded-For": "198.51.100.7"})
    assert behind.address(client) == "198.51.100.7"
    assert house.authenticator.address(client) == "203.0.113.5"
    for _ in range(3):
        assert await behind.sign_in("sk-wrong-key", client) is None
    with pytest.raises(TooManyAttempts):
        await behind.sign_in(ADMIN, client)
    found = await behind.sign_in(ADMIN, visit())
    assert found is not None and found.name == "key-1"
    assert await Authenticator(KEYS).sign_in("sk-wrong-key", visit()) is None


class Lost(MemoryStore):
    async def draw(self, draws: object) -> list[Drawn]:  # of `Draw`s
        raise StoreUnavailable("connection refused")


async def test_without_the_store_a_wrong_key_is_wrong_and_signing_in_waits() -> None:
    house = House(Lost(FakeClock()))
    assert await house.decide(visit({"x-api-key": "sk-wrong-key"})) == "Unauthenticated"
    assert await house.decide(visit({"x-api-key": ADMIN})) == "key-1"
    with pytest.raises(StoreUnavailable):
        await house.authenticator.sign_in(ADMIN, visit())


async def test_a_key_made_a_moment_ago_in_another_process_works_at_once() -> None:
    keys = FixedKeys([Secret(ADMIN)])
    keys.later.append(Secret("sk-new-0001"))
    admitted = await Authenticator(keys).admit(visit({"x-api-key": "sk-new-0001"}), Access.KEY)
    assert admitted is not None and keys.refreshes == 1
    await Authenticator(keys).admit(visit({"x-api-key": ADMIN}), Access.KEY)
    assert keys.refreshes == 1, "a key that is known costs no question"


async def test_a_key_that_works_no_more_says_why_and_another_beside_it_counts() -> None:
    keys = FixedKeys([Secret(ADMIN), Secret(USER)])
    keys.useless["key-2"] = "this API key was revoked"
    with pytest.raises(Unauthenticated, match="revoked"):
        await Authenticator(keys).admit(visit({"x-api-key": USER}), Access.KEY)
    both = visit({"Authorization": f"Bearer {USER}", "x-api-key": ADMIN})
    admitted = await Authenticator(keys).admit(both, Access.KEY)
    assert admitted is not None and admitted.caller.name == "key-1"
