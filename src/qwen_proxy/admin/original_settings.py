"""The original project's routes for settings and keys, and /verify. Source: upstream protocol §10.2, §10.5.

Keys are shown by their hints. A change of settings is kept here, and goes to every worker; there it was forgotten with
the process.
"""

from collections.abc import Awaitable, Callable, Mapping
from math import ceil
from typing import Final

from aiohttp import web
from msgspec import UNSET

from qwen_proxy.admin.audit import audit_line
from qwen_proxy.admin.keys import telling
from qwen_proxy.admin.original_bodies import (
    AutoRefreshBody,
    ConcurrencyBody,
    GivenKeyBody,
    LegacyReasoningBody,
    OutThinkBody,
    PersistedBody,
    RetryBody,
    RetryStatusBody,
    SearchInfoBody,
    SettingsView,
    SimpleModelMapBody,
    StatusBody,
    VerifiedBody,
    VerifyBody,
)
from qwen_proxy.admin.reading import Nothing
from qwen_proxy.admin.routing import AdminRoute, B, Call, json_response, raw_route, route
from qwen_proxy.admin.settings import as_text
from qwen_proxy.config.keybook import KeyBook, NewKey
from qwen_proxy.config.keys import ClientKey, KeyStatus, Role
from qwen_proxy.config.runtime import LiveSettings
from qwen_proxy.ground.errors import InvalidRequest, NotFound, TooManyAttempts, Unauthenticated
from qwen_proxy.ground.secret import Secret
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.serving.auth import Access, Authenticator
from qwen_proxy.serving.endpoint import visit_of

TAG: Final = "original"


