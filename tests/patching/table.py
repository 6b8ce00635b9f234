"""The scripts, and the plan that each is patched with."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from memplan.errors import MemplanError
from memplan.faces.patching.chosen import found
from memplan.faces.patching.diff import diff
from memplan.faces.patching.patch import Patched, patched
from tests.patching.models import plan

HERE = Path(__file__).parent
CASES, SNIPPETS = HERE / "cases", HERE / "snippets"
OFFLOAD = "model_offload"
STREAMED = "vae_tiling:vae + group_offload:transformer,stream=true"


@dataclass(frozen=True)
class Case:
    """The family of the made-up pipeline, the plan for it, and which pipeline of several is meant."""

    family: str
    plan: str
    pipe: str = ""


PATCHED = {
    "cast_and_returned": Case("sdxl", "vae_tiling:vae + group_offload:unet,stream=true"),
    "chain_with_comments": Case("flux", "int8_weight_only:transformer + model_offload"),
    "chained": Case("sdxl", "bnb_4bit:unet"),
    "class_aliases": Case("flux", OFFLOAD),
    "class_attribute": Case("flux", STREAMED),
    "class_local_first": Case("sd", "layerwise_casting:unet + vae_slicing:vae"),
    "comment_inside": Case("flux", OFFLOAD),
    "compiled": Case("sdxl", "compile:unet"),
    "component_aliases": Case("flux", OFFLOAD),
    "component_prepared": Case("sdxl", OFFLOAD),
    "component_set_later": Case("flux", "int8_weight_only:transformer + model_offload"),
    "components_one_by_one": Case("sdxl", "attention_slicing:unet + model_offload"),
    "conditional_device": Case("sd", "sequential_offload"),
    "controlnet": Case("sdxl", "group_offload:unet,stream=true"),
    "device_and_dtype": Case("sd", OFFLOAD),
    "device_map": Case("qwen", "int8_weight_only:transformer + model_offload"),
    "device_of_torch": Case("sd", "vae_tiling:vae + group_offload:unet"),
    "dtype_of_the_device": Case("sd", OFFLOAD),
    "either_way_placed": Case("flux", STREAMED),
    "encoded_first": Case("flux", STREAMED),
    "fallback_of_its_own": Case("flux", OFFLOAD),
    "from_components": Case("sd", OFFLOAD),
    "from_pipe": Case("sdxl", OFFLOAD),
    "function": Case("flux", "bnb_4bit:transformer,text_encoder_2"),
    "function_moved_by_caller": Case("sdxl", "on_demand:vae + group_offload:unet"),
    "global_in_worker": Case("sdxl", "vae_tiling:vae,tile=256 + model_offload"),
    "gradio_app": Case("sdxl", "attention_slicing:unet + model_offload"),
    "group_offload_already_there": Case("video", STREAMED),
    "handed_to_a_class": Case("flux", STREAMED),
    "handed_to_a_function": Case("flux", OFFLOAD),
    "lazy_imports": Case("flux", STREAMED),
    "lora_after_the_move": Case("flux", OFFLOAD),
    "low_memory_flag": Case("video", STREAMED),
    "matched": Case("sdxl", OFFLOAD),
    "names_taken": Case("sdxl", "vae_tiling:vae,tile=256"),
    "no_dtype": Case("sd", ""),
    "notebook_export": Case("flux", "layerwise_casting:transformer + model_offload"),
    "offload_already_there": Case("sdxl", OFFLOAD),
    "offloaded_on_another_card": Case("flux", OFFLOAD),
    "one_line": Case("sd", OFFLOAD),
    "options_of_its_own": Case("video", STREAMED),
    "property_made_late": Case("flux", STREAMED),
    "quantization_already_there": Case("flux", "bnb_4bit:transformer"),
    "quantized_component": Case("flux", "int8_weight_only:transformer"),
    "quanto_in_place": Case("flux", "quanto:transformer"),
    "returned_once_moved": Case("flux", STREAMED),
    "server": Case("sdxl", "partial_residency:unet,streamed=2"),
    "single_file": Case("sdxl", "bnb_4bit:unet"),
    "statement": Case("sdxl", OFFLOAD),
    "two_functions": Case("flux", OFFLOAD, pipe="12"),
    "two_pipelines": Case("sdxl", "vae_slicing:vae + model_offload", pipe="base"),
    "windows_lines": Case("sd", "group_offload:unet"),
    "with_argparse": Case("sdxl", "vae_tiling:vae + group_offload:unet"),
    "yielded_once_moved": Case("flux", OFFLOAD),
}  # fmt: skip
DOCUMENTED = {
    "animatediff": Case("sd", "vae_slicing:vae + group_offload:unet"),
    "cogvideox": Case("video", "vae_tiling:vae + model_offload"),
    "flux": Case("flux", "bnb_4bit:transformer + model_offload"),
    "flux_fill": Case("flux", STREAMED),
    "flux_kontext": Case("flux", "partial_residency:transformer,streamed=3"),
    "hunyuan_video": Case("video", "layerwise_casting:transformer + model_offload"),
    "ip_adapter": Case("sdxl", OFFLOAD),
    "kandinsky": Case("sd", OFFLOAD, pipe="pipe"),
    "ltx": Case("video", STREAMED),
    "mochi": Case("video", "vae_tiling:vae,tile=128 + model_offload"),
    "pixart": Case("video", "int8_weight_only:text_encoder"),
    "qwen_image": Case("qwen", OFFLOAD),
    "sana": Case("video", "int8_weight_only:transformer,text_encoder"),
    "sd3": Case("video", "layerwise_casting:transformer"),
    "sd_controlnet": Case("sd", "group_offload:unet"),
    "sd_img2img": Case("sd", "sequential_offload"),
    "sdxl_inpaint": Case("sdxl", "vae_slicing:vae + model_offload"),
    "sdxl_refiner": Case("sdxl", OFFLOAD, pipe="base"),
    "sdxl_turbo": Case("sdxl", "on_demand:vae"),
    "wan": Case("video", "partial_residency:transformer,streamed=2"),
    "wan_quantized_text_encoder": Case("video", "group_offload:transformer,text_encoder,stream=true"),
}
"""Scripts as the documentation of diffusers writes them, one for a pipeline."""
REFUSED = {
    "another_dtype": Case("flux", OFFLOAD),
    "class_renamed": Case("flux", OFFLOAD),
    "compiled_apart": Case("flux", OFFLOAD),
    "component_name_reused": Case("flux", OFFLOAD),
    "either_of_two": Case("flux", OFFLOAD),
    "gguf_file": Case("flux", OFFLOAD),
    "given_away_in_a_branch": Case("flux", OFFLOAD),
    "hand_wired": Case("sd", OFFLOAD),
    "in_an_expression": Case("flux", OFFLOAD),
    "keyword_table": Case("flux", OFFLOAD),
    "keywords_handed_on": Case("flux", OFFLOAD),
    "magics": Case("flux", OFFLOAD),
    "modular_pipeline": Case("flux", OFFLOAD),
    "moved_back": Case("flux", OFFLOAD),
    "moved_in_a_loop": Case("flux", OFFLOAD),
    "no_pipeline": Case("flux", OFFLOAD),
    "one_arm_of_two": Case("flux", OFFLOAD),
    "one_line_suite": Case("flux", OFFLOAD),
    "one_of_two_devices": Case("flux", OFFLOAD),
    "optimized": Case("sd", OFFLOAD),
    "put_together": Case("sd", OFFLOAD),
    "returned_on_one_line": Case("flux", OFFLOAD),
    "several_unnamed": Case("flux", OFFLOAD),
    "star_import": Case("flux", OFFLOAD),
    "training_loop": Case("sd", OFFLOAD),
    "unknown_argument": Case("flux", OFFLOAD),
}


@cache
def done(file: Path, case: Case, source: bytes | None = None) -> Patched:
    """The script in `file`, or `source` in its place, patched as the case says."""
    here = found(file.name, file.read_bytes() if source is None else source, case.pipe)
    return patched(here, plan(case.family, case.plan))


def answer(file: Path, case: Case) -> str:
    """What is kept beside a script: its diff and the notes before it, or the words with which it is refused."""
    try:
        made = done(file, case)
    except MemplanError as error:
        return f"{error}\n"
    return "".join(f"# {note}\n" for note in made.notes) + diff(file.name, file.read_bytes(), made.source)


def files() -> dict[str, tuple[Path, Case]]:
    """Every script by its name."""
    own = {name: (CASES / f"{name}.py", case) for name, case in {**PATCHED, **REFUSED}.items()}
    return own | {name: (SNIPPETS / f"{name}.py", case) for name, case in DOCUMENTED.items()}


def kept(file: Path) -> Path:
    """Where that is kept."""
    return file.with_suffix(".diff" if file.stem not in REFUSED else ".txt")
