"""The command line in process: what is printed where, and the exit codes."""

import json
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from memplan.__main__ import main
from memplan.catalogue.models import names
from memplan.faces import api
from memplan.faces.cli import VERBS, terminal
from memplan.faces.cli.terminal import Progress
from memplan.faces.nearest import Nearest
from memplan.faces.report import table
from memplan.faces.report.layout import WIDTH
from memplan.facts import Facts
from memplan.planner import draw
from memplan.strategies import ModelOffload
from tests.faces import small
from tests.pipelines import build

TYPED = [module.__name__.rpartition(".")[2] for module in VERBS]
HEAVY = {"torch", "diffusers", "transformers", "accelerate"}
OFFLOADED = ModelOffload(("text_encoder", "transformer", "vae"))


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the tests' own, shared among them."""
    monkeypatch.setenv("MEMPLAN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Callable[[Facts], dict[str, Any]]:
    """Has the Python face measure these facts; the value tells which call it was asked for."""
    asked: dict[str, Any] = {}

    def facts_are(facts: Facts) -> dict[str, Any]:
        def measured(source: Any, call: Mapping[str, Any], **settings: Any) -> Facts:
            asked.update(source=source, call=dict(call), **settings)
            return facts

        monkeypatch.setattr(api, "facts", measured)
        monkeypatch.setattr(terminal, "PATIENCE", 600.0)  # what is said of progress depends on how busy this machine is
        return asked

    return facts_are


# ---- the verbs -------------------------------------------------------------------------------------------------------
def test_recommend(given: Callable[[Facts], object], capsys: pytest.CaptureFixture[str]) -> None:
    given(small.facts())
    assert main(["recommend", "small"]) == 0
    out, err = capsys.readouterr()
    assert out == table.recommendation(small.found()) + "\n"
    assert err == ""


def test_the_call_is_passed_on(given: Callable[[Facts], dict[str, Any]]) -> None:
    asked = given(small.facts())
    line = "recommend small --height 512 --steps 4 --batch 2 --call output_type=latent --call sigmas=[1,0.5] --no-cache"
    assert main([*line.split(), "--vram", "8", "--prompt", "a cat"]) == 0
    assert asked["source"] == "small"
    assert asked["call"] == {
        "prompt": "a cat",
        "height": 512,
        "num_inference_steps": 4,
        "num_images_per_prompt": 2,
        "output_type": "latent",
        "sigmas": [1, 0.5],
    }
    assert (asked["cache"], asked["target"]) == (False, api.Target(vram=8))


def test_recommend_for_programs(given: Callable[[Facts], object], capsys: pytest.CaptureFixture[str]) -> None:
    given(small.facts())
    assert main(["recommend", "small", "--json", "--prefer", "speed"]) == 0
    assert json.loads(capsys.readouterr().out)["preferred"] == "speed"


def test_recommend_as_code(given: Callable[[Facts], object], capsys: pytest.CaptureFixture[str]) -> None:
    given(small.facts())
    assert main(["recommend", "small", "--code"]) == 0
    out = capsys.readouterr().out
    assert 'from_pretrained("/models/small"' in out
    assert f'prompt="{api.PROMPT}"' in out
    compile(out, "script", "exec")


def test_recommend_writes_a_page_and_a_picture(
    given: Callable[[Facts], object], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given(small.facts())
    page, picture = tmp_path / "report.html", tmp_path / "report.png"
    assert main(["recommend", "small", "--html", str(page), "--png", str(picture)]) == 0
    out, err = capsys.readouterr()
    assert out == table.recommendation(small.found()) + "\n"
    assert [line.rpartition(",")[0] for line in err.splitlines()] == [f"memplan: wrote {f}" for f in (page, picture)]
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_where_no_page_can_be_written_nothing_is_measured(
    given: Callable[[Facts], dict[str, Any]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked = given(small.facts())
    missing = tmp_path / "missing"
    assert main(["recommend", "small", "--html", str(missing / "report.html")]) == 2
    assert f"there is no folder {missing}" in capsys.readouterr().err
    assert main(["recommend", "small", "--png", str(tmp_path)]) == 2
    assert "it is a folder; name a file in it" in capsys.readouterr().err
    assert not asked


def test_price_writes_them_too(
    given: Callable[[Facts], object], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given(small.facts())
    page, picture = tmp_path / "report.html", tmp_path / "report.png"
    options = ["--html", str(page), "--png", str(picture)]
    assert main(["price", "small", "--with", "model_offload + vae_tiling", *options]) == 0
    assert capsys.readouterr().err.count("memplan: wrote") == 2
    (typed,) = re.findall("<code>(.*)</code>", page.read_text(encoding="utf-8"))
    assert set(typed.split(" + ")) == {"vae_tiling:vae", "model_offload"}
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("verb", ["recommend", "price"])
def test_bars_in_a_pipe_if_asked(
    given: Callable[[Facts], object], capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    given(small.facts())
    main([verb, "small", "--bars"])
    out = capsys.readouterr().out
    assert re.search(r"decoding vae +█+▒+░+ .* GiB", out)
    assert "\x1b" not in out
    main([verb, "small", "--bars", "--json"])
    json.loads(capsys.readouterr().out)


def test_recommend_explains(given: Callable[[Facts], object], capsys: pytest.CaptureFixture[str]) -> None:
    given(small.facts())
    assert main(["recommend", "small", "--explain"]) == 0
    assert "S_total + A = 6.75 + 2.00 = 8.75 GiB" in capsys.readouterr().out


def test_nothing_fits(
    given: Callable[[Facts], object], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given(small.facts(vram=1))
    nearest = draw(small.facts(), [OFFLOADED])
    change = {"height": 512, "clip_skip": 1}
    monkeypatch.setattr(
        "memplan.faces.cli.recommend.nearest_call", lambda *_, **__: Nearest((change,), change, nearest)
    )
    assert main(["recommend", "small"]) == 3
    assert "fits is --height 512 --call clip_skip=1, with model_offload" in capsys.readouterr().out
    assert main(["recommend", "small", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["shortage"]["nearest_call"] == {"height": 512, "clip_skip": 1}


def test_price(given: Callable[[Facts], object], capsys: pytest.CaptureFixture[str]) -> None:
    given(small.facts())
    assert main(["price", "small", "--with", "model_offload", "--with", "vae_tiling"]) == 0
    text = capsys.readouterr().out
    assert "Plan       vae_tiling:vae + model_offload" in text
    assert main(["price", "small", "--with", "vae_tiling:vae + model_offload"]) == 0
    assert capsys.readouterr().out == text
    assert main(["price", "small", "--with", "model_offload", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plan"]["strategies"] == ["model_offload"]


def test_the_plan_of_no_technique_is_everything_on_the_gpu(
    given: Callable[[Facts], object], capsys: pytest.CaptureFixture[str]
) -> None:
    given(small.facts(vram=24))
    assert main(["price", "small"]) == 0
    text = capsys.readouterr().out
    assert "Plan       everything on the GPU" in text
    assert main(["price", "small", "--with", ""]) == 0
    assert capsys.readouterr().out == text


def test_probe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "probe", lambda *_, **__: small.facts().model)
    assert main(["probe", "--gpu", "RTX 4070", "--ram", "32", "--reserve", "1"]) == 0
    out = capsys.readouterr().out
    assert "NVIDIA GeForce RTX 4070" in out
    assert "1.00 GiB of device memory kept free" in out
    assert main(["probe", "sdxl", "--json", "--vram", "8"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["name"] == "small"


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    assert "vae_tiling" in capsys.readouterr().out
    assert main(["explain", "vae_tiling"]) == 0
    assert "A VAE encodes and decodes overlapping tiles" in capsys.readouterr().out


def test_another_name_of_a_model_is_told(
    given: Callable[[Facts], object],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given(small.facts())
    for model, said in (
        ("flux", "memplan: flux is taken for flux.1-dev\n"),
        ("Flux,transformer=nowhere.gguf", "memplan: Flux is taken for flux.1-dev\n"),
        ("FLUX.1_dev", ""),
        ("black-forest-labs/FLUX.1-dev", ""),
    ):
        for verb in ("recommend", "price"):
            assert main([verb, model, "--json"]) in (0, 3)
            assert capsys.readouterr().err == said
    (tmp_path / "flux").mkdir()
    (tmp_path / "flux" / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    monkeypatch.chdir(tmp_path)
    assert main(["recommend", "flux"]) == 0
    assert capsys.readouterr().err == "", "a folder of that name"


@pytest.mark.parametrize(
    ("tty", "environment", "wide"),
    [
        (False, "", 100),
        (False, "80", 80),
        (True, "80", 80),
        (True, "20", 50),
        (True, "500", 120),
    ],
)
def test_reports_are_as_wide_as_the_terminal(
    tty: bool, environment: str, wide: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", environment)
    monkeypatch.setattr("sys.stdout", Mock(isatty=lambda: tty))
    assert terminal.width() == wide


@pytest.mark.parametrize("columns", ["60", "100"])
def test_help_breaks_no_name(columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["recommend", "--help"]) == 0
    words = capsys.readouterr().out.replace(",", " ").split()
    assert set(names()) <= set(words)


@pytest.mark.parametrize("verb", ["", *TYPED])
def test_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*verb.split(), "--help"]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= WIDTH.get()
    if verb in ("probe", "recommend", "price"):
        assert all(name in "".join(out.split()) for name in names())


# ---- bad input -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("recommend flux-1-dev --vram 8", "Did you mean flux.1-dev"),
        ("recommend ./nowhere --vram 8", "no folder"),
        ("recommend flux.1-dev --vram -1", "vram is -1 GiB"),
        ("recommend flux.1-dev --vram 8 --reserve 9", "leaves nothing"),
        ("recommend flux.1-dev --gpu RTX4071", "RTX 4070"),
        ("recommend flux.1-dev --vram 8 --height tall", "--height"),
        ("recommend flux.1-dev --vram 8 --call height", "NAME=VALUE"),
        ("recommend flux.1-dev --vram 8 --call dtype=1", "not an argument of pipelines"),
        ("recommend flux.1-dev --vram 8 --call colour=red", "colour"),
        ("recommend wan2.1-t2v-14b --vram 8 --height 481", "divisible by 16"),
        ("explain vae_tilling", "Did you mean vae_tiling?"),
        ("explain --colour", "unrecognized arguments: --colour\n"),
        ("recommend sdxl --heigth 512", "unrecognized arguments: --heigth 512. Did you mean --height?"),
        ("price sdxl --wth=model_offload", "Did you mean --with?"),
        ("recomend sdxl", f"there is no verb 'recomend'; there are {', '.join(TYPED)}. Did you mean recommend?"),
        ("sing", f"there is no verb 'sing'; there are {', '.join(TYPED)}\n"),
        ("", "VERB"),
    ],
)
def test_bad_input(line: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert sentence in err
    assert (out, "Traceback" in err) == ("", False)


@pytest.mark.parametrize("verb", ["recommend", "price"])
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--batch 0", "num_images_per_prompt is 0"),
        ("--steps 0", "num_inference_steps is 0"),
        ("--height -8", "height is -8; it must be a whole number of at least 1"),
        ("--num-frames 0", "num_frames is 0"),
        ("--call height=tall", "height is tall; it must be a whole number"),
        ("--call num_videos_per_prompt=-1", "num_videos_per_prompt is -1"),
        ("--call height", "--call height is no NAME=VALUE"),
        ("--call sigmas=[1,0.5", "--call sigmas=[1,0.5 is no value of Python"),
        ("--call 3=4", "--call 3=4 is no NAME=VALUE"),
    ],
)
def test_a_call_that_cannot_be_is_told_before_the_pipeline_is_read(
    verb: str, options: str, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("measuring.look", "measuring.open_pipeline", "target.probe_machine"):
        monkeypatch.setattr(f"memplan.faces.{name}", lambda *_, **__: pytest.fail("too late"))
    assert main([verb, "flux.1-dev", "--vram", "8", *options.split()]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("strategy", "sentence"),
    [
        ("vae_tilling", "Did you mean vae_tiling?"),
        ("group_offload:transformer,colour=red", "no setting 'colour'"),
        ("group_offload:unet", "no component 'unet'"),
        ("vae_tiling:text_encoder", "TextEncoder has no decode() to tile"),
    ],
)
def test_bad_plans(
    strategy: str, sentence: str, given: Callable[[Facts], object], capsys: pytest.CaptureFixture[str]
) -> None:
    given(small.facts())
    assert main(["price", "small", "--with", strategy]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "text"),
    [("model_index.json", "[]"), ("model_index.json", "{"), ("vae/config.json", '{"sample_size": "x"')],
)
def test_damaged_folders(file: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build("flux").save_pretrained(tmp_path)
    (tmp_path / file).write_text(text)
    assert main(["recommend", str(tmp_path), "--vram", "8"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_config_with_a_wrong_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build("flux").save_pretrained(tmp_path)
    path = tmp_path / "transformer" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_layers": "many"}))
    assert main(["recommend", str(tmp_path), "--vram", "8"]) == 2
    assert "transformer" in capsys.readouterr().err


def test_no_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    bare = replace(small.facts().machine, gpu=None)
    monkeypatch.setattr("memplan.faces.measuring.machine", lambda target: bare)
    assert main(["recommend", "flux.1-dev"]) == 2
    said = capsys.readouterr().err
    assert said == 'memplan: No GPU is visible here to plan for. --gpu "RTX 4070" names a card, ' + (
        "--vram 12 any other by its GiB.\n"
    )


def test_a_terminal_that_knows_no_unicode_is_answered() -> None:
    """Neither what is read nor what is printed is in its encoding."""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    for line in ("explain vae_tiling", "recommend --help"):
        command = [sys.executable, "-m", "memplan", *line.split()]
        done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, **plain})
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.isascii()


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(ValueError, match="vram"):
        main(["recommend", "flux.1-dev", "--vram", "-1", "--debug"])


# ---- stderr ----------------------------------------------------------------------------------------------------------
def test_progress_is_shown_from_one_second_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memplan.faces.cli.terminal.PATIENCE", 0.05)
    with Progress() as progress:
        progress("first")
        progress("second")
        time.sleep(0.2)
        progress("third")
    assert capsys.readouterr().err == "memplan: second …\nmemplan: third …\n"


def test_short_work_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        progress("first")
    assert capsys.readouterr().err == ""


def test_our_warnings_are_one_line_and_others_are_kept_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(*_: Any, **__: Any) -> Facts:
        warnings.warn_explicit("the cache is gone", UserWarning, api.__file__, 1)
        warnings.warn_explicit("something of theirs", UserWarning, "/elsewhere/library.py", 1)
        return small.facts()

    monkeypatch.setattr(api, "facts", measured)
    monkeypatch.setattr(terminal, "PATIENCE", 600.0)
    assert main(["recommend", "small"]) == 0
    assert capsys.readouterr().err == "memplan: the cache is gone\n"


# ---- speed -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "line",
    ["recommend flux.1-dev --vram 12 --ram 32", "explain vae_tiling", "probe --vram 12", "price flux.1-dev --vram 48"],
)
def test_what_is_known_needs_no_torch(line: str) -> None:
    if "flux" in line:
        api.facts("flux.1-dev", {}, target=api.Target(vram=12))  # into the cache
    assert not HEAVY & set(modules_after(line, 0))


@pytest.mark.parametrize(
    "line",
    [
        "recommend nosuch --vram 8",
        "recommend nosuch",
        "recommend some/model --vram 8",
        "recommend ./nowhere --vram 8",
        "recommend . --vram 8",
        "price flux.1-dev --vram 8 --with vae_tilling",
        "probe nosuch",
        "probe flux.1-dev --vram -1",
        "recommend flux.1-dev --gpu RTX4071",
    ],
)
def test_bad_input_is_found_without_torch(line: str, tmp_path: Path) -> None:
    assert not HEAVY & set(modules_after(line, 2, tmp_path))


def modules_after(line: str, status: int, folder: Path | None = None) -> list[str]:
    """The modules that a command loads; it must end with `status`."""
    code = f"import sys; from memplan.__main__ import main; print(main({line.split()!r})); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder)
    *_, code, modules = done.stdout.splitlines()
    assert code == str(status), done.stderr
    return modules.split()
