"""Records one real exchange with the upstream, redacted, in the form of tests/recordings/."""

from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from qwen_proxy.accounts.model import DIRECT
from qwen_proxy.app.commons import open_commons
from qwen_proxy.app.door import transport_options, web_options
from qwen_proxy.app.machine import Machine
from qwen_proxy.chat.request import ChatRequest, Message, Role, TextPart
from qwen_proxy.config.settings import Settings
from qwen_proxy.gateway.backend import WEB
from qwen_proxy.gateway.model_list import Catalogue
from qwen_proxy.gateway.routing import Directory, Listed, Naming
from qwen_proxy.ground.errors import NoAccountUsable, ProxyError
from qwen_proxy.operations.places import own_place
from qwen_proxy.operations.upstream import open_destination
from qwen_proxy.runtime.clock import Clock
from qwen_proxy.runtime.ids import Ids
from qwen_proxy.upstreams.qwen_web.client import QwenWeb
from qwen_proxy.upstreams.qwen_web.codec import ReplyCodec
from qwen_proxy.upstreams.qwen_web.drift import Drift
from qwen_proxy.upstreams.qwen_web.login import SignIn
from qwen_proxy.upstreams.qwen_web.recorder import Exchange, redact
from qwen_proxy.upstreams.qwen_web.site import Site
from qwen_proxy.upstreams.transport import Transport


class Wish(Struct, frozen=True, kw_only=True):
    """model: empty takes the upstream's first; suffixes such as -thinking work."""

    prompt: str
    model: str = ""


class Captured(Struct, frozen=True, kw_only=True):
    """failure: how the exchange failed, which is worth a recording all the same; empty when it did not.

    is_simulated: it came from the built-in simulator, and says nothing about the site.
    """

    exchange: Exchange
    failure: str = ""
    is_simulated: bool = False


async def capture(settings: Settings, wish: Wish, clock: Clock, ids: Ids) -> Captured:
    """Sign in with the first account, ask once, and keep what came. Raises ProxyError when nothing did."""
    machine = Machine(clock, ids)
    async with (
        open_commons(own_place(settings, ids), machine) as commons,
        open_destination(settings, commons, machine) as destination,
        Transport(clock, transport_options(destination.settings)) as transport,
    ):
        kept = [stored.account for stored in await commons.book.all() if stored.account.enabled]
        if not kept:
            raise NoAccountUsable("there is no account: set ACCOUNTS to email:password")
        account = replace(kept[0], exit=kept[0].exit or destination.settings.proxy_url or DIRECT)
        options = web_options(destination.settings, destination.base_url)
        site = Site(transport, clock, ids, Drift(clock.now), options)
        credential = await SignIn(site)(account)
        deadline = clock.monotonic() + settings.request_deadline_seconds
        async with QwenWeb(site) as upstream:
            models = await upstream.models(credential, deadline)
            listed = Listed(backend=WEB, catalogue=Catalogue(models))
            target = Directory([listed], Naming(aliases=settings.model_map)).find(wish.model).targets[0]
            request = ChatRequest(model=target.name, messages=(Message(Role.USER, (TextPart(wish.prompt),)),))
            exchange = await upstream.capture(request, target.model, credential, deadline)
    hidden = [secret.reveal() for secret in (account.password, account.cookies) if secret is not None]
    exchange = replace(exchange, secrets=(*exchange.secrets, account.email, *hidden))
    return Captured(exchange=exchange, failure=_failure(exchange, site.drift), is_simulated=destination.is_simulated)


def save(captured: Captured, folder: Path, name: str, *, keep_text: bool) -> list[Path]:
    """Redact and write; the files. Raises OSError, FileExistsError rather than overwrite one."""
    folder.mkdir(parents=True, exist_ok=True)
    recording = redact(captured.exchange, keep_text)
    if captured.is_simulated:
        recording = replace(recording, facts=replace(recording.facts, source="simulated"))
    return recording.write(folder, name)


def _failure(exchange: Exchange, drift: Drift) -> str:
    """How reading it again fails; empty when it does not."""
    codec = ReplyCodec(drift)
    try:
        for chunk in exchange.chunks:
            codec.feed(chunk)
        codec.finish()
    except ProxyError as error:
        return str(error)
    return "" if codec.failure is None else str(codec.failure)
