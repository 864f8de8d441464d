"""Whole tasks of coding agents over a simulated model: each step a request, through every way a call can go wrong."""

import asyncio
import json
import re
from typing import Any, Final, NamedTuple

from qwen_proxy.simulator.damage import KINDS
from qwen_proxy.simulator.forms import FOREIGN
from tests.support.running import Running, running

STRING: Final = {"type": "string"}
STRINGS: Final = {"type": "array", "items": STRING}
PATHS: Final = {"type": "array", "items": {"type": "object", "properties": {"path": STRING}, "required": ["path"]}}


def tool(name: str, **parameters: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": parameters, "required": list(parameters)}
    return {"type": "function", "function": {"name": name, "description": f"{name}.", "parameters": schema}}


CLAUDE_CODE: Final = [
    tool("Write", file_path=STRING, content=STRING),
    tool("Read", file_path=STRING),
    tool("Edit", file_path=STRING, old_string=STRING, new_string=STRING),
    tool("Bash", command=STRING, description=STRING),
]
CODEX: Final = [tool("exec_command", cmd=STRING), tool("update_plan", plan=PATHS)]
CLINE: Final = [
    tool("editor", path=STRING, new_text=STRING),
    tool("read_files", files=PATHS),
    tool("run_commands", commands=STRINGS),
]
PATH: Final = "/t/notes.txt"
CONTENT: Final = 'a "quoted" line\n\tand\n[[end]]\n</tool_call>\n'
SCRIPT: Final = (
    f"[[sim agent write path={PATH} content={json.dumps(CONTENT)} | edit path={PATH} old=and new=or"
    f" | read path={PATH} | say It says: {{result}}]]"
)
DONE: Final = [
    ("Write", {"file_path": PATH, "content": CONTENT}),
    ("Edit", {"file_path": PATH, "old_string": "and", "new_string": "or"}),
    ("Read", {"file_path": PATH}),
]


class Ended(NamedTuple):
    """What an agent did and was told at last."""

    calls: list[tuple[str, Any]]
    text: str


async def play(gateway: Running, tools: list[dict[str, Any]], prompt: str) -> Ended:
    """An agent's loop: ask, do what is called (here: number it), tell the results, until an answer makes no call.

    What ends with `length` is asked again, once for each call at most.
    """
    messages: list[dict[str, Any]] = [{"role": "user", "content": prompt}]
    calls: list[tuple[str, Any]] = []
    cut = 0
    while len(calls) < 10 and cut <= len(calls) + 1:
        body = {"model": "qwen3.7-plus", "messages": messages, "tools": tools}
        async with gateway.client.post("/v1/chat/completions", json=body) as response:
            told = await response.json()
            assert response.status == 200, told
        choice = told["choices"][0]
        message = choice["message"]
        if choice["finish_reason"] == "length":
            cut += 1
            continue
        if not message.get("tool_calls"):
            return Ended(calls, message["content"])
        messages.append(message)
        for call in message["tool_calls"]:
            calls.append((call["function"]["name"], json.loads(call["function"]["arguments"])))
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": f"result {len(calls)}"})
    raise AssertionError(f"no end: {calls}")


async def test_one_script_drives_agents_with_different_tools() -> None:
    async with running() as gateway:
        assert await play(gateway, CLAUDE_CODE, SCRIPT) == (DONE, "It says: result 3")
        codex = await play(gateway, CODEX, SCRIPT)
        cline = await play(gateway, CLINE, SCRIPT)
    assert codex.text == cline.text == "It says: result 3"
    assert [name for name, _ in codex.calls] == ["exec_command"] * 3
    assert codex.calls[0][1] == {"cmd": f"printf %s '{CONTENT}' > {PATH}"}
    assert cline.calls[0] == ("editor", {"path": PATH, "new_text": CONTENT})
    assert cline.calls[2] == ("read_files", {"files": [{"path": PATH}]})


EXEC: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"cmd": STRING, "justification": STRING, "max_output_tokens": {"type": "number"}, "workdir": STRING},
    "required": ["cmd"],
    "additionalProperties": False,
}
ASKED: Final = "[[sim call exec_command cmd=\"printf %s 'one two three four'\"]]"
CUT: Final = re.compile('"(finish_reason|stop_reason|status)":"(length|max_tokens|incomplete)"')


