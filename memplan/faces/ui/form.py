"""The form and what it shows, in gradio."""

from itertools import count

from memplan.catalogue.gpus import cards
from memplan.catalogue.models import names
from memplan.errors import Unsupported
from memplan.faces.ui.answer import Question, answer
from memplan.planner import PREFERENCES

try:
    import gradio as gr
except ImportError as error:
    raise Unsupported(
        f'the web page needs gradio 6.30 or newer, which cannot be imported ({error}): pip install "memplan[ui]"'
    ) from error

TITLE = "memplan"
ABOUT = """# memplan
Which memory plan runs a diffusion pipeline on a card. It is predicted, and needs neither the card nor the weights.
"""
FIRST = ("sdxl", "NVIDIA GeForce RTX 4070", 32.0)
"""What is chosen at first: a model, a card, and GiB of host memory."""


def form(*, bundled_only: bool = False) -> gr.Blocks:
    """The page; its launch() serves it. With `bundled_only` visitors name no folders and no ids on the Hub."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as page:
        gr.Markdown(ABOUT)
        with gr.Row():
            subject = _subject(bundled_only=bundled_only)
        with gr.Row():
            call = _call()
        button = gr.Button("Plan", variant="primary", elem_id="plan")
        said = gr.Textbox(label="Answer", lines=2, interactive=False, elem_id="said")
        with gr.Tab("Report"):
            report = gr.HTML(elem_id="report")
        with gr.Tab("Code"):
            code = gr.Code(language="python", label="The preferred plan as a script", elem_id="code")
        button.click(shown, [*subject, *call], [said, report, code], api_name="plan")
    return page


def _subject(*, bundled_only: bool) -> list[gr.components.Component]:
    """The model, and the machine that is planned for."""
    model, gpu, ram = FIRST
    label = "Model" if bundled_only else "Model, folder or Hub id"
    models = gr.Dropdown(list(names()), value=model, label=label, allow_custom_value=not bundled_only, elem_id="model")
    known = [card.name for card in cards()]
    card = gr.Dropdown(known, value=gpu, label="Card", num_choices_shown=len(known), elem_id="card")
    return [models, card, gr.Number(ram, label="RAM (GiB)", elem_id="ram")]


def _call() -> list[gr.components.Component]:
    """What is called, and what is liked best."""
    return [
        gr.Number(0, label="Height (pixels; 0: usual)", precision=0, elem_id="height"),
        gr.Number(0, label="Width (pixels; 0: usual)", precision=0),
        gr.Number(0, label="Frames of a video (0: usual)", precision=0),
        gr.Radio([*PREFERENCES], value="balanced", label="Preference"),
    ]


def shown(  # noqa: PLR0917  (gradio hands over field after field)
    model: str,
    gpu: str,
    ram: float | None,
    height: int | None,
    width: int | None,
    frames: int | None,
    prefer: str,
    bar: gr.Progress = gr.Progress(),  # noqa: B008  (gradio finds it among the defaults)
) -> tuple[str, str, str]:
    """The sentence, the report and the code, in the order of the fields that show them.

    A number that nobody gives is None or 0, as a browser has it.
    """
    asked = Question(model, gpu or "", ram or None, height or None, width or None, frames or None, prefer)
    steps = count(1)
    found = answer(asked, lambda message: bar((next(steps), None), unit=f"· {message}"))
    return found.said, found.report, found.code