class OriginalSettings:
    """catch_up: after a change of keys this process knows of it too."""

    def __init__(
        self,
        live: LiveSettings,
        book: KeyBook,
        authenticator: Authenticator,
        catch_up: Callable[[], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._live = live
        self._book = book
        self._authenticator = authenticator
        self._catch_up = catch_up
        self._clock = clock

    def table(self) -> tuple[AdminRoute, ...]:
        verify = "Whether a key works, and is an admin's"
        return (
            raw_route("POST", "/verify", verify, self.verify, tag=TAG, answer=VerifiedBody, access=Access.OPEN),
            route("GET", "/api/settings", "Settings, and the hints of keys", self.show, tag=TAG),
            route("POST", "/api/addRegularKey", "Add a key of your own", self.add_key, tag=TAG),
            route("POST", "/api/deleteRegularKey", "Delete a key, by itself or its hint", self.delete_key, tag=TAG),
            route("POST", "/api/setAutoRefresh", "AUTO_REFRESH", self.auto_refresh, tag=TAG),
            route("POST", "/api/setBatchLoginConcurrency", "BATCH_LOGIN_CONCURRENCY", self.concurrency, tag=TAG),
            route("POST", "/api/setOutThink", "OUTPUT_THINK", self.out_think, tag=TAG),
            route("POST", "/api/setLegacyReasoning", "LEGACY_REASONING_IN_CONTENT", self.legacy_reasoning, tag=TAG),
            route("POST", "/api/search-info-mode", "SEARCH_INFO_MODE", self.search_info, tag=TAG),
            route("POST", "/api/simple-model-map", "SIMPLE_MODEL_MAP", self.simple_model_map, tag=TAG),
            route("POST", "/api/setRetryConfig", "CHAT_RETRY_COUNT, CHAT_RETRY_BACKOFF_MS", self.retry, tag=TAG),
        )

    # --- keys

    async def verify(self, call: Call[Nothing, VerifyBody]) -> web.StreamResponse:
        try:
            caller = await self._authenticator.sign_in(call.body.api_key.strip(), visit_of(call.exchange.http))
        except Unauthenticated:  # of a key that works no more
            caller = None
        except TooManyAttempts as error:
            response = json_response(429, VerifiedBody(429, str(error)))
            response.headers["Retry-After"] = str(max(1, ceil(error.retry_after_seconds or 0)))
            return response
        if caller is None:
            return json_response(401, VerifiedBody(401, "Unauthorized"))
        return json_response(200, VerifiedBody(200, "success", caller.role is Role.ADMIN))

    async def add_key(self, call: Call[Nothing, GivenKeyBody]) -> PersistedBody:
        """Raises InvalidRequest, AlreadyExists."""
        given = _given(call.body)
        await self._book.create(NewKey(), telling(call.by, "key.create"), given=Secret(given))
        await self._catch_up()
        return PersistedBody("The key was added.")

    async def delete_key(self, call: Call[Nothing, GivenKeyBody]) -> PersistedBody:
        """Raises InvalidRequest, NotFound, and PermissionDenied for the admin key."""
        key = await self._meant(_given(call.body))
        await self._book.delete(key.id, telling(call.by, "key.delete"))
        await self._catch_up()
        return PersistedBody("The key was deleted.")

    async def _meant(self, text: str) -> ClientKey:
        keys = await self._book.all()
        own = [key for key in keys if key.id in (text, self._book.id_of(text))]
        found = own or [key for key in keys if key.record.hint == text]
        if not found:
            raise NotFound("such key")
        if len(found) > 1:
            raise InvalidRequest("several keys have this hint; send the key itself, or its id", param="apiKey")
        return found[0]

    # --- settings

    async def show(self, call: Call[Nothing, Nothing]) -> SettingsView:
        current, now = self._live.current, self._clock.now()
        keys = [key.record for key in await self._book.all() if key.record.status(now) is KeyStatus.ACTIVE]
        return SettingsView(
            admin_key=next((record.hint for record in keys if record.is_environment_admin), None),
            regular_keys=tuple(record.hint for record in keys if record.role is Role.USER),
            auto_refresh=current.auto_refresh,
            auto_refresh_interval=current.auto_refresh_interval_seconds,
            batch_login_concurrency=current.batch_login_concurrency,
            out_think=current.output_think,
            legacy_reasoning_in_content=current.legacy_reasoning_in_content,
            search_info_mode=current.search_info.value,
            simple_model_map=current.simple_model_map,
            chat_retry_count=current.chat_retry_count,
            chat_retry_backoff_ms=current.chat_retry_backoff_ms,
        )

    async def auto_refresh(self, call: Call[Nothing, AutoRefreshBody]) -> StatusBody:
        values: dict[str, bool | int | str] = {"AUTO_REFRESH": call.body.auto_refresh}
        if call.body.auto_refresh_interval is not UNSET:
            values["AUTO_REFRESH_INTERVAL"] = call.body.auto_refresh_interval
        return await self._set(call, values)

    async def concurrency(self, call: Call[Nothing, ConcurrencyBody]) -> StatusBody:
        return await self._set(call, {"BATCH_LOGIN_CONCURRENCY": call.body.batch_login_concurrency})

    async def out_think(self, call: Call[Nothing, OutThinkBody]) -> StatusBody:
        return await self._set(call, {"OUTPUT_THINK": call.body.out_think})

    async def legacy_reasoning(self, call: Call[Nothing, LegacyReasoningBody]) -> StatusBody:
        return await self._set(call, {"LEGACY_REASONING_IN_CONTENT": call.body.legacy_reasoning_in_content})

    async def search_info(self, call: Call[Nothing, SearchInfoBody]) -> StatusBody:
        return await self._set(call, {"SEARCH_INFO_MODE": call.body.search_info_mode})

    async def simple_model_map(self, call: Call[Nothing, SimpleModelMapBody]) -> StatusBody:
        return await self._set(call, {"SIMPLE_MODEL_MAP": call.body.simple_model_map})

    async def retry(self, call: Call[Nothing, RetryBody]) -> RetryStatusBody:
        values: dict[str, bool | int | str] = {}
        if call.body.chat_retry_count is not UNSET:
            values["CHAT_RETRY_COUNT"] = call.body.chat_retry_count
        if call.body.chat_retry_backoff_ms is not UNSET:
            values["CHAT_RETRY_BACKOFF_MS"] = call.body.chat_retry_backoff_ms
        if not values:
            raise InvalidRequest("`chatRetryCount` or `chatRetryBackoffMs` is missing", param="chatRetryCount")
        done = await self._set(call, values)
        return RetryStatusBody(done.status, done.message, persisted=True)

    async def _set(self, call: Call[Nothing, B], values: Mapping[str, bool | int | str]) -> StatusBody:
        """Raises InvalidRequest, which names our own variable."""
        texts = {name: as_text(value) for name, value in values.items()}
        line = audit_line(call.by, "settings.change", details=texts)
        await self._live.change(texts, line, by=call.by.key_name, request_id=call.by.request_id)
        return StatusBody(True, "The settings were changed.")


def _given(body: GivenKeyBody) -> str:
    if not body.api_key.strip():
        raise InvalidRequest("`apiKey` is missing", param="apiKey")
    return body.api_key.strip()
