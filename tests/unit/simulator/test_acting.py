"""The simulated model calls tools as its prompt teaches it, whatever the form, and disobeys when told to."""

import json
from itertools import pairwise

import pytest

from qwen_proxy.simulator.acting import act, holding, look
from qwen_proxy.simulator.answers import Shape
from qwen_proxy.simulator.damage import KINDS
from qwen_proxy.simulator.directives import directives_of, shaped
from qwen_proxy.simulator.forms import FOREIGN
from qwen_proxy.simulator.offers import offers
from qwen_proxy.simulator.taught import learn
from tests.unit.simulator.prompts import MANNERS, SIGNATURES, Manner
from tests.unit.simulator.visitor import Visitor

PLAIN = MANNERS[0]
SCRIPT = (
    '[[sim agent write path=/t/a.py content="x = \\"]]\\"\\n" | edit path=/t/a.py old=x new=y & read path=/t/a.py'
    " | say It says {result}.]]"
)


def answered(prompt: str, seen: set[str] | None = None) -> Shape:
    """What the model makes of a prompt; `seen` is what it remembers between tries."""
    remembered = set[str]() if seen is None else seen

    def first_time(text: str) -> bool:
        is_first = text not in remembered
        remembered.add(text)
        return is_first

    scene = look(prompt)
    found, said = directives_of(scene.turn)
    wanted = holding(scene, found, first_time)
    shape = shaped(Shape(text=said), wanted)
    assert isinstance(shape, Shape)
    return act(shape, prompt, scene, wanted)


@pytest.mark.parametrize("manner", MANNERS)
def test_the_form_is_read_out_of_the_prompt(manner: Manner) -> None:
    prompt = manner.prompt(("user", '[[sim call Write {"file_path": "/t/a", "content": "one\\n[[end 0000]]\\n"}]]'))
    assert answered(prompt).text == manner.written("Write", file_path="/t/a", content="one\n[[end 0000]]\n")


def test_what_is_no_string_is_written_as_json() -> None:
    text = '[[sim call Search query="10" options={"deep":true,"kinds":["a"]} mode=fast count=3]]'
    written = answered(PLAIN.prompt(("user", text))).text
    assert written == PLAIN.written(
        "Search", query="10", options='{"deep": true, "kinds": ["a"]}', mode="fast", count="3"
    )


def test_several_calls_stand_one_below_the_other_behind_what_is_said() -> None:
    text = "[[sim say Two calls.]] [[sim call Read file_path=/a]] [[sim call Read file_path=/b]]"
    calls = f"{PLAIN.written('Read', file_path='/a')}\n{PLAIN.written('Read', file_path='/b')}"
    assert answered(PLAIN.prompt(("user", text))).text == f"Two calls.\n\n{calls}"


@pytest.mark.parametrize("manner", MANNERS)
def test_an_agent_goes_on_from_the_results_it_has(manner: Manner) -> None:
    turns = [("user", SCRIPT)]
    write = manner.written("Write", file_path="/t/a.py", content='x = "]]"\n')
    assert answered(manner.prompt(*turns)).text == write
    turns += [("assistant", write), ("user", manner.told(1, "Write", "written"))]
    both = manner.written("Edit", file_path="/t/a.py", old_string="x", new_string="y")
    both += "\n" + manner.written("Read", file_path="/t/a.py")
    assert answered(manner.prompt(*turns)).text == both
    # The gateway tries again and says why: that is the same place in the script.
    assert answered(manner.prompt(*turns) + "\nThe last reply held no call.").text == both
    turns += [("assistant", both), ("user", manner.told(2, "Edit", "ok") + "\n" + manner.told(3, "Read", "y = 1\n"))]
    assert answered(manner.prompt(*turns)).text == "It says y = 1\n."
    turns += [("assistant", "It says y = 1\n."), ("user", "Thank you.")]
    assert answered(manner.prompt(*turns)).text == "Thank you."


