"""Runs a script or a module as Python would, and answers the error that ends it."""

import builtins
import io
import runpy
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType, TracebackType

from memplan.errors import BadInput
from memplan.faces.oom.hooks import Installed, in_threads
from memplan.faces.oom.tell import answer_file, tell

MAIN = "__main__"
OURS = str(Path(__file__))


Job = Callable[[], None]
"""Runs what was asked for, and raises what that raises."""


def script(path: str, args: Sequence[str], json: str | None = None) -> Job:
    """As `python path args…`; a folder or an archive may hold the script. The answer to its error goes to `json` too.

    Raises BadInput for a file that cannot be read.
    """
    whole, file_name = Path(path), str(Path(path).absolute())
    if whole.is_dir() or whole.suffix in (".zip", ".pyz"):
        return lambda: _run([path, *args], path, lambda: _as_main(MAIN, False), json)
    try:
        with io.open_code(str(whole.resolve())) as file:
            source = file.read()
    except OSError as error:
        raise BadInput(f"the script {path} cannot be read: {error.strerror or error}") from None

    def execute() -> None:
        main = ModuleType(MAIN)
        main.__dict__.update(__file__=file_name, __builtins__=builtins, __cached__=None, __annotations__={})
        main.__dict__.update(__loader__=SourceFileLoader(MAIN, file_name))
        sys.modules[MAIN] = main
        exec(compile(source, file_name, "exec", dont_inherit=True), main.__dict__)

    return lambda: _run([path, *args], str(whole.resolve().parent), execute, json)


def module(name: str, args: Sequence[str], json: str | None = None) -> Job:
    """As `python -m name args…`. The answer to its error goes to `json` too."""
    return lambda: _run(["-m", *args], str(Path.cwd()), lambda: _as_main(name, True), json)


def _as_main(name: str, alter_argv: bool) -> None:
    """What the interpreter calls for its option -m, so that errors and tracebacks are the same."""
    sys.modules[MAIN] = ModuleType(MAIN)
    runpy._run_module_as_main(name, alter_argv)  # type: ignore[attr-defined]


def _run(argv: list[str], folder: str, execute: Job, json: str | None) -> None:
    sys.argv = argv
    if not sys.flags.safe_path:
        sys.path[0] = folder
    file = answer_file(json)
    in_threads(Installed(file))
    try:
        execute()
    except SystemExit:
        raise
    except BaseException:
        _answer_at_the_end(file)
        raise


def _answer_at_the_end(json: Path | None) -> None:
    """Wraps the hook that shows the error at the end: the traceback loses our frames, and the answer follows it.

    The interpreter itself shows the error, so that the script's own hook, its exit code and a signal stay its own.
    """
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.excepthook = before
        own = _without_ours(trace)
        error.__traceback__ = own
        try:
            before(kind, error, own)
        finally:
            tell(error, json=json)

    sys.excepthook = hook


def _without_ours(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the script on: what comes before is the command line."""
    last, frame = trace, trace
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == OURS:
            last = frame.tb_next
        frame = frame.tb_next
    return last
