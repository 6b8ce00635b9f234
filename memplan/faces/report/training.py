"""A training plan as lines of a script: what is trained before the plan is applied, and the loop after it."""

import ast

from memplan.facts import LORA, Training
from memplan.facts.training import ADAFACTOR, ADAMW, ADAMW_8BIT, SGD, SGD_MOMENTUM
from memplan.planner import Plan

MADE_BY = {
    ADAMW: ("", "torch.optim.AdamW(trained)"),
    ADAMW_8BIT: ("from bitsandbytes.optim import AdamW8bit", "AdamW8bit(trained)"),
    ADAFACTOR: ("from transformers.optimization import Adafactor", "Adafactor(trained)"),
    SGD: ("", "torch.optim.SGD(trained)"),
    SGD_MOMENTUM: ("", "torch.optim.SGD(trained, momentum=0.9)"),
}
"""The import that each optimizer needs, and the line that makes it."""
CASTS = "from diffusers.training_utils import cast_training_params"
AVERAGES = "from diffusers.training_utils import EMAModel"
SEVERAL = "# on several GPUs: model = torch.nn.parallel.DistributedDataParallel(model)  # here: after all of the above"


def before(plan: Plan, device: str) -> list[str]:
    """What is trained, and where: the lines after the pipeline is loaded, and the imports that they need."""
    training, name = _training(plan), plan.run.facts.model.components[0].name
    placed = f'pipe.{name}.to("{device}").train()'
    targets = dict(plan.run.facts.trace.arguments).get("targets")
    if training.kind != LORA:
        return [f"pipe.{name}.requires_grad_(True)", placed]
    if targets is None:
        return [placed]  # its own adapters
    layers = list(ast.literal_eval(targets))
    wide = training.autocast and f"cast_training_params(pipe.{name}, dtype=torch.float32)"
    config = f"LoraConfig(r={training.rank}, lora_alpha={training.rank}, target_modules={layers})"
    imports = ["from peft import LoraConfig, inject_adapter_in_model", *([CASTS] if wide else [])]
    return [*imports, f"inject_adapter_in_model({config}, pipe.{name})", *filter(None, [wide]), placed]


def after(plan: Plan, device: str) -> list[str]:
    """The loop, and the imports that it needs; what it learns from is to be filled in."""
    training, name = _training(plan), plan.run.facts.model.components[0].name
    needed, made = MADE_BY[training.optimizer]
    each = f"number % {training.accumulate} == 0" if training.accumulate > 1 else ""
    scaled = training.autocast == "float16"
    averaged = ["averages.step(trained)"] if training.ema else []
    stepped = ["scaler.step(optimizer)", "scaler.update()"] if scaled else ["optimizer.step()"]
    step = [*stepped, "optimizer.zero_grad(set_to_none=True)", *averaged]
    region = [f'with torch.autocast("{device}", torch.{training.autocast}):'] if training.autocast else []
    return [
        *filter(None, [needed, AVERAGES if training.ema else ""]),
        f"model = pipe.{name}",
        SEVERAL,
        "trained = [weight for weight in model.parameters() if weight.requires_grad]",
        f"optimizer = {made}",
        *(["averages = EMAModel(trained)"] if training.ema else []),
        *([f'scaler = torch.amp.GradScaler("{device}")'] if scaled else []),
        f"for {'number, ' if each else ''}batch in {'enumerate(..., 1)' if each else '...'}:  # to be filled in",
        *(f"    {line}" for line in region),
        f"    {'    ' if region else ''}result = model(...)  # of the batch",
        "    loss = ...  # of the result, in float32",
        f"    {'scaler.scale(loss)' if scaled else 'loss'}.backward()",
        *([f"    if {each}:"] if each else []),
        *(f"    {'    ' if each else ''}{line}" for line in step),
    ]


def _training(plan: Plan) -> Training:
    training = plan.run.facts.training
    assert training is not None
    return training