def test_the_last_word_of_an_agent_is_put_into_the_json_demanded() -> None:
    turns = [
        ("system", "Reply with one JSON object alone."),
        ("user", "[[sim agent read path=/a | say Read: {result}]]"),
    ]
    read = PLAIN.written("Read", file_path="/a")
    assert answered(PLAIN.prompt(*turns)).text == read
    turns += [("assistant", read), ("user", PLAIN.told(1, "Read", "hello"))]
    assert json.loads(answered(PLAIN.prompt(*turns)).text) == {"answer": "Read: hello"}


def test_a_path_alone_is_a_whole_task() -> None:
    prompt = PLAIN.prompt(("user", '[[sim agent path="/t/my notes.txt"]]'))
    written = PLAIN.written("Write", file_path="/t/my notes.txt", content="first line\nsecond line\n")
    assert answered(prompt).text == written


def test_a_result_is_talked_about_when_nothing_else_is_asked() -> None:
    turns = [("user", "[[sim call Read file_path=/a]]"), ("assistant", PLAIN.written("Read", file_path="/a"))]
    assert answered(PLAIN.prompt(*turns, ("user", PLAIN.told(1, "Read", "hello")))).text == "The tool Read said: hello"


def test_without_a_fitting_tool_it_says_so() -> None:
    prompt = PLAIN.prompt(("user", "[[sim call shell command=ls]]"), signatures="Nap(hours: number)")
    assert answered(prompt).text == "No tool for shell is offered."
    assert answered("[[sim agent path=/t/a]]").text == "Simulated, without tools"


TOOLS_OF_AGENTS: list[tuple[str, str, dict[str, object]]] = [
    ("Write(file_path: string, content: string)", "Write", {"file_path": "/a", "content": "x"}),
    ("write_file(\n  file_path: string,\n  content: string,\n)", "write_file", {"file_path": "/a", "content": "x"}),
    ("write(content: string, filePath: string)", "write", {"content": "x", "filePath": "/a"}),
    ("editor(path: string, old_text?: string, new_text: string)", "editor", {"path": "/a", "new_text": "x"}),
    ("create_new_file(filepath: string, contents: string)", "create_new_file", {"filepath": "/a", "contents": "x"}),
    (
        'write_file(file_path: string, content: string, safe: boolean, mode: "w" | "a", why: string, tags: string[],'
        " count: number, more: object)",
        "write_file",
        {
            "file_path": "/a",
            "content": "x",
            "safe": False,
            "mode": "w",
            "why": "simulated",
            "tags": [],
            "count": 1,
            "more": {},
        },
    ),
    ("write(target_file: any, text: string)", "write", {"target_file": "/a", "text": "x"}),
    ("exec_command(cmd: string, workdir?: string)", "exec_command", {"cmd": "printf %s x > /a"}),
    ("run_commands(commands: string[])", "run_commands", {"commands": ["printf %s x > /a"]}),
    ("shell(command: string[], why: number)", "shell", {"command": ["bash", "-lc", "printf %s x > /a"], "why": 1}),
]


@pytest.mark.parametrize(("signature", "name", "arguments"), TOOLS_OF_AGENTS)
def test_a_file_is_written_with_the_tools_of_each_agent(
    signature: str, name: str, arguments: dict[str, object]
) -> None:
    prompt = PLAIN.prompt(("user", "[[sim call write path=/a content=x]]"), signatures=signature)
    shape = answered(prompt.replace("content=x]]", "content=x]] [[sim form native]]"))
    assert shape.native_calls == ((name, arguments),)


