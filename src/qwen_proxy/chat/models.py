"""Model names: what a client asks for, taken apart into an upstream id and what it wants of it."""

from enum import StrEnum
from typing import Final

from msgspec import Struct


class Mode(StrEnum):
    """What a reply is made of. The values are our words; an upstream's own are in its adapter."""

    CHAT = "chat"
    IMAGE = "image"
    IMAGE_EDIT = "image_edit"
    VIDEO = "video"
    DEEP_RESEARCH = "deep_research"


class Variant(Struct, frozen=True):
    """What a suffix of a public model name asks for (upstream protocol §2.4)."""

    thinking: bool = False
    search: bool = False
    mode: Mode = Mode.CHAT


PLAIN: Final = Variant()

# Longest first, so that `-thinking-search` is not read as `-search` behind an id that ends in `-thinking`.
SUFFIXES: Final[tuple[tuple[str, Variant], ...]] = (
    ("-thinking-search", Variant(thinking=True, search=True)),
    ("-deep-research", Variant(mode=Mode.DEEP_RESEARCH)),
    ("-image-edit", Variant(mode=Mode.IMAGE_EDIT)),
    ("-thinking", Variant(thinking=True)),
    ("-search", Variant(search=True)),
    ("-image", Variant(mode=Mode.IMAGE)),
    ("-video", Variant(mode=Mode.VIDEO)),
)


class ModelName(Struct, frozen=True):
    """`base` is the upstream's own id; `variant` what the client's spelling added to it."""

    base: str
    variant: Variant = PLAIN


class Model(Struct, frozen=True, kw_only=True):
    """One model of the catalogue. Sizes are tokens, None where the upstream does not say."""

    id: str
    display_name: str
    description: str = ""
    created_at: int = 0
    thinks: bool = False
    can_skip_thinking: bool = True
    searches: bool = False
    sees_images: bool = False
    modes: frozenset[Mode] = frozenset((Mode.CHAT,))
    context_tokens: int | None = None
    output_tokens: int | None = None

    def names(self, variant: Variant) -> tuple[str, ...]:
        """All that it may be called when it is asked for so, the fullest first."""
        suffix = suffix_of(variant)
        return tuple(dict.fromkeys((self.id + suffix, self.display_name + suffix, self.id, self.display_name)))

    def variants(self) -> list[tuple[str, Variant]]:
        """The suffixes this model is listed under, in the order of §2.4; `-deep-research` is never listed."""
        listed = [("", PLAIN)]
        if self.thinks:
            listed.append(("-thinking", Variant(thinking=True)))
        if self.searches:
            listed.append(("-search", Variant(search=True)))
        if self.thinks and self.searches:
            listed.append(("-thinking-search", Variant(thinking=True, search=True)))
        listed += [
            (suffix, Variant(mode=mode))
            for suffix, mode in (
                ("-image", Mode.IMAGE),
                ("-video", Mode.VIDEO),
                ("-image-edit", Mode.IMAGE_EDIT),
            )
            if mode in self.modes
        ]
        return listed


def suffix_of(variant: Variant) -> str:
    """What a name ends with for it; empty where nothing says it."""
    return next((suffix for suffix, each in SUFFIXES if each == variant), "")


def split_suffix(name: str) -> tuple[str, Variant]:
    """Take one suffix off the end of a name, in any case. Match whole ids before: `qwen-image` is an id."""
    folded = name.casefold()
    for suffix, variant in SUFFIXES:
        if folded.endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], variant
    return name, PLAIN
