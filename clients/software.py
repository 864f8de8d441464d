"""The clients themselves, installed from the registries into one folder, each at the version that is named here."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

HERE: Final = Path(__file__).parent
NODE: Final = "22.23.3"  # Qwen Code wants 22 or later; the machine's own may be older

PYTHON: Final = {  # an environment each: they want different versions of the same SDKs
    "sdks": ("anthropic==2.12.0", "google-genai==3.4.0", "ollama==0.6.3", "openai==3.54.0"),
    "langchain": ("langchain==1.4.7", "langchain-anthropic==1.7.7", "langchain-openai==1.7.3"),
    "pydantic-ai": ("pydantic-ai-slim[anthropic,openai]==2.66.0",),
    "instructor": ("instructor[anthropic]==1.17.0",),
    "llm": ("llm==0.36",),
    "aider": ("aider-chat==0.86.2",),
}


class Software(NamedTuple):
    """Where the clients are. `node` is the folder of its program, `modules` that of the npm packages."""

    folder: Path
    node: Path
    modules: Path

    def python(self, environment: str) -> Path:
        return self.folder / environment / "bin" / "python"

    def program(self, name: str, environment: str = "") -> Path:
        """A command of an npm package, or of a Python environment."""
        return self.folder / environment / "bin" / name if environment else self.modules / ".bin" / name

    def npm_version(self, package: str) -> str:
        told: str = json.loads((self.modules / package / "package.json").read_text())["version"]
        return told

    def python_version(self, environment: str) -> str:
        return PYTHON[environment][0].partition("==")[2]


def install(folder: Path) -> Software:
    """Install what is not there yet; the second time this takes no time. Raises CalledProcessError."""
    folder.mkdir(parents=True, exist_ok=True)
    node = folder / "node" / "node_modules" / "node" / "bin"
    if not (node / "node").exists():
        _npm(folder / "node", {"dependencies": {"node": NODE}, "allowScripts": {"node": True}}, None)
    modules = folder / "npm" / "node_modules"
    wanted = (HERE / "package.json").read_text()
    if not _is_current(folder / "npm" / ".installed", wanted):
        _npm(folder / "npm", json.loads(wanted), node)
        (folder / "npm" / ".installed").write_text(wanted)
    for name, packages in PYTHON.items():
        stamp = folder / name / ".installed"
        if not _is_current(stamp, "\n".join(packages)):
            _python(folder, name, packages)
            stamp.write_text("\n".join(packages))
    return Software(folder, node, modules)


def _is_current(stamp: Path, wanted: str) -> bool:
    return stamp.exists() and stamp.read_text() == wanted


def _npm(folder: Path, package: dict[str, object], node: Path | None) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"name": "clients", "private": True, **package}))
    environment = None if node is None else with_node(node, os.environ)
    subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"],
        cwd=folder,
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def _python(folder: Path, name: str, packages: tuple[str, ...]) -> None:
    uv = folder / "uv" / "bin" / "uv"
    if not uv.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / "uv")], check=True)
        subprocess.run([str(folder / "uv" / "bin" / "pip"), "install", "--quiet", "uv"], check=True)
    subprocess.run([str(uv), "venv", "--quiet", "--clear", "--python", sys.executable, str(folder / name)], check=True)
    python = str(folder / name / "bin" / "python")
    subprocess.run([str(uv), "pip", "install", "--quiet", "--python", python, *packages], check=True)


def with_node(node: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which `node` is the one that was installed here."""
    return {**environment, "PATH": f"{node}{os.pathsep}{environment['PATH']}"}
