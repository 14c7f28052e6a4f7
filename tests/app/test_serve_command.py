"""`bbframe serve`: what its page shows, without gradio; and the page itself, asked over the loopback."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from bbframe.app import cli
from bbframe.app.serve_command import serve
from bbframe.predict.page_answers import PageAnswers
from tests.predict.networks import pictures, under


@pytest.fixture
def photo(tmp_path):
    pictures()[1].save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def test_a_classifier_shows_probabilities_and_warns(photo):
    net = under("linear", "tiny_convnextv2")
    shares, note = PageAnswers(net)(photo)
    expected = net(pictures()[1])
    assert expected.unfamiliar
    assert shares == dict(expected.top(3))
    assert next(iter(shares)) == expected.label
    assert note == f"unlike the training images: distance {expected.distance:.2g}, above 1"
    assert PageAnswers(net)(None) == (None, "")


def test_a_detector_shows_boxes_above_the_threshold(photo):
    net = under("mask_rcnn", "tiny_swin")
    found = net(pictures()[1], threshold=0)
    picture, note = PageAnswers(net)(photo, 0.0)
    assert isinstance(picture, Image.Image)
    assert note == f"{len(found)} objects with a score of 0 or more"
    assert PageAnswers(net)(photo, 1.0)[1] == f"{len(found.above(1.0))} objects with a score of 1 or more"


def test_a_file_that_is_no_image_is_refused(tmp_path):
    class Refusal(Exception):
        pass

    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(Refusal, match="this image cannot be read: not an image"):
        PageAnswers(under("linear", "tiny_convnextv2"), Refusal)(str(tmp_path / "x.png"))


def test_another_task_has_no_page():
    class Other:
        task_name = "ranking"

    with pytest.raises(ValueError, match="serve: task=ranking is neither classification nor detection"):
        PageAnswers(Other())


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "serve: run must be given"),
        (["run=x", "port=0"], "serve: port=0 must be"),
        (["run=x", "share=true"], "serve: unknown option 'share'"),
        (["run=x", "host=a b"], "serve: host='a b' must be"),
    ],
)
def test_a_wrong_command_line_is_refused(words, text):
    with pytest.raises(ValueError, match=text):
        serve(words)


def test_without_gradio_it_says_what_to_install(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "gradio" else found(name))
    with pytest.raises(ValueError, match=r"not installed; pip install 'bbframe\[serve\]'"):
        serve(["run=x"])
    assert "port=7860" in cli.COMMANDS["serve"][1]
    assert "gradio" not in sys.modules


def free_port():
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def ask(url, **request):
    """What a URL answers, on the loopback, whatever proxy this machine has."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, **request), timeout=60) as answer:
        return answer.read()


def uploaded(page, photo):
    """A photo as a browser sends it; what the page calls it."""
    part = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="photo.png"\r\nContent-Type: image/png\r\n\r\n'
    )
    body = part + Path(photo).read_bytes() + b"\r\n--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    (path,) = json.loads(ask(f"{page}/gradio_api/upload", data=body, headers=headers))
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def predicted(page, *values):
    """What the page's function answers by gradio's API."""
    headers, data = {"Content-Type": "application/json"}, json.dumps({"data": values}).encode()
    event = json.loads(ask(f"{page}/gradio_api/call/predict", data=data, headers=headers))["event_id"]
    told = ask(f"{page}/gradio_api/call/predict/{event}").decode()
    kind, line = re.findall(r"event: (\w+)\ndata: (.*)", told)[-1]
    return kind, json.loads(line)


@pytest.fixture
def served(tmp_path):
    """The command, in a process of its own, for a network; ended with the test."""
    started = []

    def start(net):
        net.save_pretrained(tmp_path / "saved")
        port = free_port()
        code = "import sys; from bbframe.app.cli import main; sys.exit(main())"
        words = ["serve", f"run={tmp_path / 'saved'}", f"port={port}"]
        place = {
            **os.environ,
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "GRADIO_TEMP_DIR": str(tmp_path / "t"),
        }
        with open(tmp_path / "said", "w") as said:
            started.append(subprocess.Popen([sys.executable, "-c", code, *words], env=place, stdout=said, stderr=said))
        page = f"http://127.0.0.1:{port}"
        for _ in range(600):
            text = (tmp_path / "said").read_text()
            if page in text or started[-1].poll() is not None:
                break
            time.sleep(0.1)
        assert page in text, text
        return page, words

    yield start
    for process in started:
        process.terminate()
        process.wait(30)


@pytest.mark.serve
@pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="needs gradio: pip install 'bbframe[serve]'")
@pytest.mark.parametrize("head", ["linear", "mask_rcnn"])
def test_the_page_answers(head, photo, served, tmp_path):
    net = under(head, "tiny_swin")
    page, words = served(net)
    facts = json.loads(ask(f"{page}/config"))
    assert facts["title"] == f"bbframe: {tmp_path / 'saved'}"
    assert facts["analytics_enabled"] is False
    kind, (shown, note) = predicted(page, uploaded(page, photo), *([0.0] if head == "mask_rcnn" else []))
    assert kind == "complete"
    expected = net(pictures()[1], threshold=0)
    if head == "linear":
        assert shown["label"] == expected.label
        assert shown["confidences"][0]["confidence"] == pytest.approx(expected.probability)
        assert "unlike the training images" in note
    else:
        drawn = expected.draw(pictures()[1]).convert("RGB")
        picture = Image.open(io.BytesIO(ask(f"{page}/gradio_api/file={shown['path']}"))).convert("RGB")
        assert picture.tobytes() == drawn.tobytes()
        assert note == f"{len(expected)} objects with a score of 0 or more"
    Path(photo).write_bytes(b"no picture")
    assert predicted(page, uploaded(page, photo), *([0.0] if head == "mask_rcnn" else []))[0] == "error"
    code = "import sys; from bbframe.app.cli import main; sys.exit(main())"
    second = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120)
    assert second.returncode == 1
    assert "cannot be opened" in second.stderr
    assert "Traceback" not in second.stderr
