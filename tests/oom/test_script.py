"""`memplan run`: exit code, output and traceback are python's own; an error of memory is answered after them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.some import some

SCRIPTS = {
    "it ends well": "import sys; print(sys.argv[1:], __name__, __file__, sys.path[0])",
    "it is not found by itself": "import beside; print(beside.__name__)",
    "a code": "import sys; sys.exit(3)",
    "a sentence": "import sys; sys.exit('that is all')",
    "an error": "def f():\n    raise ValueError('no')\nf()",
    "an error while handling another": "try:\n    1 / 0\nexcept ZeroDivisionError:\n    [][1]",
    "no syntax": "x = = 1",
    "an interrupt": "raise KeyboardInterrupt",
    "its own hook": "import sys\nsys.excepthook = lambda *a: print('own', a[0].__name__)\nraise ValueError",
    "an error of memplan": "import memplan\nmemplan.Target.none",
    "what it does at the end": "import atexit\nme = 'me'\natexit.register(lambda: print('end', me))\n1 / 0",
    "no answer is asked": "import os\nos._exit(7)",
    "warnings": "import warnings, logging\nwarnings.warn('w')\nlogging.warning('l')",
    "options that are like ours": "import sys; print(sys.argv)",
    "its names": "print(sorted(globals()), __loader__.name, __loader__.path, __spec__, __package__, __annotations__)",
    "other processes": (
        "import multiprocessing, pickle\nclass Mine: pass\ndef made(x): return Mine, x + 1\n"
        "if __name__ == '__main__':\n    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.map(made, [1, 2]), pickle.loads(pickle.dumps(Mine)) is Mine)"
    ),
    "an error from another": "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError from e",
    "a group": "raise ExceptionGroup('two', [ValueError(1), ExceptionGroup('one', [KeyError(2)])])",
    "an error that it handles": "try:\n    raise MemoryError\nexcept MemoryError as error:\n    print(repr(error))",
    "an end in a thread": "import sys, threading\nt = threading.Thread(target=sys.exit)\nt.start()\nt.join()",
    "its own code for an error": "import sys\nsys.excepthook = lambda *a: sys.exit(5)\nraise ValueError",
}
ARGUMENTS = {"options that are like ours": ("--json", "x", "-m", "y", "--", "--debug", "-h")}
OUT = "raise MemoryError('Unable to allocate 2.00 GiB for an array with shape (1,) and data type uint8')"


def python(folder: Path, *args: str) -> tuple[int, str, str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, check=False, cwd=folder, env=environment, timeout=120
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "name", some(SCRIPTS, "it ends well", "a sentence", "an error", "no syntax", "an interrupt", "its own hook")
)
def test_it_is_as_without_memplan(name: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPTS[name], "utf-8")
    (tmp_path / "beside.py").touch()
    args = ("script.py", *ARGUMENTS.get(name, ("--a", "b")))
    assert python(tmp_path, "-m", "memplan", "run", *args) == python(tmp_path, *args)


@pytest.mark.parametrize("args", [("beside", "a", "--json"), ("folder.inner", "-x"), ("missing",), ("failing",)])
def test_a_module_is_as_without_memplan(args: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("beside", "folder/inner"):
        (tmp_path / f"{name}.py").write_text(
            "import sys; print(sys.argv, __name__, __spec__.name, sys.path[0])", "utf-8"
        )
    (tmp_path / "failing.py").write_text("def f():\n    raise ValueError\nf()", "utf-8")
    assert python(tmp_path, "-m", "memplan", "run", "-m", *args) == python(tmp_path, "-m", *args)


def test_a_broken_hook_of_the_script_hides_neither_error_nor_answer(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(f"import sys\nsys.excepthook = lambda *a: 1 / 0\n{OUT}", "utf-8")
    code, _, error = python(tmp_path, "-m", "memplan", "run", "script.py")
    assert code == 1
    assert "Error in sys.excepthook:" in error
    assert "Original exception was:" in error
    assert "memplan: Host memory ran out" in error


def test_memory_that_ran_out_is_answered_after_the_traceback(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(f"def f():\n    {OUT}\nf()\n", "utf-8")
    code, out, error = python(tmp_path, "script.py")
    found = python(tmp_path, "-m", "memplan", "run", "--json", "answer.json", "script.py")
    assert found[:2] == (code, out) == (1, "")
    assert found[2].startswith(error)
    answer = found[2].removeprefix(error)
    assert "memplan: Host memory ran out" in answer
    assert "2.00 GiB" in answer
    assert "no pipeline of diffusers was found" in answer
    written = json.loads((tmp_path / "answer.json").read_text("utf-8"))
    assert written["allocation"]["asked"] == 2 << 30
    assert written["plan"] is None


def test_the_file_is_written_though_the_script_goes_elsewhere_and_answers_by_itself(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    body = f"import memplan, os\nmemplan.install()\nos.chdir('inner')\nwith memplan.guard():\n    {OUT}"
    (tmp_path / "script.py").write_text(body, "utf-8")
    code, _, error = python(tmp_path, "-m", "memplan", "run", "--json", "answer.json", "script.py")
    assert (code, error.count("memplan: Host memory ran out")) == (1, 1)
    assert json.loads((tmp_path / "answer.json").read_text("utf-8"))["allocation"]["asked"] == 2 << 30


def test_one_line_in_a_script_does_the_same(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(f"import memplan; memplan.install()\n{OUT}\n", "utf-8")
    code, _, error = python(tmp_path, "script.py")
    assert code == 1
    assert error.startswith("Traceback (most recent call last):\n")
    assert error.index("MemoryError: Unable") < error.index("memplan: Host memory ran out")


def test_a_thread_of_the_script_is_answered_too(tmp_path: Path) -> None:
    body = f"import threading\ndef f():\n    {OUT}\nthreading.Thread(target=f).start()\n"
    (tmp_path / "script.py").write_text(body, "utf-8")
    code, _, error = python(tmp_path, "-m", "memplan", "run", "script.py")
    assert code == 0
    assert "memplan: Host memory ran out" in error


FAILS = """
import sys, torch
from tests.oom.limit import text
from tests.pipelines import build, inputs
pipe, left = build("sd15"), [int(sys.argv[1])]
def fails(module, args):
    if left[0] and type(args[0]) is torch.Tensor:
        left[0] -= 1
        raise torch.OutOfMemoryError(text(4 << 20, 8 << 20, 3 << 20))
