"""The web page: what it answers, that gradio serves it, and that a browser shows it."""

import runpy
import socket
import subprocess
import sys
from collections.abc import Generator
from functools import partialmethod
from html import unescape
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from memplan.__main__ import main
from memplan.catalogue.models import names
from memplan.errors import BadInput
from memplan.faces import api
from memplan.faces.report import code
from memplan.faces.report.html.page import page
from memplan.faces.ui.answer import Question, answer
from memplan.facts import Facts
from tests.faces import browser, small
from tests.ui import driven

EXAMPLES = Path(__file__).parents[2] / "examples"
served = pytest.mark.skipif(find_spec("gradio") is None, reason='gradio is not installed: pip install "memplan[ui]"')


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Has the Python face measure the made-up pipeline on 8 GiB; the value holds what was asked for."""
    asked: list[dict[str, Any]] = []

    def facts(source: Any, call: dict[str, Any], **settings: Any) -> Facts:
        if source == "none":
            raise BadInput("there is no such model")
        asked.append({"source": source, "call": dict(call), "target": settings["target"]})
        return small.facts(8 if settings["target"].gpu else 0.5)

    monkeypatch.setattr(api, "facts", facts)
    return asked


# ---- the answer ------------------------------------------------------------------------------------------------------
def test_it_shows_the_report_and_the_code(measured: list[dict[str, Any]]) -> None:
    found = answer(Question("small", "RTX 4070", 32, 512, prefer="speed"))
    assert measured == [{"source": "small", "call": {"height": 512}, "target": api.Target("RTX 4070", ram=32)}]
    call = {"prompt": api.PROMPT, "height": 512}
    assert unescape(found.report.partition('srcdoc="')[2]).startswith(page(small.found(), call, "speed"))
    pick = small.found().pick("speed")
    assert pick
    assert found.said.startswith(f"Speed: {pick}. ")
    assert found.code == code.script(pick, "/models/small", call)


def test_where_nothing_fits_it_says_what_is_missing() -> None:
    found = answer(Question("small", ""))
    assert found.said.startswith("Nothing fits. The nearest plan needs ")
    assert "the plan that misses the least is drawn below" in found.report
    assert found.code == ""


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (Question("sdxk", "RTX 4070"), "Did you mean sdxl or sd3-medium?"),
        (Question("sdxl", "RTX 4071"), "RTX 4070"),
        (Question("sdxl", "RTX 4070", height=0), "height is 0"),
        (Question("sdxl", "RTX 4070", ram=-1), "ram is -1 GiB"),
    ],
)
def test_what_cannot_be_is_a_sentence(asked: Question, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    found = answer(asked)
    assert sentence in found.said
    assert (found.report, found.code) == ("", "")


@pytest.mark.slow
def test_without_gradio_it_is_refused() -> None:
    code = "import sys; sys.modules['gradio'] = None; from memplan.__main__ import main; sys.exit(main(['ui']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("memplan: the web page needs gradio 6.30 or newer")
    assert 'pip install "memplan[ui]"' in done.stderr
    assert "Traceback" not in done.stderr


# ---- in a browser ----------------------------------------------------------------------------------------------------
@pytest.fixture
def url() -> Generator[str]:
    """Where the page is served."""
    from memplan.faces.ui.form import form

    shown = form()
    _, place, _ = shown.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    yield place
    shown.close(verbose=False)


IFRAME = "document.querySelector('#report iframe')"
SAID = "document.querySelector('#said textarea').value"


@served
@browser.needed
@pytest.mark.slow
def test_a_browser_shows_the_report_and_the_code(url: str, measured: list[dict[str, Any]]) -> None:
    with driven.opened(url) as tab:
        tab.until("!!document.querySelector('#plan')")
        tab.type("#model input", "small")
        tab.type("#ram input", "24")
        tab.value("document.querySelector('#plan').click()")
        said = tab.until(SAID)
        text = tab.until(f"{IFRAME} && {IFRAME}.srcdoc")
        tab.value("[...document.querySelectorAll('[role=tab]')].find((t) => t.textContent.trim() === 'Code').click()")
        script = tab.until("document.querySelector('#code .cm-content')?.innerText")
        assert tab.complaints == []
        elsewhere = [place for place in tab.asked if not place.startswith((url, "about:", "data:", "blob:"))]
    assert elsewhere == []
    assert measured[-1]["target"] == api.Target("NVIDIA GeForce RTX 4070", ram=24)
    balanced = small.found().pick("balanced")
    assert balanced
    assert said.startswith(f"Balanced: {balanced}. ")
    assert text == page(small.found(), {"prompt": api.PROMPT})
    assert script.splitlines()[0] == code.script(balanced, "/models/small", {}).splitlines()[0]


@served
@browser.needed
@pytest.mark.slow
def test_a_browser_shows_why_something_is_refused(url: str) -> None:
    with driven.opened(url) as tab:
        tab.until("!!document.querySelector('#plan')")
        tab.type("#model input", "none")
        tab.value("document.querySelector('#plan').click()")
        said = tab.until(SAID)
        assert not tab.value(f"!!{IFRAME}")
        assert tab.complaints == []
    assert said == "there is no such model"


# ---- served ----------------------------------------------------------------------------------------------------------
@served
@pytest.mark.slow
def test_the_verb_serves_it() -> None:
    command = [sys.executable, "-m", "memplan", "ui"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr
            place = server.stderr.readline().removeprefix("memplan: the page is at ").removesuffix(" until Ctrl-C\n")
            with urlopen(place, timeout=30) as page:
                assert '"title":"memplan"' in page.read().decode()
        finally:
            server.terminate()


@served
@pytest.mark.slow
def test_a_port_that_is_taken_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["ui", "--port", str(port)]) == 2
    assert (
        f"memplan: the page cannot be served there: Cannot find empty port in range: {port}" in capsys.readouterr().err
    )


@served
@pytest.mark.slow
def test_the_app_of_a_space_knows_bundled_models_only(monkeypatch: pytest.MonkeyPatch) -> None:
    import gradio

    launched: list[Any] = []
    monkeypatch.setattr(gradio.Blocks, "launch", partialmethod(lambda page, to: to.append(page), launched))
    runpy.run_path(str(EXAMPLES / "space_app.py"), run_name="__main__")
    (page,) = launched
    model = next(block for block in page.blocks.values() if getattr(block, "elem_id", None) == "model")
    assert [name for name, _ in model.choices] == list(names())
    assert model.preprocess("sdxl") == "sdxl"
    with pytest.raises(gradio.Error):
        model.preprocess("/etc")
