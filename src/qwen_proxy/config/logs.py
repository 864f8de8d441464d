"""What the settings mean for the log of one process."""

from typing import TextIO

from qwen_proxy.config.choices import LogFormat
from qwen_proxy.config.settings import Settings
from qwen_proxy.ground.redact import redacted
from qwen_proxy.runtime.logs import LogOptions

FILE_NAME = "qwen-proxy.log"


def log_options(settings: Settings, source: str, stream: TextIO) -> LogOptions:
    """`source` names the process on each line, such as `worker-1`; `stream` is where its lines go."""
    as_text = settings.log_format is LogFormat.TEXT or (settings.log_format is LogFormat.AUTO and stream.isatty())
    return LogOptions(
        level=settings.log_level.value,
        form="text" if as_text else "json",
        source=source,
        file=settings.log_dir / FILE_NAME if settings.file_log else None,
        max_bytes=settings.max_log_file_bytes,
        files=settings.max_log_files,
        redact=redacted,
    )