def test_words_become_what_the_parameters_are() -> None:
    signatures = "read(filePath: string, limit?: number)\nnote(text: any)"
    text = (
        "[[sim call read path=/a]] [[sim call read filePath=/b limit=3]] [[sim call read filePath=/c limit=some]]"
        ' [[sim call note {"text": [1]} and more]] [[sim call note {broken]] [[sim form native]]'
    )
    assert answered(PLAIN.prompt(("user", text), signatures=signatures)).native_calls == (
        ("read", {"filePath": "/a"}),
        ("read", {"filePath": "/b", "limit": 3}),
        ("read", {"filePath": "/c", "limit": "some"}),
        ("note", {"text": [1]}),
        ("note", {"input": "{broken"}),
    )


def test_an_edit_with_signs_of_its_own_goes_through_the_shell() -> None:
    text = (
        '[[sim call edit path="/my file" old="a.b" new="c&d"]] [[sim call shell command="ls -l"]] [[sim form native]]'
    )
    prompt = PLAIN.prompt(("user", text), signatures="bash(command: string)")
    assert answered(prompt).native_calls == (
        ("bash", {"command": "sed -i 's/a\\.b/c\\&d/' '/my file'"}),
        ("bash", {"command": "ls -l"}),
    )


def test_other_roles_fall_back_to_the_shell() -> None:
    signatures = "exec_command(cmd: string)\nread_files(files: { path: string }[])"
    text = "[[sim call read path=/a]] [[sim call edit path=/a old=1 new=a/b]] [[sim form native]]"
    assert answered(PLAIN.prompt(("user", text), signatures=signatures)).native_calls == (
        ("read_files", {"files": [{"path": "/a"}]}),
        ("exec_command", {"cmd": "sed -i 's/1/a\\/b/' /a"}),
    )


@pytest.mark.parametrize("form", FOREIGN)
def test_foreign_forms_need_no_teaching(form: str) -> None:
    text = f'[[sim form {form}]] [[sim call Write {{"file_path": "/a"}}]]'
    written = answered(text).text
    assert "Write" in written
    assert "/a" in written
    assert answered(PLAIN.prompt(("user", text))).text == written


@pytest.mark.parametrize("kind", KINDS)
def test_every_damage_changes_a_call(kind: str) -> None:
    text = (
        '[[sim call Search {"query": "a\\nb", "mode": "fast", "count": 3, "options": {"deep": true, "kinds": ["a"]}}]]'
    )
    for form in ("taught", "hermes"):
        whole = answered(PLAIN.prompt(("user", f"{text} [[sim form {form}]]"))).text
        struck = answered(PLAIN.prompt(("user", f"{text} [[sim form {form}]] [[sim damage {kind}]]"))).text
        is_about_markers = kind in ("wrong-code", "near-code", "spaces")
        same = (form, kind) == ("taught", "line-feeds")
        assert (struck == whole) is (same or (form == "hermes" and is_about_markers)), (form, struck)


def test_damage_may_hold_for_one_step_and_one_try() -> None:
    seen = set[str]()
    turns = [("user", SCRIPT + " [[sim damage no-end once at=2]]")]
    assert answered(PLAIN.prompt(*turns), seen).text.endswith("[[end 7f3a]]")
    turns += [("assistant", "x [[call"), ("user", PLAIN.told(1, "Write", "ok"))]
    turns[1] = ("assistant", PLAIN.written("Write", file_path="/t/a.py"))
    assert not answered(PLAIN.prompt(*turns), seen).text.endswith("[[end 7f3a]]")
    assert answered(PLAIN.prompt(*turns) + " Try again: the call had no end.", seen).text.endswith("[[end 7f3a]]")


def test_calls_that_are_not_made() -> None:
    text = "[[sim call Read file_path=/a]]"
    written = PLAIN.written("Read", file_path="/a")
    thought = answered(PLAIN.prompt(("user", f"{text} [[sim in-thinking]]")))
    assert thought.thought == written
    assert "done" in thought.text
    claimed = answered(PLAIN.prompt(("user", f"{text} [[sim claim]]")))
    assert (claimed.thought, "done" in claimed.text) == (None, True)
    assert answered(PLAIN.prompt(("user", f"{text} [[sim intercepted]]"))).refused_tools == ("Read",)
    assert answered(PLAIN.prompt(("user", f"{text} [[sim runaway 3]]"))).text == "\n".join([written] * 3)


