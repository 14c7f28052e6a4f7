"""Files of every format: what they hold, that they are called as the network itself, and what is refused."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import bbframe
from bbframe.app import cli
from bbframe.data.images.digits import parted, scans
from bbframe.export.export_check import compare_outputs, demand_agreement, tolerances
from bbframe.export.export_options import ENDS, ExportOptions, export_source
from bbframe.export.exported_formats import write_exported
from bbframe.export.network_export import as_outputs, file_metadata, read_reports
from bbframe.export.network_graphs import network_graph
from bbframe.predict import exported_file
from bbframe.predict.exported_file import open_exported
from bbframe.predict.quiet_loggers import quiet_loggers
from tests.export.made_networks import CLASSES, inputs, made_network
from tests.predict.test_load import trained

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "onnx_classifier.py"


def written(network, path, format, inside=False, size=(73, 91)):
    graph = network_graph(network, inside)
    metadata = file_metadata(network, graph.outputs, inside)
    example = torch.randint(255, (2, 3, *size), dtype=torch.uint8) if inside else inputs(network, *size, 2)
    write_exported(graph, example, path, format, metadata)
    return open_exported(path)


@pytest.mark.long
def test_a_detector_as_torchscript_is_the_network_at_other_sizes(tmp_path):
    network = made_network("resnet", "fcos")
    exported = written(network, tmp_path / "model.torchscript", "torchscript")
    for height, width, batch in ((64, 96, 3), (110, 45, 1)):
        x = inputs(network, height, width, batch)
        result = compare_outputs(exported.outputs(x), as_outputs(network, list(x), exported.metadata["outputs"]))
        assert result["agreeing"] == result["compared"] > 10
        assert max(result["worst"].values()) < 1e-4


@pytest.mark.long
def test_a_detector_with_its_preprocessing_inside_finds_boxes_in_the_pixels_of_the_image(tmp_path):
    network = made_network("resnet", "faster_rcnn")
    exported = written(network, tmp_path / "model.torchscript", "torchscript", inside=True)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 130, 3), np.uint8))
    ours, theirs = exported(image, threshold=0), network(image, threshold=0)
    assert ours.size == theirs.size == (130, 70)
    assert len(theirs) > 5
    near = (ours.boxes[:, None] - theirs.boxes[None]).abs().amax(2).amin(0)  # the order may differ by a rounding
    assert (near < 2).float().mean() > 0.9


def test_a_classifier_with_its_preprocessing_inside_takes_images_from_two_pixels(tmp_path):
    network = made_network("resnet", "linear")
    exported = written(network, tmp_path / "model.torchscript", "torchscript", inside=True)
    assert exported.metadata["sides"] == [2, 8192]
    small = Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3))
    torch.testing.assert_close(exported(small).probabilities, network(small).probabilities, atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match=r"model\.torchscript: images of 9x1 pixels; sides must be from 2 to 8192$"):
        exported(Image.new("RGB", (9, 1)))


@pytest.mark.long
def test_a_pt2_file_says_what_it_is_and_is_called_as_the_network(tmp_path):
    network = made_network("convnextv2", "multi_level")
    exported = written(network, tmp_path / "model.pt2", "pt2")
    metadata = exported.metadata
    assert (metadata["version"], metadata["task"], metadata["class_names"]) == (1, "classification", CLASSES)
    assert metadata["preprocessing"]["size"] == [64, 64]
    assert metadata["thresholds"]["temperature"] == 1.5
    assert metadata["sides"][1] == 8192
    loaded = bbframe.load(tmp_path / "model.pt2")
    images = [Image.fromarray(np.full((50 + i, 80, 3), 60 * i, np.uint8)) for i in range(3)]
    for ours, theirs in zip(loaded(images), network(images), strict=True):
        assert ours.label == theirs.label
        torch.testing.assert_close(ours.probabilities, theirs.probabilities)
        assert ours.distance == pytest.approx(theirs.distance, rel=1e-4)
    with pytest.raises(ValueError, match=r"images of 9000x64 pixels; sides must be from \d+ to 8192"):
        exported.outputs(torch.zeros(1, 3, 64, 9000))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantize": "int8", "format": "pt2"}, "quantize=int8 makes ONNX files; use format=onnx, not pt2"),
        ({"quantize": "int8", "preprocessing": True}, "leave preprocessing out"),
        ({"quantize": "int8", "images": ("a",)}, "leave images out"),
    ],
)
def test_what_does_not_go_together_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ExportOptions(run="a", **options)


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ValueError, match=r"openvino is not installed; pip install 'bbframe\[openvino\]'"):
        exported_file.demand_package("openvino")


@pytest.mark.parametrize("name", ["model.bin", "missing.onnx"])
def test_files_that_are_no_exports_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"ends in \.pt2|there is no such file"):
        open_exported(tmp_path / name)


BROKEN = {
    "empty": lambda raw: b"",
    "text": lambda raw: b"hello world",
    "half": lambda raw: raw[: len(raw) // 2],
    "short": lambda raw: raw[:-20],
}


def check_broken_files(path, capfd):
    """A broken file of any kind is one line that names it, and nothing is logged."""
    raw = path.read_bytes()
    capfd.readouterr()
    for kind, broken in BROKEN.items():
        path.write_bytes(broken(raw))
        with pytest.raises(ValueError, match="it is broken or incomplete: export it again") as caught:
            bbframe.load(path)
        text = str(caught.value)
        assert text.startswith(f"{path}: cannot be read as "), kind
        assert "\n" not in text, kind
        assert len(text) < len(str(path)) + 250, kind
        assert "ONNXRuntimeError" not in text, kind
    assert capfd.readouterr() == ("", "")


@pytest.mark.long
@pytest.mark.parametrize("format", ["torchscript", "pt2"])
def test_a_broken_file_is_one_line(format, tmp_path, capfd):
    path = tmp_path / f"model.{format}"
    written(made_network("resnet", "linear"), path, format)
    check_broken_files(path, capfd)


@pytest.mark.onnx
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_a_broken_file_of_another_runtime_is_one_line(format, tmp_path, capfd):
    pytest.importorskip("onnxruntime" if format == "onnx" else "openvino")
    path = tmp_path / f"model{ENDS[format]}"
    written(made_network("resnet", "linear"), path, format)
    if format == "openvino":
        whole = path.with_suffix(".bin").read_bytes()
        path.with_suffix(".bin").write_bytes(whole[:100])
        with pytest.raises(ValueError, match=r"export it again, or copy it with its \.bin"):
            bbframe.load(path)
        path.with_suffix(".bin").write_bytes(whole)
    check_broken_files(path, capfd)


def test_a_file_whose_metadata_lack_something_is_one_line(tmp_path):
    network = made_network("resnet", "linear")
    graph = network_graph(network, False)
    path = tmp_path / "model.torchscript"
    write_exported(graph, inputs(network, 73, 91, 2), path, "torchscript", {"task": "classification"})
    with pytest.raises(ValueError, match=r"cannot be read as torchscript \(.*\); it is broken"):
        bbframe.load(path)


def test_an_exported_file_runs_on_the_cpu_and_says_what_it_is(tmp_path):
    path = tmp_path / "model.torchscript"
    written(made_network("resnet", "linear"), path, "torchscript")
    assert (
        repr(bbframe.load(path, device="auto"))
        == f"ExportedNetwork({str(path)!r}, torchscript, classification, 3 classes)"
    )
    for device in ("cuda", "mps", "gpu"):
        with pytest.raises(
            ValueError, match=f"device='{device}': exported files run on the CPU here; leave device out"
        ):
            bbframe.load(path, device=device)


@pytest.mark.onnx
@pytest.mark.filterwarnings("ignore")
def test_the_exporter_logs_nothing_and_its_loggers_speak_again(tmp_path, caplog, capfd):
    pytest.importorskip("onnxruntime")
    logger = logging.getLogger("onnx_ir._convenience")
    written(made_network("resnet", "faster_rcnn"), tmp_path / "model.onnx", "onnx")
    assert [record for record in caplog.records if record.levelno >= logging.INFO] == []
    assert capfd.readouterr() == ("", "")
    logger.warning("afterwards")
    assert caplog.messages[-1] == "afterwards"


def test_loggers_are_quiet_below_a_name_only_and_for_a_while(caplog):
    named, below, other = (logging.getLogger(name) for name in ("quiet_one", "quiet_one.below", "quiet_others"))
    below.setLevel(logging.INFO)
    with quiet_loggers("quiet_one"):
        for logger in (named, below, logging.getLogger("quiet_one.later")):
            logger.critical("inside")
        other.warning("other")
    for logger in (named, below):
        logger.warning("after")
    assert caplog.messages == ["other", "after", "after"]
    assert (named.level, below.level) == (logging.NOTSET, logging.INFO)


def test_an_export_that_differs_is_refused_with_its_numbers():
    result = {"compared": 10, "agreeing": 10, "worst": {"probabilities": 0.02}, "mean": {}}
    with pytest.raises(ValueError, match=r"probabilities differ by up to 0\.02 from PyTorch's, more than 0\.001"):
        demand_agreement("model.onnx", result, tolerances(inside=False))
    demand_agreement("model.onnx", result, tolerances(inside=True))
    with pytest.raises(ValueError, match="only 3 of 10 results are PyTorch's"):
        demand_agreement("model.onnx", {**result, "agreeing": 3, "worst": {}}, tolerances(inside=False))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("run"), "trainer.max_epochs=1", "backbone.out_indices=[4]")


@pytest.mark.long
def test_a_run_is_exported_by_one_command(run, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bbframe", "export", f"run={run}", "format=torchscript"])
    assert cli.main() == 0
    printed = capsys.readouterr().out
    assert "results as PyTorch's" in printed
    assert "sides from 32 to 8192 pixels" in printed
    said = json.loads((run / "export" / "export.json").read_text())["model.torchscript"]
    assert said["agreeing"] == said["compared"] > 16
    assert said["files"]["model.torchscript"]["bytes"] == (run / "export" / "model.torchscript").stat().st_size
    assert len(said["images"]) == 16
    assert cli.main() == 1
    assert "is there already; give another out=, or overwrite=true replaces it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"run": "a/b.onnx"}, "run=a/b.onnx is exported already; give the run that it comes from"),
        (
            {"run": "anna/flowers"},
            "run=anna/flowers is not here, .* on the Hub, .*; give images= to check",
        ),
        ({"run": "anna/flowers", "quantize": "int8"}, "quantize=int8 needs the images of a run, so give a run folder"),
        ({"run": "saved"}, "run=saved is a saved network, .*; give images= to check the export on"),
        ({"run": "saved", "out": "there.onnx", "images": ("a",)}, r"there\.onnx is there already; give another out="),
        ({"run": "saved", "out": "a.pt2"}, r"out=a\.pt2 must end in \.onnx for format=onnx"),
        ({"run": "nowhere"}, "nowhere: there is no 'nowhere' in "),
    ],
)
def test_what_the_words_alone_decide_is_one_line(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "bbframe.json").touch()
    (tmp_path / "there.onnx").touch()
    with pytest.raises(ValueError, match=message) as caught:
        export_source(ExportOptions(**options))
    assert "\n" not in str(caught.value)


def test_the_place_of_an_export_is_beside_its_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "bbframe.json").touch()
    for run, place in (("saved", "saved/export"), ("anna/flowers", "outputs/anna--flowers/export")):
        assert export_source(ExportOptions(run=run, images=("a",), format="pt2"))[1] == Path(place, "model.pt2")


def test_an_export_that_is_there_already_is_refused_before_torch_is_imported(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "export").mkdir()
    for name in ("config.yaml", "checkpoints/best.ckpt", "export/model.onnx"):
        (tmp_path / name).write_text("{}")
    code = f"""
