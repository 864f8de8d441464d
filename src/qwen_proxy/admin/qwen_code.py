"""/api/admin/qwen-code: sign-ins at Qwen Code. No token, and no code but the one that a person types, is ever told."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from qwen_proxy.accounts.key_health import KeyState
from qwen_proxy.admin.qwen_code_desk import Progress, QwenCodeDesk, SignedIn
from qwen_proxy.admin.reading import Nothing
from qwen_proxy.admin.routing import AdminRoute, Call, route

PATH = "/api/admin/qwen-code"
TAG = "qwen-code"


class SignInBody(Struct, frozen=True, kw_only=True):
    """state: "ended" where it has no tokens any more; retired: its tokens are refused. reason: a clause, empty where
    all is well. account: of the site, which approved it; empty for whoever did so in a browser. service: the address
    that it is good for. expires_at: of its token, which is renewed before. until: when it is used again by itself."""

    id: str
    label: str
    account: str
    state: Literal["ready", "out_of_quota", "throttled", "retired", "ended"]
    reason: str
    service: str
    in_use: int
    added_at: float
    expires_at: float | None
    until: float | None


class QwenCodeBody(Struct, frozen=True, kw_only=True):
    """enabled: QWEN_CODE_ENABLED. notice: what is to be known about the service."""

    enabled: bool
    notice: str
    models: tuple[str, ...]
    sign_ins: tuple[SignInBody, ...]


class BeginBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """label: what to call it. account: an account of this server which approves the sign-in with its own token; empty:
    a person does, on the page that the answer names."""

    label: Annotated[str, Meta(max_length=100)] = ""
    account: Annotated[str, Meta(max_length=320)] = ""


class BegunBody(Struct, frozen=True, kw_only=True):
    """uri: the page, complete_uri: the same with the code in it. Poll after wait_seconds."""

    id: str
    user_code: str
    uri: str
    complete_uri: str
    expires_at: float
    wait_seconds: float


class ProgressBody(Struct, frozen=True, kw_only=True):
    """reason: why it failed. sign_in: once it is done."""

    state: Progress
    reason: str
    wait_seconds: float
    sign_in: SignInBody | None


class TriedBody(Struct, frozen=True, kw_only=True):
    """problem: empty where a short chat was answered."""

    id: str
    model: str
    problem: str
    sign_in: SignInBody


class QwenCodeRoutes:
    def __init__(self, desk: QwenCodeDesk) -> None:
        self._desk = desk

    def table(self) -> tuple[AdminRoute, ...]:
        one = f"{PATH}/{{id}}"
        return (
            route("GET", PATH, "Sign-ins at Qwen Code, and how they are", self.all, tag=TAG),
            route("POST", f"{PATH}/logins", "Begin a sign-in (device flow)", self.begin, tag=TAG, status=201),
            route("POST", f"{PATH}/logins/{{id}}/poll", "Whether it was approved", self.poll, tag=TAG),
            route("POST", f"{one}/test", "Ask one short question with a sign-in", self.test, tag=TAG),
            route("DELETE", one, "Forget a sign-in", self.remove, tag=TAG),
        )

    async def all(self, call: Call[Nothing, Nothing]) -> QwenCodeBody:
        return QwenCodeBody(
            enabled=self._desk.is_enabled,
            notice=self._desk.notice,
            models=self._desk.models,
            sign_ins=tuple(_body(each) for each in await self._desk.all()),
        )

    async def begin(self, call: Call[Nothing, BeginBody]) -> BegunBody:
        begun = await self._desk.begin(call.by, label=call.body.label, account=call.body.account)
        return BegunBody(
            id=begun.id,
            user_code=begun.user_code,
            uri=begun.uri,
            complete_uri=begun.complete_uri,
            expires_at=begun.expires_at,
            wait_seconds=begun.wait_seconds,
        )

    async def poll(self, call: Call[Nothing, Nothing]) -> ProgressBody:
        """Asks the site at most as often as it wants to be asked, however often this is called."""
        polled = await self._desk.poll(call.by, call.path["id"])
        return ProgressBody(
            state=polled.state,
            reason=polled.reason,
            wait_seconds=polled.wait_seconds,
            sign_in=None if polled.signed_in is None else _body(polled.signed_in),
        )

    async def test(self, call: Call[Nothing, Nothing]) -> TriedBody:
        tried = await self._desk.test(call.path["id"])
        return TriedBody(id=call.path["id"], model=tried.model, problem=tried.problem, sign_in=_body(tried.signed_in))

    async def remove(self, call: Call[Nothing, Nothing]) -> None:
        await self._desk.remove(call.by, call.path["id"])


def _body(signed_in: SignedIn) -> SignInBody:
    grant, report = signed_in.grant, signed_in.report
    state = KeyState.READY if report is None else report.state
    return SignInBody(
        id=signed_in.id,
        label=grant.label,
        account=grant.account,
        state="ended" if grant.ended else state.value,
        reason=grant.ended or ("" if report is None else report.reason),
        service=signed_in.service,
        in_use=0 if report is None else report.in_use,
        added_at=grant.added_at,
        expires_at=None if grant.ended else grant.expires_at,
        until=None if report is None else report.until,
    )