async def test_the_wire_of_native_and_intercepted_calls_and_of_thoughts(visitor: Visitor) -> None:
    def prompt(text: str) -> str:
        return PLAIN.prompt(("user", f"[[sim call Read file_path=/a]] {text}"))

    native = await visitor.ask(prompt("[[sim form native]]"))
    snapshots = [delta["function_call"]["arguments"] for delta in native.deltas if "function_call" in delta]
    assert snapshots[-1] == snapshots[-2] == '{"file_path": "/a"}'
    assert all(later.startswith(earlier) for earlier, later in pairwise(snapshots))
    assert {delta["phase"] for delta in native.deltas} == {"answer"}

    refused = await visitor.ask(prompt("[[sim intercepted]]"))
    told = [delta for delta in refused.deltas if delta["role"] == "function"]
    assert [(delta["name"], delta["content"]) for delta in told] == [("Read", "Tool Read does not exists.")]

    thought = await visitor.ask(prompt("[[sim in-thinking]]"))
    last = [delta for delta in thought.deltas if "extra" in delta][-1]
    assert last["extra"]["summary_thought"]["content"] == [PLAIN.written("Read", file_path="/a")]
    assert "[[call" not in thought.text()
    detailed = await visitor.ask(prompt("[[sim in-thinking]] [[sim think detail]]"))
    assert detailed.text("think") == PLAIN.written("Read", file_path="/a")


async def test_pieces_of_any_size(visitor: Visitor) -> None:
    answer = await visitor.ask(PLAIN.prompt(("user", "[[sim call Read file_path=/a]] [[sim pieces 3]]")))
    contents = [delta["content"] for delta in answer.deltas if delta["content"]]
    assert {len(content) for content in contents[:-1]} == {3}
    assert "".join(contents) == PLAIN.written("Read", file_path="/a")


async def test_once_ends_what_goes_wrong_and_not_what_is_asked(visitor: Visitor) -> None:
    prompt = PLAIN.prompt(("user", "[[sim once]] [[sim empty]] [[sim call Read file_path=/a]]"))
    assert (await visitor.ask(prompt)).body == b""
    assert (await visitor.ask(prompt + " The last reply was empty.")).text() == PLAIN.written("Read", file_path="/a")


def test_offers_are_read_from_signatures_and_from_json() -> None:
    found = offers(SIGNATURES)
    assert list(found) == ["Write", "Read", "Edit", "Bash", "Search"]
    assert found["Search"].raw() == {"query": True, "options": False, "mode": True, "count": False}
    assert not found["Edit"].parameters["replace_all"].is_required
    schema = {"type": "object", "properties": {"path": {"type": "string"}, "n": {"type": "integer"}}, "required": ["n"]}
    for tool in (
        {"type": "function", "function": {"name": "look", "parameters": schema}},
        {"name": "look", "input_schema": schema},
    ):
        offer = offers(f"Tools:\n{json.dumps(tool)}\n")["look"]
        assert offer.raw() == {"path": True, "n": False}
        assert [parameter.is_required for parameter in offer.parameters.values()] == [False, True]
    nested = offers("type Write = (args: {\n  path: string; // a, b\n  lines?: string[];\n}) => any;")
    assert nested["Write"].raw() == {"path": True, "lines": False}


def test_the_form_whose_code_the_prompt_names_last_is_the_one_taught() -> None:
    other = Manner(nonce="0bad")
    prompt = PLAIN.prompt(("user", "What does this mean?\n" + other.written("NAME", KEY="x")))
    taught = learn(prompt)
    assert taught is not None
    assert taught.nonce == "7f3a"
    assert learn("[[user e784]]\nno tools at all\n[[end e784]]") is None