def asking(prompt: str) -> dict[str, dict[str, Any]]:
    """The same question with the same tool in each protocol that tells arguments piece by piece, by its path."""
    messages = [{"role": "user", "content": prompt}]
    function = {"name": "exec_command", "parameters": EXEC}
    return {
        "/v1/chat/completions": {"messages": messages, "tools": [{"type": "function", "function": function}]},
        "/v1/messages": {
            "messages": messages,
            "tools": [{"name": "exec_command", "input_schema": EXEC}],
            "max_tokens": 1000,
        },
        "/v1/responses": {
            "input": prompt,
            "tools": [{"type": "function", "strict": False} | function, {"type": "web_search"}],
        },
    }


async def test_a_call_that_ends_before_citations_is_whole() -> None:
    """As Codex has it, which offers a search too: what was searched for stands behind the call, on its last line."""
    async with running() as gateway:
        for path, body in asking(f"{ASKED} [[sim pieces 4]] [[sim search one]]").items():
            for stream in (False, True):
                sent = {"model": "qwen3.7-plus", "stream": stream} | body
                async with gateway.client.post(path, json=sent) as response:
                    told = (await response.text()).replace(": ", ":")
                assert not CUT.search(told), path
                assert any(f'"{word}"' in told for word in ("tool_calls", "tool_use", "completed")), path
                assert "[[" not in told.replace(json.dumps(body["tools"]), ""), path
                assert stream or "printf %s 'one two three four'" in told, path


async def test_a_call_is_told_while_it_is_written() -> None:
    """The reply stands still within the value, and what there is of it has come nevertheless."""
    async with running() as gateway:
        for path, body in asking(f"{ASKED} [[sim pieces 4]] [[sim stall 20]]").items():
            sent = {"model": "qwen3.7-plus", "stream": True} | body
            async with gateway.client.post(path, json=sent) as response, asyncio.timeout(20):
                async for line in response.content:
                    if b"printf" in line:
                        break


async def test_a_model_that_writes_another_form_throughout_does_the_same_work() -> None:
    async with running() as gateway:
        for form in (*FOREIGN, "native"):
            assert await play(gateway, CLAUDE_CODE, f"{SCRIPT} [[sim form {form}]]") == (DONE, "It says: result 3"), (
                form
            )


# What is broken so is no call of an offered tool, and passes as text: the agent is told what the model wrote.
PASSES_AS_TEXT: Final = {("taught", "wrong-code"), ("hermes", "unknown-tool")}


async def test_one_broken_call_keeps_no_agent_from_its_work() -> None:
    async with running() as gateway:
        for form in ("taught", "hermes"):
            for kind in KINDS:
                prompt = f"{SCRIPT} [[sim form {form}]] [[sim damage {kind} once at=1]]"
                ended = await play(gateway, CLAUDE_CODE, prompt)
                # A brace behind text that is raw is a part of the text.
                calls = ended.calls if (form, kind) != ("taught", "brace") else [DONE[0], *ended.calls[1:]]
                if (form, kind) in PASSES_AS_TEXT:
                    assert ended.calls == [], kind
                else:
                    assert (calls, ended.text) == (DONE, "It says: result 3"), (form, kind)


async def test_a_reply_without_its_call_is_asked_for_again() -> None:
    async with running() as gateway:
        for failure in ("in-thinking", "intercepted", "empty", "think-only", "no-text"):
            ended = await play(gateway, CLAUDE_CODE, f"{SCRIPT} [[sim {failure} once at=2]]")
            assert ended == (DONE, "It says: result 3"), failure


async def test_a_summary_is_a_text_though_a_script_is_being_played() -> None:
    aside = "CRITICAL: Respond with TEXT ONLY. Do NOT call any tools.\n\nSummarize the conversation so far."
    call = {"id": "c1", "type": "function", "function": {"name": "Read", "arguments": json.dumps({"file_path": PATH})}}
    messages = [
        {"role": "user", "content": SCRIPT},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "and"},
        {"role": "user", "content": aside},
    ]
    async with running() as gateway:
        body = {"model": "qwen3.7-plus", "messages": messages, "tools": CLAUDE_CODE}
        async with gateway.client.post("/v1/chat/completions", json=body) as response:
            choice = (await response.json())["choices"][0]
    assert choice["finish_reason"] == "stop" and not choice["message"].get("tool_calls")
    assert choice["message"]["content"].startswith("Summary")
