"""`POST /api/v2/chat/completions`: judges a request as upstream protocol §4 and §9 say, then finds its answer.

The order of refusals is ours; each refusal is the page's. What is merely odd is noted by `courtesy`, not refused.
"""

import uuid
from dataclasses import dataclass, field

import msgspec

import qwen_proxy.simulator.catalogue as catalogue
from qwen_proxy.simulator.acting import act, holding, look
from qwen_proxy.simulator.answers import Shape, compose, hidden_prompt_tokens, tokens
from qwen_proxy.simulator.auths import refused
from qwen_proxy.simulator.directives import directives_of, shaped
from qwen_proxy.simulator.frames import created, error_object
from qwen_proxy.simulator.records import SeenRequest, SimulatedChat, StoredMessage
from qwen_proxy.simulator.replies import (
    Reply,
    captcha_json,
    hang,
    in_progress,
    internal_error,
    missing_version,
    not_found,
    stream,
    unauthorized,
    validation_error,
)
from qwen_proxy.simulator.site import Site

FEATURES = {"t2i": "image", "image_edit": "image", "t2v": "video", "i2v": "video"}
"""Which quota a chat type draws on; all others are chat (§4.7 a, §6.5)."""


class Part(msgspec.Struct, frozen=True):
    """One part of a content list, as one old client sends it (§4.1)."""

    type: str
    text: str = ""


class FeatureConfig(msgspec.Struct, frozen=True):
    """The keys that change the answer (§4.2)."""

    output_schema: str | None = None
    thinking_enabled: bool = False
    thinking_format: str | None = None


class Message(msgspec.Struct, frozen=True):
    """The one message (§4.1)."""

    role: str
    content: str | list[Part]
    chat_type: str = "t2t"
    feature_config: FeatureConfig = FeatureConfig()

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content if part.type == "text")


class CompletionBody(msgspec.Struct, frozen=True):
    """What is required (§4.1, body rules); unknown keys are tolerated."""

    chat_id: str
    model: str
    messages: list[Message]
    stream: bool = False
    parent_id: str | None = None


def new_id() -> str:
    return str(uuid.uuid4())


@dataclass(slots=True)
class Generation:
    """An answer about to be sent, and the ids it goes by (§4.4 (1)).

    prompt_id is the stored user message, the frames' `parent_id`; response_id the candidate with index 0.
    """

    reply: Reply
    chat: SimulatedChat
    prompt: str = ""
    parent_id: str | None = None
    said: str = ""
    prompt_id: str = field(default_factory=new_id)
    response_id: str = field(default_factory=new_id)
    other_response_id: str = field(default_factory=new_id)

    def begin(self, now: float) -> None:
        """Store the user's message and block the chat (§3.2, §4.7 a)."""
        chat = self.chat
        chat.in_progress, chat.stop_asked, chat.updated = True, False, now
        chat.messages.append(StoredMessage(self.prompt_id, "user", self.prompt, self.parent_id))

    def end(self, busy_until: float) -> None:
        """Store the answer and free the chat, at once or, after a client that left, later (§4.9)."""
        chat = self.chat
        chat.in_progress, chat.busy_until = False, busy_until
        parts: list[object] = [{"phase": "answer", "status": "finished", "content": self.said, "extra": None}]
        chat.messages.append(StoredMessage(self.response_id, "assistant", self.said, self.prompt_id, parts))


def complete(site: Site, seen: SeenRequest) -> Reply | Generation:
    """The answer to a completion: a refusal, or a generation to be sent."""
    refusal = _refuse_headers(site, seen)
    if refusal is not None:
        return refusal
    visitor = site.visitor(seen.cookies["token"])
    refusal = refused(site, visitor)
    if refusal is not None or visitor is None:
        return refusal or unauthorized()
    if "chat_id" not in seen.query:
        return validation_error("Field required: query.chat_id")
    try:
        body = msgspec.json.decode(seen.body, type=CompletionBody)
    except msgspec.MsgspecError as error:
        return validation_error(str(error))
    chat = site.chat(body.chat_id, visitor.email)
    if chat is None or seen.query["chat_id"] != body.chat_id:
        return not_found("CHAT_NOT_FOUND: the chat does not exist.")
    refusal = _refuse_body(site, body, chat)
    if refusal is not None:
        return refusal
    return _generate(site, seen, body, chat)


