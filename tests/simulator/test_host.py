import subprocess
import sys
from functools import reduce
from pathlib import Path

import pytest
import torch

from memplan.facts import GIB, Component, Facts, Model, Trace, Weight
from memplan.probes.pipeline import measure
from memplan.probes.sources import open_pipeline
from memplan.run import InGroups, OnCall, Run, Stored
from memplan.simulator import simulate
from memplan.simulator.host import LIBRARIES, host_memory
from memplan.simulator.weights import pinned
from tests.measured_facts import facts_of
from tests.pipelines import build

ROOT = Path(__file__).parents[2]
STREAMED = InGroups("leaf_level", stream=True)


@pytest.mark.parametrize(("nbytes", "taken"), [(0, 0), (1, 1), (2, 2), (3, 4), (4096, 4096), (4097, 8192)])
def test_a_pinned_tensor_takes_the_next_power_of_two(nbytes: int, taken: int) -> None:
    assert pinned(nbytes) == taken


@pytest.fixture(scope="module")
def flux() -> Model:
    return measure(open_pipeline("flux.1-dev").pipe)


@pytest.fixture(scope="module")
def run() -> Run:
    return Run(facts_of(build("flux")))


def in_memory(model: Model) -> Run:
    return Run(Facts(facts_of(build("sd15")).machine, model, Trace("cuda", (), ())))


def size(run: Run, name: str = "transformer") -> int:
    return run.facts.model.component(name).size


def test_the_streamed_flux_transformer_pins_as_much_as_was_measured(flux: Model) -> None:
    memory = host_memory(in_memory(flux).place("transformer", STREAMED))
    assert memory.pinned / GIB == pytest.approx(34.65, abs=0.01)  # 35.1 to 35.3 GiB measured of the whole process
    assert flux.component("transformer").size / GIB == pytest.approx(22.17, abs=0.01)


def test_what_stays_on_the_device_takes_no_host_memory(run: Run) -> None:
    memory = host_memory(run)
    assert (memory.steady, memory.peak, memory.pinned) == (LIBRARIES, LIBRARIES, 0)


def test_offloaded_weights_take_their_stored_size(run: Run) -> None:
    memory = host_memory(run.place("transformer", OnCall()).place("vae", InGroups("leaf_level")))
    assert memory.steady == memory.peak == LIBRARIES + size(run) + size(run, "vae")
    assert memory.pinned == 0


def test_casting_makes_them_smaller(run: Run) -> None:
    cast = run.store("transformer", Stored("float8_e4m3fn")).place("transformer", OnCall())
    assert host_memory(cast).steady - LIBRARIES == run.facts.model.component("transformer").cast_size < size(run)


def test_streams_pin_every_tensor_by_itself(run: Run) -> None:
    transformer: Component = run.facts.model.component("transformer")
    memory = host_memory(run.place("transformer", STREAMED))
    assert memory.pinned == sum(pinned(w.nbytes) for w in transformer.weights)
    assert memory.pinned > size(run)


def test_low_cpu_mem_pins_two_groups_at_a_time(run: Run) -> None:
    streamed = host_memory(run.place("transformer", InGroups("block_level", 1, stream=True)))
    lean = host_memory(run.place("transformer", InGroups("block_level", 1, stream=True, low_cpu_mem=True)))
    assert 0 < lean.pinned < streamed.pinned
    assert lean.steady == LIBRARIES + size(run) + lean.pinned


def test_pinning_a_block_keeps_its_original_until_it_is_done(run: Run) -> None:
    memory = host_memory(run.place("transformer", InGroups("block_level", 1, stream=True)))
    transformer = run.facts.model.component("transformer")
    assert memory.peak == memory.steady + size(run) - transformer.unmatched


def test_what_is_on_the_device_is_not_in_host_memory(run: Run) -> None:
    names = run.facts.model.offload_order
    everything = sum(size(run, name) for name in names)
    bill = simulate(reduce(lambda drawn, name: drawn.place(name, OnCall()), names, run))
    held = {peak.component: peak.host - LIBRARIES for peak in bill.peaks if peak.component}
    stays = size(run, "vae")  # called first here, and the last of the chain: no one sends it back
    assert held.pop("vae") == everything - stays
    assert held == {name: everything - stays - size(run, name) for name in held}
    assert len(held) == 3
    assert bill.host.steady - LIBRARIES == everything


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or torch.version.cuda is not None, reason="measured on Linux, without CUDA"
)
@pytest.mark.wide
def test_the_libraries_take_what_they_did() -> None:
    code = (
        "import psutil; from tests.pipelines import build, inputs; build('flux')(**inputs('flux')); "
        "print(sum(m.anonymous for m in psutil.Process().memory_maps(grouped=True)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(done.stdout) == pytest.approx(LIBRARIES, rel=0.2)


def test_the_figures_of_a_weight_are_of_its_dtype() -> None:
    assert Weight("w", 3, "bfloat16").nbytes == 6
