"""What an upstream lacks, added to it by prompt: tools, and formats of output."""

from msgspec import Struct

from qwen_proxy.config.settings import Settings
from qwen_proxy.gateway.prompted_tools import PromptedTools, ToolOptions
from qwen_proxy.gateway.structured import StructuredOutput
from qwen_proxy.runtime.ids import Ids
from qwen_proxy.upstreams.base import Upstream


class Prompted(Struct, frozen=True):
    """`upstream` has both; `tools` and `output` are None where it had them itself."""

    upstream: Upstream
    tools: PromptedTools | None
    output: StructuredOutput | None

    def apply(self, settings: Settings) -> None:
        """Requests under way go on as they began."""
        if self.tools is not None:
            self.tools.options = tool_options(settings)
        if self.output is not None:
            self.output.streams = settings.stream_structured_output


def prompted(upstream: Upstream, ids: Ids, settings: Settings) -> Prompted:
    tools = output = None
    if not upstream.has_native_tools:
        upstream = tools = PromptedTools(upstream, ids, tool_options(settings))
    if not upstream.has_native_output:
        upstream = output = StructuredOutput(upstream, streams=settings.stream_structured_output)
    return Prompted(upstream, tools, output)


def tool_options(settings: Settings) -> ToolOptions:
    return ToolOptions(
        result_bytes=settings.max_tool_result_bytes,
        forms_off=frozenset(form.value for form in settings.tool_forms_off),
    )
