"""Shell completion: what a shell is told when it asks as argcomplete's own scripts for bash, zsh and fish do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from memplan.catalogue import models
from memplan.faces.cli import VERBS
from memplan.registry import strategies

ROOT = Path(__file__).parents[2]
NO_ARGCOMPLETE = "import sys; sys.modules['argcomplete'] = None; from memplan.faces.cli import main; sys.exit(main())"


def asked(line: str, shell: str, folder: Path, command: tuple[str, ...] = ("-m", "memplan")) -> tuple[int, list[str]]:
    """The exit code, and the words that the shell is offered for the end of `line`, without what describes them."""
    answer = folder / "answer"
    answer.touch()
    variables = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_SHELL": shell,
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
    }
    env = {**os.environ, **variables}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, env=env, cwd=folder)
    assert (done.stdout, done.stderr) == ("", "")
    found = answer.read_text(encoding="utf-8").splitlines()
    described = {"zsh": ":", "fish": "\t"}.get(shell, "\n")
    return done.returncode, [word.partition(described)[0] for word in found]


@pytest.mark.parametrize(
    ("line", "shell", "offered"),
    [
        ("memplan ", "bash", {module.__name__.rpartition(".")[2] for module in VERBS}),
        ("memplan recommend flux.1-", "zsh", {"flux.1-dev", "flux.1-schnell"}),
        ("memplan recommend ", "fish", set(models.names())),
        ("memplan recommend sdxl --prefer s", "bash", {"speed"}),
        ("memplan price sdxl --bar", "zsh", {"--bars"}),
        ("memplan explain ", "bash", {cls.name for cls in strategies()}),
        ('memplan price sdxl --with "vae_tiling:vae + group_off', "fish", {"vae_tiling:vae + group_offload"}),
        ("memplan recommend sdxl --gpu RTX\\ 4060\\ T", "fish", {"RTX 4060 Ti 16 GB", "RTX 4060 Ti 8 GB"}),
        ("memplan probe my_mo", "bash", {"my_model/"}),
        ("memplan matrix --models sdxl flux.1-", "bash", {"flux.1-dev", "flux.1-schnell"}),
        ("memplan matrix --gpus RTX\\ 3090 RTX\\ 4060\\ T", "fish", {"RTX 4060 Ti 16 GB", "RTX 4060 Ti 8 GB"}),
    ],
)
def test_what_is_offered(line: str, shell: str, offered: set[str], tmp_path: Path) -> None:
    (tmp_path / "my_model").mkdir()
    code, found = asked(line, shell, tmp_path)
    assert (code, set(found)) == (0, offered)


def test_where_argcomplete_is_absent_nothing_is_offered(tmp_path: Path) -> None:
    assert asked("memplan rec", "bash", tmp_path, ("-c", NO_ARGCOMPLETE)) == (1, [])


def test_without_a_shell_that_asks_argcomplete_is_not_loaded() -> None:
    code = "import sys; from memplan.faces.cli import main; main(['explain']); assert 'argcomplete' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)


def test_shells_that_complete_every_python_program_find_it() -> None:
    assert "PYTHON_ARGCOMPLETE_OK" in (ROOT / "memplan" / "__main__.py").read_text(encoding="utf-8")[:1024]
