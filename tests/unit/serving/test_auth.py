"""One decision for every carrier of a key."""

import pytest

from qwen_proxy.config.credentials import Keys, Role
from qwen_proxy.ground.errors import PermissionDenied, Unauthenticated
from qwen_proxy.ground.secret import Secret
from qwen_proxy.serving.auth import Authenticator

AUTHENTICATOR = Authenticator(Keys([Secret("sk-admin-0001"), Secret("sk-user-0001")]))

CARRIERS: list[dict[str, str]] = [
    {"Authorization": "Bearer KEY"},
    {"Authorization": "bearer   KEY "},
    {"Authorization": "KEY"},
    {"x-api-key": "KEY"},
    {"Authorization": "Bearer dummy", "x-api-key": "KEY"},
]


def carried(carrier: dict[str, str], key: str) -> dict[str, str]:
    return {name: value.replace("KEY", key) for name, value in carrier.items()}


@pytest.mark.parametrize("carrier", CARRIERS)
def test_every_carrier_gives_the_same_decision(carrier: dict[str, str]) -> None:
    assert AUTHENTICATOR.identify(carried(carrier, "sk-admin-0001")).role is Role.ADMIN
    assert AUTHENTICATOR.identify(carried(carrier, "sk-user-0001")).role is Role.USER
    for wrong in ("sk-user-0002", "", "' OR 1=1 --", "x" * 10_000, "kéy"):
        with pytest.raises(Unauthenticated):
            AUTHENTICATOR.identify(carried(carrier, wrong))


def test_without_a_key_nobody_is_let_in() -> None:
    with pytest.raises(Unauthenticated):
        AUTHENTICATOR.identify({})


def test_an_admin_route_takes_the_admin_key_only() -> None:
    assert AUTHENTICATOR.require_admin({"x-api-key": "sk-admin-0001"}).role is Role.ADMIN
    with pytest.raises(PermissionDenied):
        AUTHENTICATOR.require_admin({"x-api-key": "sk-user-0001"})
    with pytest.raises(Unauthenticated):
        AUTHENTICATOR.require_admin({"x-api-key": "sk-user-0002"})
