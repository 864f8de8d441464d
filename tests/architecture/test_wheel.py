"""What is published: the program's own files, and nothing that runs by being installed."""

import zipfile
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[2]
METADATA = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
SUFFIXES = {".py", ".json", ".lua", ".typed"}


def test_the_wheel_holds_the_package_and_its_metadata_alone(tmp_path: Path) -> None:
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(built) as wheel:
        names = set(wheel.namelist())
        entry_points = next(wheel.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    package = {name for name in names if name.startswith("qwen_proxy/")}
    folder = next(name for name in names if name.endswith(".dist-info/WHEEL")).removesuffix("WHEEL")
    assert names - package == {folder + name for name in METADATA}
    assert {Path(name).suffix for name in package} <= SUFFIXES
    on_disk = {
        str(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src" / "qwen_proxy").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert package == on_disk
    assert entry_points.split() == ["[console_scripts]", "qwen-proxy", "=", "qwen_proxy.cli:main"]
