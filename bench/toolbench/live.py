"""How often real models keep to the taught form, measured on an operator's own gateway.

Every task is asked through the gateway in OpenAI's form, one at a time; the request's trace, where the gateway has one,
tells the form and the reader. Nothing but the table is kept.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from bench.toolbench import payloads
from bench.toolbench.kit import Arguments
from bench.toolbench.tasks import TASKS, Calls, Task

TIMEOUT_SECONDS = 300.0
TRACE_SECONDS = 1.5  # after which another process of the gateway knows of a request, too


@dataclass(frozen=True)
class Gateway:
    """Where it is (with `/v1`), its key, and how long to rest between two requests."""

    url: str
    key: str
    pause_seconds: float = 2.0
    simulated: bool = False


@dataclass(frozen=True)
class Outcome:
    """What one task came to. result: `good`, `wrong`, `no call`, or `error 502` and the like.

    taught: the form that was taught. written: the forms that calls came in. mended: repairs, and verdicts that made the
    gateway ask again. All as the trace has it; empty without one.
    """

    model: str
    padding_kb: int
    task: str
    result: str
    taught: str = ""
    written: tuple[str, ...] = ()
    tries: int = 0
    mended: tuple[str, ...] = ()

    @property
    def obeyed(self) -> bool:
        """Good at the first try, in the form that was taught, with nothing to mend."""
        return self.result == "good" and self.tries == 1 and not self.mended and set(self.written) <= {"taught"}


async def ask_all(gateway: Gateway, models: Sequence[str], paddings_kb: Sequence[int], times: int) -> list[Outcome]:
    """Every task for every model and length, so many times."""
    found: list[Outcome] = []
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    headers = {"Authorization": f"Bearer {gateway.key}"}
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as http:
        for model in models:
            for padding_kb in paddings_kb:
                for task in TASKS * times:
                    found.append(await _ask(http, gateway, model, padding_kb, task))
                    await asyncio.sleep(gateway.pause_seconds)
    return found


async def _ask(http: aiohttp.ClientSession, gateway: Gateway, model: str, padding_kb: int, task: Task) -> Outcome:
    body = task.body(model, _padding(padding_kb), simulated=gateway.simulated)
    try:
        async with http.post(f"{gateway.url}/chat/completions", json=body) as response:
            reply: Any = await response.json(content_type=None)
            status, request_id = response.status, response.headers.get("X-Request-Id", "")
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        return Outcome(model, padding_kb, task.name, f"error {type(error).__name__}")
    result = f"error {status}" if status != 200 else _judged(task, reply)
    trace = await _trace(http, gateway, request_id)
    tools: dict[str, Any] = trace.get("tools") or {}
    mended = (*tools.get("repairs", {}), *trace.get("verdicts", ()), *trace.get("failures", ()))
    return Outcome(
        model,
        padding_kb,
        task.name,
        result,
        taught=tools.get("form", ""),
        written=tuple(sorted(tools.get("forms", {}))),
        tries=trace.get("tries", 0),
        mended=mended,
    )


async def _trace(http: aiohttp.ClientSession, gateway: Gateway, request_id: str) -> dict[str, Any]:
    """What the gateway remembers of the request; empty if it does not tell."""
    for wait_seconds in (0.0, TRACE_SECONDS):
        await asyncio.sleep(wait_seconds)
        async with http.get(f"{gateway.url}/requests/{request_id}/trace") as response:
            if response.status == 200:
                found: dict[str, Any] = await response.json(content_type=None)
                return found
            if response.status != 404:
                break
    return {}


def _judged(task: Task, reply: dict[str, Any]) -> str:
    message = reply["choices"][0]["message"]
    calls: list[tuple[str, Arguments]] = [
        (call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in message.get("tool_calls") or []
    ]
    if task.good(calls, message.get("content") or ""):
        return "good"
    return "wrong" if calls or not _wants_calls(task) else "no call"


def _wants_calls(task: Task) -> bool:
    none: Calls = ()
    return not task.good(none, task.says or "8443")


def _padding(size_kb: int) -> str:
    """Instructions of about so many KB, as agents have them: rules nobody can break by calling tools."""
    if not size_kb:
        return ""
    chance = random.Random(size_kb)
    text = "You work in a repository whose style is that of the code below. Keep to it.\n\n"
    while len(text) < size_kb * 1024:
        text += chance.choice(payloads.sources())
    return text[: size_kb * 1024]


def table(found: Sequence[Outcome]) -> str:
    """Rows by model, length and form; then how calls were written, what was mended, and what went wrong."""
    lines = [f"{'model':<26}{'prompt':>8}  {'form':<12}{'good':>6}{'obeyed':>8}{'of':>5}{'tries':>7}"]
    groups: dict[tuple[str, int, str], list[Outcome]] = {}
    taught = {(one.model, one.padding_kb): one.taught for one in found if one.taught}
    for one in found:
        groups.setdefault((one.model, one.padding_kb, taught.get((one.model, one.padding_kb), "?")), []).append(one)
    for (model, padding_kb, form), group in groups.items():
        counts = (sum(one.result == "good" for one in group), sum(one.obeyed for one in group), len(group))
        tries = sum(one.tries for one in group)
        lines.append(f"{model:<26}{padding_kb:>6}KB  {form:<12}{counts[0]:>6}{counts[1]:>8}{counts[2]:>5}{tries:>7}")
    written = Counter(form for one in found for form in one.written)
    mended = Counter(reason for one in found for reason in one.mended)
    lines += [f"  calls written as {form}: {count} replies" for form, count in written.most_common()]
    lines += [f"  mended: {count} x {reason}" for reason, count in mended.most_common()]
    bad = Counter((one.model, one.task, one.result) for one in found if one.result != "good")
    lines += [f"  {count} x {model}: {task}: {result}" for (model, task, result), count in bad.most_common()]
    return "\n".join(lines)