def feature(chat_type: str) -> str:
    """Which quota this draws on: chat, image or video."""
    return FEATURES.get(chat_type, "chat")


def _refuse_headers(site: Site, seen: SeenRequest) -> Reply | None:
    """Headers and cookie that completions need (§4.7 a and d, §9.1, §9.2)."""
    if "timezone" not in seen.headers and site.scenario.missing_timezone != "ignore":
        return hang() if site.scenario.missing_timezone == "hang" else captcha_json()
    if not seen.headers.get("version"):
        return missing_version()
    if not seen.cookies.get("token"):
        return captcha_json() if seen.bearer else unauthorized()
    return None


def _refuse_body(site: Site, body: CompletionBody, chat: SimulatedChat) -> Reply | None:
    """The rules of §4.1 and §4.3 in their order there, then the state of the chat (§4.7 a)."""
    if len(body.messages) != 1:
        return validation_error(f"messages: exactly one message is allowed, got {len(body.messages)}")
    message = body.messages[0]
    if message.role != "user":
        return validation_error("messages[0].role: must be 'user'")
    if not body.stream and feature(message.chat_type) != "video":
        # The page only says that nobody sends anything else (§4.1) and that it stopped being honoured (§10.10).
        return validation_error("stream: must be true")
    if message.chat_type == "image_gen":
        return internal_error()
    if catalogue.find(site.scenario.models, body.model) is None:
        return not_found("Model not found")
    return in_progress() if site.is_busy(chat) else None


def _generate(site: Site, seen: SeenRequest, body: CompletionBody, chat: SimulatedChat) -> Reply | Generation:
    """A scripted reply, else one shaped by directives in the text and by the request itself."""
    message = body.messages[0]
    text = message.text
    generation = Generation(stream(), chat, text, body.parent_id or None)
    model = catalogue.find(site.scenario.models, body.model)
    scripted = _scripted(site, seen, text)
    if scripted is not None:
        generation.reply = scripted
        return generation
    config = message.feature_config
    if model is not None and model.must_think and not config.thinking_enabled:
        # §4.2: in-stream invalid_input for models that cannot skip thinking.
        generation.reply = stream(created(), error_object("invalid_input", "thinking_enabled must be true"))
        return generation
    if feature(message.chat_type) == "video":
        return internal_error()
    thinks = config.thinking_enabled and model is not None and model.thinks
    style = "detail" if config.thinking_format == "detail" else site.scenario.thinking
    scene = look(text)
    found, said = directives_of(scene.turn)
    shape = Shape(
        text=site.scenario.answer_text or _playful(body.model, said, len(chat.messages)),
        asked=said,
        thinking=style if thinks else None,
        search=site.scenario.search if message.chat_type == "search" else None,
        image=message.chat_type if feature(message.chat_type) == "image" else None,
        phases=config.output_schema == "phase",
        input_tokens=hidden_prompt_tokens(body.model) + tokens(text),
        pause_seconds=site.scenario.pause_seconds,
    )
    wanted = holding(scene, found, site.first_time)
    if any(directive.name == "once" for directive in wanted) and not site.first_time(scene.key):
        # A second try does what the model was asked to do; only what goes wrong is over.
        wanted = [directive for directive in wanted if directive.name in ("call", "agent", "json")]
    answer = shaped(shape, wanted)
    if isinstance(answer, Reply):
        return answer
    answer = act(answer, text, scene, wanted)
    generation.reply, generation.said = compose(answer), answer.text
    return generation


def _scripted(site: Site, seen: SeenRequest, text: str) -> Reply | None:
    """Take the first scripted reply that fits this account and text."""
    for index, reply in enumerate(site.scenario.replies):
        if reply.account in (None, seen.account) and (reply.text is None or reply.text in text):
            return site.scenario.replies.pop(index)
    return None


def _playful(model: str, said: str, stored_messages: int) -> str:
    """The default answer: an echo, so that a person sees what arrived."""
    words = said.split()
    echo = " ".join(words[:60]) + (" …" if len(words) > 60 else "")
    turn = f" This is turn {stored_messages // 2 + 1} of our chat." if stored_messages else ""
    heard = f"You said: “{echo}”" if words else "You said nothing"
    return f"{heard}. I am {model}, simulated: no model was asked, and every word here is make-believe.{turn}"
