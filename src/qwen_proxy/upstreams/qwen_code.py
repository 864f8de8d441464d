"""Qwen Code: its sign-in, and its service as an Upstream. Source: upstream protocol §8; what is said is in
`qwen_code_wire`."""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from msgspec import Struct

from qwen_proxy import __version__
from qwen_proxy.accounts.model import DIRECT, Credential, Tokens
from qwen_proxy.chat.models import Model
from qwen_proxy.chat.request import ChatRequest
from qwen_proxy.config.backends import Thinking
from qwen_proxy.ground.errors import ProxyError
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.ids import Ids
from qwen_proxy.upstreams.base import ApiOptions
from qwen_proxy.upstreams.openai_api.errors import Told
from qwen_proxy.upstreams.openai_compatible import OpenAICompatible
from qwen_proxy.upstreams.qwen_code_wire import (
    Device,
    Waiting,
    base_of,
    device_form,
    judged,
    poll_form,
    portal_headers,
    prepared,
    read_approval,
    read_device,
    read_poll,
    read_refresh,
    refresh_form,
    verifier_of,
)
from qwen_proxy.upstreams.refusals import refuse_log_probabilities
from qwen_proxy.upstreams.transport import Response, Transport

DEVICE_CODE: Final = "/api/v1/oauth2/device/code"
TOKEN: Final = "/api/v1/oauth2/token"
AUTHORIZE: Final = "/api/v2/oauth2/authorize"
ACTUAL_STATUS: Final = "x-actual-status-code"
VERIFIER_BYTES: Final = 32
CALL_SECONDS: Final = 30.0


class QwenCodeOptions(Struct, frozen=True, kw_only=True):
    """chat_base_url: where sign-ins are made. usual_base: of the service, where a sign-in told none. fixed_base: holds
    whatever a sign-in told; empty for none. agent: how the official client names itself to the service."""

    chat_base_url: str
    usual_base: str
    agent: str
    fixed_base: str = ""
    exit: str = DIRECT


class Beginning(Struct, frozen=True, kw_only=True):
    """A sign-in that waits for its owner. verifier: the secret half of PKCE."""

    device: Device
    verifier: Secret


class DeviceSignIn:
    """The device flow. Every method raises ProxyError."""

    def __init__(self, transport: Transport, options: QwenCodeOptions, *, ids: Ids) -> None:
        self._transport = transport
        self._options = options
        self._ids = ids

    async def begin(self) -> Beginning:
        verifier = verifier_of(bytes.fromhex(self._ids.token(2 * VERIFIER_BYTES)))
        response = await self._form(DEVICE_CODE, device_form(verifier), self._options.exit)
        return Beginning(device=read_device(response.status, response.body), verifier=Secret(verifier))

    async def poll(self, beginning_code: Secret, verifier: Secret) -> Tokens | Waiting:
        """CredentialRejected: it is over."""
        response = await self._form(TOKEN, poll_form(beginning_code, verifier), self._options.exit)
        return read_poll(response.status, response.body)

    async def refresh(self, refresh_token: Secret) -> Tokens:
        """CredentialRejected: the refresh token is dead."""
        response = await self._form(TOKEN, refresh_form(refresh_token), self._options.exit)
        return read_refresh(response.status, response.body)

    async def approve(self, account: Credential, user_code: str) -> None:
        """In the name of an account of the site, by its own token, as its owner would on the page (§8.2)."""
        response = await self._transport.request(
            account.exit,
            "POST",
            self._url(AUTHORIZE),
            headers=self._headers("application/json") | {"authorization": f"Bearer {account.token.reveal()}"},
            body=msgspec.json.encode({"approved": True, "user_code": user_code}),
            timeout_seconds=CALL_SECONDS,
        )
        read_approval(_effective(response), response.body)

    async def _form(self, path: str, form: bytes, exit: str) -> Response:
        return await self._transport.request(
            exit,
            "POST",
            self._url(path),
            headers=self._headers("application/x-www-form-urlencoded"),
            body=form,
            timeout_seconds=CALL_SECONDS,
        )

    def _headers(self, content_type: str) -> dict[str, str]:
        """Without a User-Agent the site refuses (§8.1); this is ours."""
        return {
            "accept": "application/json",
            "content-type": content_type,
            "x-request-id": self._ids.uuid(),
            "user-agent": f"qwen-proxy/{__version__}",
        }

    def _url(self, path: str) -> str:
        return self._options.chat_base_url.rstrip("/") + path


class QwenCode(OpenAICompatible):
    """The service. resource_of: what the sign-in with this id told as the service's address, empty for nothing."""

    def __init__(
        self,
        transport: Transport,
        options: QwenCodeOptions,
        resource_of: Callable[[str], str],
        *,
        name: str,
        models: tuple[str, ...],
        clock: Clock,
        ids: Ids,
    ) -> None:
        own = ApiOptions(
            name=name,
            base_url=base_of(options.fixed_base, options.usual_base),
            models=models,
            thinking=Thinking.DASHSCOPE,
            exit=options.exit,
        )
        super().__init__(transport, own, clock=clock, ids=ids)
        self._qwen = options
        self._resource_of = resource_of
        self._new_id = ids.uuid
        self._session_id = ids.uuid()

    def check(self, request: ChatRequest) -> None:
        refuse_log_probabilities(request.sampling)
        super().check(request)

    def _body(self, request: ChatRequest, model: Model) -> bytes:
        return prepared(request, model, self._session_id, self._new_id)

    def _chat_url(self, credential: Credential) -> str:
        return self.base_of(self._resource_of(credential.account_id)) + "/chat/completions"

    def base_of(self, resource_url: str) -> str:
        """Where a sign-in with this resource is good."""
        return base_of(self._qwen.fixed_base or resource_url, self._qwen.usual_base)

    def _headers(self, credential: Credential | None, accept: str) -> dict[str, str]:
        return super()._headers(credential, accept) | portal_headers(self._qwen.agent)

    def _judge(self, told: Told | None, model_id: str) -> ProxyError:
        return judged(told, model_id)


def _effective(response: Response) -> int:
    told: Mapping[str, str] = response.headers
    said = told.get(ACTUAL_STATUS, "")
    return int(said) if said.isascii() and said.isdigit() else response.status
