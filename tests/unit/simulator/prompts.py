"""Folded conversations that teach a form of calls, as a gateway writes them, in more than one form."""

from collections.abc import Sequence
from dataclasses import dataclass

SIGNATURES = """
Write(
  file_path: string,  // where; absolute
  content: string,
)  // Writes a file.
Read(file_path: string, limit?: number)
Edit(
  file_path: string,
  old_string: string,
  new_string: string,
  replace_all?: boolean = false,
)
Bash(command: string, description: string, timeout?: number)
Search(query: string, options: { deep: boolean; kinds: ("a" | "b")[] }, mode: "fast" | "slow", count: number)
"""


@dataclass(frozen=True)
class Manner:
    """How markers look in one way of teaching."""

    call: str = "[[call {n} {x}]]"
    arg: str = "[[arg {n} {x}]]"
    end: str = "[[end {n}]]"
    result: str = "[[result {n} #{i} {x}]]"
    nonce: str = "7f3a"

    def line(self, template: str, name: str = "", number: int = 0) -> str:
        return template.format(n=self.nonce, x=name, i=number)

    def written(self, name: str, **arguments: str) -> str:
        """A call in this manner; the values as they are to stand there."""
        lines = [self.line(self.call, name)]
        for key, value in arguments.items():
            lines += [self.line(self.arg, key), value]
        return "\n".join([*lines, self.line(self.end)])

    def teaching(self, signatures: str = SIGNATURES) -> str:
        example = self.written("NAME", PARAMETER="value")
        return f"You may call tools.\n{signatures}\nWrite a call so:\n\n{example}\n\nNothing may follow.\n"

    def told(self, number: int, name: str, text: str) -> str:
        return f"{self.line(self.result, name, number)}\n{text}\n{self.line(self.end)}"

    def prompt(self, *turns: tuple[str, str], signatures: str = SIGNATURES) -> str:
        parts = ["Below is a conversation.", "", "[[system e784]]", self.teaching(signatures)]
        for role, text in turns:
            parts += [f"[[{role} e784]]", text]
        reminder = f"Calls begin with {self.line(self.call, 'NAME')} and end with {self.line(self.end)}."
        return "\n".join([*parts, "[[end e784]]", "", "Reply as the assistant. " + reminder])


MANNERS: Sequence[Manner] = (
    Manner(),
    Manner("@@ {n} call: {x}", "@@ {n} with: {x}", "@@ {n} done", "@@ {n} answer: {i} {x}", "b04c"),
    Manner("<<use {n} {x}>>", "<<put {n} {x}>>", "<<stop {n}>>", "<<got {n} #{i} {x}>>", "c0ffee12"),
)