import sys
from bbframe.app.export_command import export
try:
    export(["run={tmp_path}"])
except ValueError as error:
    print(error)
print("torch" in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    text, heavy = done.stdout.splitlines()
    assert "is there already; give another out=" in text
    assert heavy == "False"


def test_a_saved_folder_is_exported(run, tmp_path, monkeypatch, capsys):
    bbframe.load(run).save_pretrained(tmp_path / "saved")
    (tmp_path / "pictures").mkdir()
    for index in range(3):
        Image.fromarray(scans()[0][index]).save(tmp_path / "pictures" / f"{index}.png")
    words = [f"run={tmp_path / 'saved'}", "format=torchscript", f"images={tmp_path / 'pictures'}"]
    monkeypatch.setattr(sys, "argv", ["bbframe", "export", *words])
    assert cli.main() == 0
    assert "results as PyTorch's" in capsys.readouterr().out
    exported, network = (bbframe.load(tmp_path / "saved" / end) for end in ("export/model.torchscript", ""))
    image = tmp_path / "pictures" / "0.png"
    assert exported(image).probability == pytest.approx(network(image).probability, abs=1e-4)


def test_the_reports_of_several_files_stand_side_by_side(tmp_path):
    assert read_reports(tmp_path / "export.json") == {}
    (tmp_path / "export.json").write_text('{"model.onnx": {"format": "onnx"}}')
    assert read_reports(tmp_path / "export.json") == {"model.onnx": {"format": "onnx"}}
    for content, text in (("[1]", "is no report of exports"), ("{", "cannot be read"), ('{"a": 1}', "is no report")):
        (tmp_path / "export.json").write_text(content)
        with pytest.raises(ValueError, match=text):
            read_reports(tmp_path / "export.json")


@pytest.mark.onnx
@pytest.mark.filterwarnings("ignore")
def test_the_example_needs_onnxruntime_alone(run, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    monkeypatch.setattr(sys, "argv", ["bbframe", "export", f"run={run}", "preprocessing=true", f"out={path}"])
    assert cli.main() == 0
    assert "bbframe" not in [line.split()[1] for line in EXAMPLE.read_text().splitlines() if line.startswith("import")]
    net = bbframe.load(run)
    for index in parted()["test"][:3]:
        image = Image.fromarray(scans()[0][index]).resize((60, 50))
        image.save(tmp_path / "digit.png")
        done = subprocess.run([sys.executable, EXAMPLE, path, tmp_path / "digit.png"], capture_output=True, text=True)
        label, probability = done.stdout.splitlines()[0].split("\t")
        assert label == net(image).label
        assert float(probability) == pytest.approx(net(image).probability, abs=1e-3)


@pytest.mark.onnx
@pytest.mark.filterwarnings("ignore")
def test_eight_bits_keep_most_of_the_accuracy(run, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "small.onnx"
    monkeypatch.setattr(sys, "argv", ["bbframe", "export", f"run={run}", "quantize=int8", f"out={path}"])
    assert cli.main() == 0
    printed = capsys.readouterr().out
    assert "int8: accuracy" in printed
    report = json.loads(path.with_name("export.json").read_text())["small.onnx"]
    said = report["quantize"]
    assert said["int8"]["accuracy"] > said["float32"]["accuracy"] - 0.05
    # what is printed and stands first is of the file that was written, the graph before is told apart
    assert f"probabilities within {report['worst']['probabilities']:.1e}" in printed
    assert report["tolerances"] is None
    assert report["worst"]["probabilities"] > 1e-3 > said["float32"]["worst"]["probabilities"]
    assert report["agreeing"] > 0.8 * report["compared"]
    assert bbframe.load(path)(Image.fromarray(scans()[0][0])).label in open_exported(path).class_names
