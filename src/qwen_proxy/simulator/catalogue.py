"""The model list of the simulated site: as printed in upstream protocol §2.3, and helpers to spoil it."""

from collections.abc import Sequence
from importlib.resources import files

import msgspec

Model = dict[str, object]
"""One entry as it goes over the wire (§2.2)."""


class ThinkSkip(msgspec.Struct, frozen=True):
    enable: bool = True


class Abilities(msgspec.Struct, frozen=True):
    thinking: int = 0


class Meta(msgspec.Struct, frozen=True):
    abilities: Abilities = Abilities()
    think_skip: ThinkSkip = ThinkSkip()


class Info(msgspec.Struct, frozen=True):
    meta: Meta = Meta()
    is_active: bool = True


class Known(msgspec.Struct, frozen=True):
    """What the simulator itself reads of an entry (§2.2)."""

    id: str
    info: Info = Info()

    @property
    def thinks(self) -> bool:
        return self.info.meta.abilities.thinking > 0

    @property
    def must_think(self) -> bool:
        """Thinking cannot be switched off (§2.2, `think_skip.enable` false)."""
        return not self.info.meta.think_skip.enable


def default_models() -> list[Model]:
    """A fresh copy of the list of §2.3, in the upstream's order."""
    text = files("qwen_proxy.simulator").joinpath("models.json").read_bytes()
    return msgspec.json.decode(text, type=list[Model])


def find(models: Sequence[Model], model_id: str) -> Known | None:
    """The active entry with this id, if the list has one."""
    for model in models:
        if model.get("id") == model_id:
            known = msgspec.convert(model, Known)
            return known if known.info.is_active else None
    return None


def plain(model_id: str, *, active: bool = True) -> Model:
    """An entry without `info.meta`; inactive on request (§12.1, 2)."""
    info = {"id": model_id, "name": model_id.title(), "is_active": active, "is_visitor_active": False}
    return {"id": model_id, "name": model_id.title(), "object": "model", "owned_by": "qwen", "info": info}
