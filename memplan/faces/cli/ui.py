"""Serve a web page on this machine: choose a model and a card, see the report and the code.

It needs gradio: pip install "memplan[ui]". Nothing of what is chosen leaves this machine.
"""

import argparse
import sys

from memplan.errors import BadInput

LOCAL = "127.0.0.1"


def add_options(parser: argparse.ArgumentParser) -> None:
    """What can be typed."""
    parser.add_argument("--port", type=int, metavar="N", help="where it is served; the first free one from 7860 on")
    parser.add_argument("--open", action="store_true", help="open it in a browser, too")


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    from memplan.faces.ui.form import form

    page = form()
    try:
        _, url, _ = page.launch(
            server_name=LOCAL, server_port=args.port, inbrowser=args.open, prevent_thread_lock=True, quiet=True
        )
    except OSError as error:
        raise BadInput(f"the page cannot be served there: {error}") from error
    print(f"memplan: the page is at {url} until Ctrl-C", file=sys.stderr, flush=True)
    page.block_thread()
    return 0
