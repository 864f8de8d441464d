"""Settings that are one of a few words."""

from enum import StrEnum


class SearchInfo(StrEnum):
    """How search results are told in the text of a reply (upstream protocol §5.2); annotations come in any case."""

    TABLE = "table"
    TEXT = "text"
    NONE = "none"


class ModelNames(StrEnum):
    """Which of a model's two names is its `id` in GET /v1/models."""

    DISPLAY = "display"
    ID = "id"


class SimulatorUse(StrEnum):
    """AUTO: when there is no account and no QWEN_CHAT_PROXY_URL."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Strategy(StrEnum):
    """Which account is taken next, among those of the highest priority that can be (accounts/ordering.py)."""

    LEAST_LOADED = "least_loaded"  # fewest replies under way, then longest since it was last used
    ROUND_ROBIN = "round_robin"  # longest since it was last taken, whatever it does now
    FILL_FIRST = "fill_first"  # the one added first, until it can't be taken
    WEIGHTED = "weighted"  # each as often as its weight says
    SESSION = "session"  # a session's own account while that can be taken; without a session as least_loaded


class ToolForm(StrEnum):
    """Forms of calls that are read without being taught (toolcalls/reading.py)."""

    TOOL_CALL = "tool_call"
    FUNCTION = "function"
    INVOKE = "invoke"
    BRACKET = "bracket"
    BARE = "bare"
    NATIVE = "native"


class SaveMode(StrEnum):
    NONE = "none"
    FILE = "file"
    REDIS = "redis"


class CacheMode(StrEnum):
    DEFAULT = "default"
    FILE = "file"


class LogLevel(StrEnum):
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARN = "WARN"
    ERROR = "ERROR"


class LogFormat(StrEnum):
    """AUTO is TEXT on a terminal, else JSON."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"
