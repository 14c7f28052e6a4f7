"""`bbframe serve`: a page on this machine to drop images on, by gradio."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from bbframe.app.text_arguments import typed_arguments
from bbframe.schema import Name, Options, Range, Text, parse

if TYPE_CHECKING:
    from bbframe.predict.image_predictor import ImagePredictor

SHOWN = 5  # classes with their probabilities
Host = Annotated[
    str, Text("an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all", r"[A-Za-z0-9.:-]{1,255}")
]


@dataclass(frozen=True, kw_only=True)
class ServeOptions(Options):
    """`run` is whatever `bbframe.load` takes. The page is at `host` and `port`, and nowhere else."""

    prefix: ClassVar[str] = "serve: "

    run: Name
    port: Annotated[int, Range(1, 65535)] = 7860
    host: Host = "127.0.0.1"
    device: Literal["auto", "cpu", "cuda"] = "auto"


def serve(arguments: Sequence[str]) -> int:
    """Show the page of a network until it is interrupted; returns the exit code."""
    options = parse(ServeOptions, typed_arguments(arguments, "serve", ("run",), ("host",)), "serve")
    if importlib.util.find_spec("gradio") is None:
        raise ValueError("serve needs gradio, which is not installed; pip install 'bbframe[serve]'")

    from bbframe.predict.network_loading import load_predictor

    page = make_served_page(load_predictor(options.run, options.device), options.run)
    launch_page(page, options.host, options.port)
    return 0


def make_served_page(network: ImagePredictor, title: str) -> Any:
    """The page as gradio's Blocks; its function is called "predict" by clients. Raises ValueError for another task."""
    from bbframe.predict.page_answers import PageAnswers

    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # it would report to its makers
    import gradio

    answers = PageAnswers(network, gradio.Error)
    with gradio.Blocks(title=f"bbframe: {title}", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        with gradio.Row():
            image = gradio.Image(type="filepath", image_mode=None, sources=["upload", "clipboard"], label="image")
            if network.task_name == "detection":
                shown: Any = gradio.Image(type="pil", format="png", label="objects", interactive=False)
            else:
                shown = gradio.Label(num_top_classes=SHOWN, label="class")
        note = gradio.Textbox(label="note", interactive=False)
        inputs: list[Any] = [image]
        if network.task_name == "detection":
            inputs.append(gradio.Slider(0, 1, value=0.5, step=0.01, label="threshold"))
        events = [image.change, *(slider.release for slider in inputs[1:])]
        for place, event in enumerate(events):
            event(answers, inputs, [shown, note], api_name=False if place else "predict")
    return page


def launch_page(page: Any, host: str, port: int, wait: bool = True) -> None:
    """Serve a page at a host and port of this machine, never through anybody else's; `wait` until it is interrupted.

    Raises ValueError when the port is taken.
    """
    try:
        page.launch(server_name=host, server_port=port, share=False, quiet=True, prevent_thread_lock=True)
    except OSError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"serve: host={host} port={port}: cannot be opened ({reason}); give another port=") from error
    place = f"[{host}]" if ":" in host else host
    print(f"http://{place}:{port}  (Ctrl+C ends it)", flush=True)
    if wait:
        page.block_thread()