pipe.vae.decoder.register_forward_pre_hook(fails)
print(float(pipe(**inputs("sd15"))[0].sum()))
"""


@pytest.mark.slow
@pytest.mark.wide
def test_a_script_goes_on_where_memory_ran_out(tmp_path: Path) -> None:
    """Its picture is the same; where nothing helps it ends as ever, and a plan is found for the pipeline as it was."""
    (tmp_path / "script.py").write_text(FAILS, "utf-8")
    expected = python(tmp_path, "script.py", "0")
    code, out, error = python(tmp_path, "-m", "memplan", "run", "--retry", "script.py", "1")
    assert (code, out) == expected[:2]
    assert error.count("memplan: memory ran out in decoding; trying that again with") == 1
    code, out, error = python(tmp_path, "-m", "memplan", "run", "--retry", "--json", "answer.json", "script.py", "9")
    assert (code, out) == (1, "")
    assert error.count("trying that again") == 3
    written = json.loads((tmp_path / "answer.json").read_text("utf-8"))
    assert (written["place"]["phase"], written["why_none"]) == ("decoding", "")
    assert written["plan"]["strategies"]


def test_there_must_be_something_to_run(tmp_path: Path) -> None:
    code, _, error = python(tmp_path, "-m", "memplan", "run")
    assert (code, "there is nothing to run" in error) == (2, True)
    code, _, error = python(tmp_path, "-m", "memplan", "run", "none.py")
    assert (code, "the script none.py cannot be read: No such file or directory" in error) == (2, True)
