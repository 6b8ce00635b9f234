"""What libraries say is kept back while memplan uses them; what memplan and its user say is not."""

import logging
import subprocess
import sys
import warnings

import pytest

from memplan.faces.quiet import LIBRARIES, LOUD, libraries_quiet


def levels() -> list[int]:
    return [logging.getLogger(name).level for name in LIBRARIES]


def test_libraries_log_errors_only_and_users_everything(caplog: pytest.LogCaptureFixture) -> None:
    theirs, mine = logging.getLogger("accelerate.some.part"), logging.getLogger("my.application")
    mine.setLevel(logging.DEBUG)
    before = levels()
    with libraries_quiet():
        theirs.warning("theirs")
        theirs.error("their error")
        mine.debug("mine")
    assert levels() == before
    theirs.warning("theirs, later")
    assert caplog.messages == ["their error", "mine", "theirs, later"]


def test_warnings_of_others_are_kept_back_and_the_users_filters_stay() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        before = warnings.filters[:]
        with libraries_quiet():
            warnings.warn_explicit("theirs", UserWarning, "library.py", 1, module="library.part")
            warnings.warn_explicit("ours", UserWarning, "store.py", 1, module="memplan.faces.store")
        assert warnings.filters == before
        warnings.warn_explicit("later", UserWarning, "library.py", 1, module="library.part")
    assert [str(w.message) for w in shown] == ["ours", "later"]


def test_all_is_as_before_after_an_error() -> None:
    before = levels(), warnings.filters[:]
    with pytest.raises(ZeroDivisionError), libraries_quiet():
        raise ZeroDivisionError
    assert (levels(), warnings.filters) == before


def test_when_loud_nothing_is_kept_back(caplog: pytest.LogCaptureFixture) -> None:
    token = LOUD.set(True)
    with libraries_quiet():
        logging.getLogger("accelerate.some.part").warning("theirs")
    LOUD.reset(token)
    assert caplog.messages == ["theirs"]


@pytest.mark.slow
def test_a_price_in_python_says_nothing_of_the_libraries(tmp_path: object) -> None:
    code = "import memplan; memplan.price('sd1.5', 'model_offload', target=memplan.Target(vram=8, ram=32), cache=False)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
