"""What is installed is what lies in the checkout: every package is listed and every file is shipped."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = {"memplan": "memplan", "strategies": "memplan/strategies"}
"""Where each folder of the checkout is installed."""
FOR_CHECKOUTS_ONLY = ("memplan/strategies.pyi", "memplan/strategies/pages/")


def installed_files() -> set[str]:
    """Every source and data file, by its path once installed."""
    return {
        f"{target}/{file.relative_to(ROOT / folder).as_posix()}"
        for folder, target in SOURCES.items()
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


def test_every_package_is_listed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {Path(name).parent for name in installed_files() if name.endswith(".py")}
    assert sorted(settings["tool"]["setuptools"]["packages"]) == sorted(".".join(f.parts) for f in folders)


def test_wheel_holds_every_file(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a copy: what an earlier build left in the checkout would get into the wheel
    for folder in SOURCES:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr

    (wheel,) = tmp_path.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == {name for name in installed_files() if not name.startswith(FOR_CHECKOUTS_ONLY)}
