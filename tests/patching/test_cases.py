"""Scripts of many styles, and what they become; `python -m tests.patching` writes that anew."""

import ast
import io
import textwrap
import tokenize

import pytest

from memplan.errors import Unsupported
from memplan.faces.api import placed
from memplan.faces.patching.diff import diff
from memplan.faces.report.code import applying, device_of, formats, is_import
from tests.patching.models import plan
from tests.patching.table import CASES, REFUSED, SNIPPETS, answer, done, files, kept

EVERY = files()
CHANGED = [name for name in EVERY if name not in REFUSED]


@pytest.mark.parametrize("name", EVERY)
def test_it_becomes_what_is_kept_beside_it(name: str) -> None:
    file, case = EVERY[name]
    assert answer(file, case).encode() == kept(file).read_bytes()


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_the_line_and_what_to_do(name: str) -> None:
    file, case = EVERY[name]
    with pytest.raises(Unsupported, match=rf"{name}\.py, line \d+: .+\. [A-Z].+\.$"):
        done(file, case)


@pytest.mark.parametrize("name", CHANGED)
def test_once_more_changes_nothing(name: str) -> None:
    file, case = EVERY[name]
    once = done(file, case).source
    assert once != file.read_bytes()
    assert done(file, case, once).source == once


@pytest.mark.parametrize("name", CHANGED)
def test_it_is_python_and_keeps_its_comments(name: str) -> None:
    file, case = EVERY[name]
    after = done(file, case).source
    ast.parse(after)
    assert set(comments(file.read_bytes())) <= set(comments(after))
    assert (b"\r\n" in file.read_bytes()) == (after.count(b"\r\n") == after.count(b"\n") > 0)


def comments(source: bytes) -> list[str]:
    return [t.string for t in tokenize.tokenize(io.BytesIO(source).readline) if t.type == tokenize.COMMENT]


@pytest.mark.parametrize("name", ["flux", "global_in_worker", "mochi", "quanto_in_place", "single_file", "statement"])
def test_what_is_added_is_what_memplan_prints_as_code(name: str) -> None:
    file, case = EVERY[name]
    wanted = plan(case.family, case.plan)
    configured = set() if name == "single_file" else formats(wanted).keys()
    lines = applying(wanted, placed(wanted), configured, device_of(wanted))
    text = done(file, case).source.decode()
    block = text[text.index("# memplan (") :].partition("\n")[2].partition("# memplan (")[0].rpartition("\n")[0]
    added = textwrap.dedent(block).replace("PIPE", "pipe")
    assert added.splitlines() == [line for line in lines if not is_import(line)]


def test_another_plan_takes_the_place_of_the_first() -> None:
    file, case = EVERY["class_attribute"]
    first = done(file, case).source
    other = type(case)(case.family, "bnb_4bit:transformer + model_offload")
    text = done(file, other, first).source.decode()
    assert "apply_group_offloading(" not in text
    assert text.count("enable_model_cpu_offload") == 1
    assert done(file, other, text.encode()).source == text.encode()


def test_a_long_plan_is_named_on_several_lines() -> None:
    file, case = EVERY["class_attribute"]
    text = "layerwise_casting:transformer,text_encoder,text_encoder_2,skip=norm/proj_out + vae_tiling:vae,tile=256"
    long = type(case)(case.family, f"{text} + partial_residency:transformer,streamed=2 + on_demand:text_encoder")
    once = done(file, long).source
    lines = once.decode().splitlines()
    assert max(map(len, lines)) <= 120
    assert any(line.startswith("        #   ") for line in lines)
    assert done(file, long, once).source == once


@pytest.mark.parametrize("last", [b'pipe.to("cuda")', b'pipe.to("cuda")\npipe("a bay")'])
def test_a_last_line_without_an_end_stays_so(last: bytes) -> None:
    file, case = EVERY["comment_inside"]
    load = b'pipe = FluxPipeline.from_pretrained("models/flux", torch_dtype=torch.bfloat16)\n'
    once = done(file, case, b"import torch\nfrom diffusers import FluxPipeline\n" + load + last).source
    assert not once.endswith(b"\n")
    assert done(file, case, once).source == once


def test_another_encoding_is_kept_and_shown() -> None:
    file, case = EVERY["statement"]
    before = b"# -*- coding: latin-1 -*-\n# caf\xe9\n" + file.read_bytes()
    after = done(file, case, before).source
    assert b"# caf\xe9\n" in after
    assert done(file, case, after).source == after
    assert "caf\u00e9" in diff(file.name, before, after.replace(b"import torch\n", b""))


def test_pipelines_of_one_name_in_two_functions_are_patched_one_by_one() -> None:
    file, case = EVERY["two_functions"]
    first = done(file, type(case)(case.family, "vae_slicing:vae", pipe="6")).source
    line = next(n for n, text in enumerate(first.splitlines(), 1) if b"Img2ImgPipeline.from_pretrained" in text)
    both = done(file, type(case)(case.family, case.plan, pipe=str(line)), first).source
    assert both.count(b"enable_slicing()") == both.count(b"enable_model_cpu_offload(") == 1
    assert done(file, type(case)(case.family, "vae_slicing:vae", pipe="6"), both).source == both


def test_every_file_has_its_case() -> None:
    found = {path.stem for folder in (CASES, SNIPPETS) for path in folder.glob("*.py")}
    assert found == EVERY.keys()
    left = {path for folder in (CASES, SNIPPETS) for path in folder.iterdir() if path.suffix in (".diff", ".txt")}
    assert left == {kept(file) for file, _ in EVERY.values()}
