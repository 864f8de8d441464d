"""One backend's models, by every spelling that a client may use for them. Pure."""

from collections.abc import Sequence

from qwen_proxy.chat.models import Model


class Catalogue:
    """Immutable. An id wins over a readable name; case does not count."""

    def __init__(self, models: Sequence[Model]) -> None:
        self.models = tuple(models)
        self._by_spelling: dict[str, Model] = {}
        for model in models:
            self._by_spelling.setdefault(model.id.casefold(), model)
        for model in models:
            self._by_spelling.setdefault(model.display_name.casefold(), model)

    def named(self, folded: str) -> Model | None:
        """By its whole id or readable name, casefolded."""
        return self._by_spelling.get(folded)
