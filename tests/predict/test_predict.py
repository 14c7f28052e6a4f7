"""Prediction: what is found, what is written, what is refused, and that the numbers are the network's."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from bbframe.app import cli, train
from bbframe.data import make_data
from bbframe.data.boxes.box_options import DigitScenesOptions
from bbframe.data.images.digits import scans
from bbframe.predict import trained_network
from bbframe.predict.image_results import ClassResult
from bbframe.predict.input_images import InputImage, find_images
from bbframe.predict.network_loading import find_checkpoint
from bbframe.predict.predict_options import PredictOptions
from bbframe.predict.prediction import check_out, predict_images, results_folder
from bbframe.predict.prediction_results import BoxResults, BoxRow, ClassResults, ClassRow, LoadedImage
from bbframe.predict.trained_network import TrainedNetwork, load_trained_network
from bbframe.preprocessing import Preprocessing
from bbframe.tasks.calibration import Calibration

TINY = ["backbone=convnextv2_atto", "backbone.depths=[1,1,1,1]", "backbone.hidden_sizes=[8,16,24,32]", "optim.lr=0.01"]


@pytest.fixture(autouse=True)
def _at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def trained(place, *overrides):
    """The folder of a new run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert train.main([*TINY, *overrides]) == 0
    (metrics,) = place.rglob("metrics.json")
    return metrics.parent


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A run on the digits, with settings that a machine for prediction need not honour."""
    more = ["trainer.max_epochs=2", "data.batch_size=64", "trainer.accelerator=cpu", "logger=csv"]
    return trained(tmp_path_factory.mktemp("classification"), *more)


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A run on a few scenes, whose images are halved before the network sees them; it finds masks too."""
    scenes = ["data.train_scenes=16", "data.val_scenes=2", "data.test_scenes=2", "data.min_size=48"]
    small = ["head=mask_rcnn", "head.channels=8", "head.score_threshold=0.0", "head.detections_per_image=5"]
    place = tmp_path_factory.mktemp("detection")
    return trained(place, "task=detection", *small, *scenes, "trainer.max_epochs=1", "optim.lr=1e-5")


@pytest.fixture
def photos(tmp_path):
    """Scans as files in folders, one with a wrong suffix for a picture, one hidden, one that is no image."""
    pixels, _ = scans()
    for index, name in enumerate(["a/0.png", "a/1.jpg", "b/0.png", "b/2.webp", "b/.hidden.png", "3.PNG"]):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[index]).resize((40, 24 + 8 * index)).save(file)
    (tmp_path / "photos" / "b" / "broken.png").write_bytes(b"no picture")
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    return tmp_path / "photos"


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# the command line


def test_values_are_read_as_what_they_are():
    options = cli.prediction_options(
        ["run=2024", "images=a", "threshold=1e-1", "batch_size=3", "overwrite=True", "out=7"]
    )
    assert options == PredictOptions(
        run="2024", images=("a",), threshold=0.1, batch_size=3, overwrite=True, out="7", device="auto"
    )
    assert cli.prediction_options(["run=r", "images=a", "threshold=1"]).threshold == 1.0


def test_several_images_may_be_listed_in_any_way(tmp_path):
    for name in ("with, comma.png", "x=y.png"):
        (tmp_path / name).touch()
    for line, expected in [
        (["images=a.png,b"], ("a.png", "b")),
        (["images=[a.png, b]"], ("a.png", "b")),
        (["images=a.png", "b", "c"], ("a.png", "b", "c")),
        (["images=", "a.png", "x=y.png"], ("a.png", "x=y.png")),
        (["images=a", "images=b"], ("a", "b")),
        (["images=with, comma.png"], ("with, comma.png",)),
        (["images=*.png"], ("*.png",)),
    ]:
        assert cli.prediction_options([*line, "run=r"]).images == expected


def test_paths_take_a_tilde_spaces_accents_and_equals_signs(tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / "my photos (1)").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    line = ["run=~/runs/lr=0.1,depth=3", "images=~/my photos (1)", "~/niños", "out=~/a=b é"]
    options = cli.prediction_options(line)
    assert options.run == f"{home}/runs/lr=0.1,depth=3"
    assert options.images == (f"{home}/my photos (1)", f"{home}/niños")
    assert options.out == f"{home}/a=b é"
    assert cli.prediction_options(["run=r", "images=~/niños,x=1/my photos"]).images == (
        f"{home}/niños",
        "x=1/my photos",
    )
    assert cli.prediction_options(["run=r", "images=[~/a, b c]"]).images == (f"{home}/a", "b c")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("run=r", "predict: images must be given"),
        ("images=a", "predict: run must be given"),
        ("run=r images=", "predict: images must name files or folders"),
        ("run=r image=a", "predict: unknown option 'image'; did you mean 'images'?"),
        ("run=r images=a treshold=0.3", "predict: unknown option 'treshold'; did you mean 'threshold'?"),
        ("run=r images=a threshold=high", "predict: threshold='high' must be a number"),
        ("run=r images=a threshold=50", "predict: threshold=50 must be a number within 0..1"),
        ("run=r images=a batch_size=0", "predict: batch_size=0 must be an integer within 1..65536 images"),
        ("run=r images=a device=cudo", "predict: device='cudo'; did you mean 'cuda'?"),
        ("photos run=r images=a", "'photos' is no option; write key=value"),
        ("--fast run=r images=a", "'--fast' is no option"),
    ],
)
def test_a_wrong_option_is_said_in_one_line(line, said):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        cli.prediction_options(line.split())
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gpu_without_one_is_said_at_once(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"device=gpu, but torch .* finds none here; use device=auto"):
        PredictOptions(run="r", images=("a",), device="gpu")


# files


def test_a_folder_is_searched_and_pictures_keep_the_names(photos):
    found = find_images([str(photos)], Path("out"))
    assert [image.name for image in found] == ["3.PNG", "a/0.png", "a/1.jpg", "b/0.png", "b/2.webp", "b/broken.png"]
    assert [image.path for image in found] == [photos / image.name for image in found]
    assert [image.picture for image in found if image.name != "b/2.webp"] == [
        Path("out", image.name) for image in found if image.name != "b/2.webp"
    ]
    assert found[4].picture == Path("out/b/2.webp.png")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["photos/b"], ["0.png", "2.webp", "broken.png"]),
        (["photos/a/0.png"], ["0.png"]),
        (["photos/a/0.png", "photos/b/0.png"], ["a/0.png", "b/0.png"]),
        (["photos/a", "photos/b/0.png", "photos/a/0.png"], ["a/0.png", "a/1.jpg", "b/0.png"]),
        (["photos/*/0.png"], ["a/0.png", "b/0.png"]),
        (["photos/**/*.png"], ["a/0.png", "b/0.png", "b/broken.png"]),
        (["photos/notes.txt"], ["notes.txt"]),  # who names a file means it
    ],
)
def test_names_are_relative_to_what_the_images_share(photos, words, names):
    assert [image.name for image in find_images(words, Path("out"))] == names


def test_no_two_pictures_have_one_name(photos):
    shutil.copy(photos / "b" / "2.webp", photos / "x.webp")
    shutil.copy(photos / "a" / "0.png", photos / "x.webp.png")
    found = find_images([str(photos)], Path("out"))
    assert len({image.picture for image in found}) == len(found)
    assert {image.picture.name for image in found if "x" in image.name} == {"x.webp.png", "x.webp.png.png"}


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("photo", "images=photo: there is no 'photo' in .*; did you mean 'photos'?"),
        ("photos/a/9.png", r"there is no '9.png' in .*photos/a; did you mean '0.png'\?"),
        ("nowhere/at/all", "there is no 'nowhere' in .*, but photos$"),
        ("photos/*.gif", r"there is no '\*.gif' in .*photos, but 3.PNG, a, b, many$"),
        ("photos/note.txt", r"there is no 'note.txt' in .*photos, but 3.PNG, a, b, many$"),  # a text is no hint
        ("photos/b/empty/x.png", r"there is no 'x.png' in .*empty, nor any image or folder$"),
        (
            "photos/many/x.gif",
            r"there is no 'x.gif' in .*many, but 10.png, 11.png, 12.png, 13.png, 14.png and 5 more$",
        ),
        ("photos/b/empty", r"predict: no image \(.*\.webp\) in images=photos/b/empty"),
    ],
)
def test_images_that_are_not_there(photos, word, said):
    for name in ("b/empty", "many", "b/.hidden"):
        (photos / name).mkdir()
    for number in range(10, 20):
        (photos / "many" / f"{number}.png").touch()
    with pytest.raises(ValueError, match=said):
        find_images([word], Path("out"))


TABLE = "image,predicted,probability\nold.png,cat,0.9\n"
WRITTEN = {"predictions.csv": TABLE, "predictions.json": "[]\n", "images.json": '{\n "images": []}'}


@pytest.mark.parametrize(
    ("names", "ours"),
    [
        (["predictions.csv"], True),
        (["predictions.json", "images.json"], True),
        (["images.json"], False),
        (["predictions.json"], False),
        ([], False),
    ],
)
def test_results_of_an_earlier_prediction_are_no_images(photos, names, ours):
    earlier = photos / "a" / "seen"
    earlier.mkdir()
    for name in names:
        (earlier / name).write_text(WRITTEN[name])
    shutil.copy(photos / "a" / "0.png", earlier / "old.png")
    for out in (Path("out"), earlier):  # wherever the new results go
        found = [image.name for image in find_images([str(photos)], out)]
        assert ("a/seen/old.png" not in found) == ours
        assert len(found) == 6 + (not ours)
    assert [image.name for image in find_images([str(earlier)], Path("out"))] == ["old.png"]  # who names it means it


def test_a_table_of_ones_own_hides_no_images(photos):
    (photos / "a" / "predictions.csv").write_text("file,class\n")
    (photos / "a" / "images.json").write_text('{"images": []}')
    assert len(find_images([str(photos)], Path("out"))) == 6


def test_what_is_written_is_known_as_results(tmp_path):
    for place, results, row in (
        ("few", ClassResults(canned()), ClassRow("a.png", [("cat", 0.9)])),
        ("many", ClassResults(canned()), ClassRow("a.png", [("cat", 0.9), ("dog", 0.1)])),
        ("boxes", BoxResults(canned(), 0.5), BoxRow({"id": 1, "file_name": "a.png"}, [])),
    ):
        folder = tmp_path / "all" / place
        folder.mkdir(parents=True)
        Image.new("L", (8, 8)).save(folder / "a.png")
        assert len(find_images(["all"], Path("out"))) == 1
        results.write(folder, [row])
        with pytest.raises(ValueError, match="no image"):
            find_images(["all"], Path("out"))


def test_your_images_and_earlier_results_are_never_overwritten(photos):
    for out in (photos, photos / "a", photos.parent):
        with pytest.raises(ValueError, match=r"out=.* holds your image .*; name another folder"):
            check_out(out, find_images([str(photos)], out), overwrite=True)
    out = photos.parent / "out"
    found = find_images([str(photos)], out)
    check_out(out, found, overwrite=False)
    out.mkdir()
    (out / "3.PNG").symlink_to(photos / "3.PNG")
    with pytest.raises(ValueError, match=r"would overwrite your image .*3.PNG"):
        check_out(out, found, overwrite=True)
    (out / "3.PNG").unlink()
    (out / "3.PNG").touch()
    with pytest.raises(ValueError, match=r"holds results already \(3.PNG\); .* overwrite=true replaces them"):
        check_out(out, found, overwrite=False)
    check_out(out, found, overwrite=True)


def test_a_folder_stays_only_with_something_in_it(photos):
    with pytest.raises(ValueError, match="cannot make this folder"), results_folder(photos / "notes.txt" / "out"):
        pass
    new = Path("new/deep/out")

    def fail():
        with results_folder(new):
            assert new.is_dir()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not Path("new").exists()
    with results_folder(new):
        (new.parent / "file").touch()
    assert files(Path("new")) == ["deep/file"]
    assert not new.exists()
    new.mkdir()
    with results_folder(new):  # it was there before
        pass
    assert new.is_dir()


def test_the_best_checkpoint_is_taken_else_the_last(tmp_path):
    run = tmp_path / "sweep" / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text("seed: 1\n")
    with pytest.raises(ValueError, match=r"run: the run left no checkpoints/best.ckpt or last.ckpt"):
        find_checkpoint(run)
    for name in ("last.ckpt", "best.ckpt"):
        (run / "checkpoints" / name).touch()
        assert find_checkpoint(run) == run / "checkpoints" / name
    assert find_checkpoint(run / "checkpoints" / "last.ckpt").name == "last.ckpt"
    with pytest.raises(ValueError, match=r"sweep: not a run folder, it holds no config.yaml; run folders in it: run"):
        find_checkpoint(run.parent)
    with pytest.raises(ValueError, match=r"there is no 'rum' in .*; closest there: run"):
        find_checkpoint(run.parent / "rum")


@pytest.mark.parametrize("content", [{"state_dict": {}}, {"state_dict": {}, "bbframe": {"config": {}}}])
def test_a_checkpoint_that_does_not_say_how_images_are_prepared_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"last.ckpt does not say how its images were prepared: .*; train again"):
        load_trained_network(tmp_path / "last.ckpt")


@pytest.mark.long
def test_how_and_where_it_was_trained_does_not_matter(classifier, tmp_path):
    saved = torch.load(classifier / "checkpoints" / "best.ckpt", weights_only=True)
    record = saved["bbframe"]
    record["config"]["trainer"].update(accelerator="gpu", devices=64)
    record["config"]["logger"] = {"gone": {"_target_": "a.logger.that.is.not.Installed"}}
    record["config"]["task"]["compile"] = True
    record["config"]["backbone"].update(pretrained=True, checkpoint=str(tmp_path / "gone"))
    record["category_ids"] = list(range(10, 110, 10))
    torch.save(saved, tmp_path / "moved.ckpt")
    network = load_trained_network(tmp_path / "moved.ckpt", device="cpu")
    assert network.category_ids == record["category_ids"]
    assert not network.task.training
    assert network.class_names == [str(digit) for digit in range(10)]
    image = Image.new("L", (8, 8))
    original = load_trained_network(classifier / "checkpoints" / "best.ckpt")
    # the calibration lies in the run folder, and the moved checkpoint is without it
    assert torch.equal(
        network.task.scores([network.preprocessing(image)]), original.task.scores([original.preprocessing(image)])
    )
    assert (network.calibration, network(image).unfamiliar) == (Calibration(), None)


def test_a_strangers_checkpoint_asks_nobody_for_its_backbone(classifier, tmp_path, monkeypatch):
    """What it holds is used from it; what it only names is refused, and no request leaves the machine."""
    asked: list[str] = []
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda name, *rest, **options: asked.append(name))
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda url, **options: asked.append(url))
    saved = torch.load(classifier / "checkpoints" / "best.ckpt", weights_only=True)
    record = saved["bbframe"]
    for evil in (
        {"model_type": "timm_backbone", "backbone": "hf-hub:evil/x", "pretrained": True},
        {"model_type": "resnet", "source": "timm", "timm_name": "hf-hub:evil/x"},
        {"model_type": "resnet", "pretrained": True, "checkpoint": "evil/x"},
    ):
        record["config"]["backbone"] = evil
        torch.save(saved, tmp_path / "strange.ckpt")
        assert load_trained_network(tmp_path / "strange.ckpt", device="cpu").class_names
    for name in ("hf-hub:evil/x", "evil/x", "hf_hub:evil/x@main"):
        record["backbone"] = {"model_type": "timm_backbone", "backbone": name, "use_pretrained_backbone": True}
        torch.save(saved, tmp_path / "strange.ckpt")
        with pytest.raises(ValueError, match=r"a checkpoint may send nothing to the Hub$") as error:
            load_trained_network(tmp_path / "strange.ckpt", device="cpu")
        assert "\n" not in str(error.value)
    assert asked == []


# classification


def test_classes_are_those_that_the_network_says(classifier, photos, capsys):
    assert predict_images(PredictOptions(run=str(classifier), images=(str(photos),), out="out", batch_size=2)) == 0
    rows = table(Path("out/predictions.csv"))
    assert [row["image"] for row in rows] == ["3.PNG", "a/0.png", "a/1.jpg", "b/0.png", "b/2.webp"]
    network = load_trained_network(classifier / "checkpoints" / "best.ckpt")
    for row in rows:
        grey = Image.open(photos / row["image"]).convert("L")  # evaluated as the digits were: squashed to 32 x 32
        pixels = torch.from_numpy(np.array(grey.resize((32, 32), Image.Resampling.BICUBIC))).float() / 255
        mean, std = (torch.tensor(x).view(3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        with torch.no_grad():
            scores = network.task(((pixels.expand(3, -1, -1) - mean) / std)[None])
            shares = (scores / network.calibration.temperature).softmax(1)[0]
        best = shares.sort(descending=True)
        ends = ["", "_2", "_3", "_4", "_5"]
        assert [row[f"predicted{end}"] for end in ends] == [str(i) for i in best.indices[:5].tolist()]
        said = [float(row[f"probability{end}"]) for end in ends]
        np.testing.assert_allclose(said, best.values[:5], atol=1e-5 if row["image"].lower().endswith("png") else 1e-2)
    said = capsys.readouterr()
    broken = f"{photos / 'b' / 'broken.png'}: not an image"
    assert said.err == f"skipped {broken}\n"
    assert said.out.splitlines()[:2] == ["skipped:", f"  {broken}"]
    assert said.out.splitlines()[2].startswith("predicted 5 of 6 images, 1 skipped, ")
    assert said.out.endswith(" s: out\n")


def test_the_command_leaves_every_image_with_a_caption_in_the_run_folder(classifier, photos, monkeypatch):
    line = ["predict", f"run={classifier}/checkpoints/last.ckpt", "images=photos/a", "photos/b", "photos/3.PNG"]
    monkeypatch.setattr(sys, "argv", ["bbframe", *line])
    assert cli.main() == 0
    out = classifier / "predictions"
    assert files(out) == ["3.PNG", "a/0.png", "a/1.jpg", "b/0.png", "b/2.webp.png", "predictions.csv"]
    for name in ("a/0.png", "b/2.webp"):
        before, after = Image.open(photos / name), Image.open(out / name.replace("webp", "webp.png"))
        factor = after.width // before.width
        assert after.height > before.height * factor
        inside = after.crop((0, 0, before.width * factor, before.height * factor))
        expected = before.convert("RGB").resize(inside.size, Image.Resampling.NEAREST)
        np.testing.assert_array_equal(np.asarray(inside), np.asarray(expected))
    shutil.rmtree(out)


def test_the_batch_size_changes_nothing(classifier, photos):
    for size in (1, 64):
        predict_images(PredictOptions(run=str(classifier), images=(str(photos),), out=f"out{size}", batch_size=size))
    one, many = (table(Path(f"out{size}/predictions.csv")) for size in (1, 64))
    for row, other in zip(one, many, strict=True):
        assert row["predicted"] == other["predicted"]
        assert float(row["probability"]) == pytest.approx(float(other["probability"]), abs=1e-5)


def test_where_nothing_can_be_read_nothing_is_written(classifier, photos, capsys):
    assert (
        predict_images(PredictOptions(run=str(classifier), images=(str(photos / "b" / "broken.png"),), out="out")) == 1
    )
    assert not Path("out").exists()
    assert "predicted 0 of 1 images, 1 skipped" in capsys.readouterr().out


def test_what_was_done_before_an_interruption_is_written(classifier, photos, monkeypatch):
    calls = []

    def tired(network, images):
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return [ClassResult(torch.full((10,), 0.1), network.class_names)] * len(images)

    monkeypatch.setattr(TrainedNetwork, "answers", tired)
    with pytest.raises(KeyboardInterrupt):
        predict_images(PredictOptions(run=str(classifier), images=(str(photos),), out="out", batch_size=2))
    assert len(table(Path("out/predictions.csv"))) == 2


@pytest.fixture
def broken(classifier, tmp_path):
    """A function that writes the classifier's checkpoint changed: broken(change) -> its path."""

    def write(change):
        content = torch.load(classifier / "checkpoints" / "best.ckpt", weights_only=True)
        change(content)
        torch.save(content, tmp_path / "broken.ckpt")
        return tmp_path / "broken.ckpt"

    return write


def blank(content, word="", value=float("nan")):
    """Spoil the weights whose name has a word in it."""
    for key, weight in content["state_dict"].items():
        if word in key and weight.is_floating_point():
            weight.fill_(value)


def tiny_std(content):
    content["bbframe"]["inputs"]["std"] = [1e-300] * 3


def large_weights(content):
    blank(content, "backbone", 1e30)


@pytest.mark.parametrize("change", [blank, tiny_std, large_weights])
def test_what_is_not_finite_is_no_prediction(broken, change, photos):
    path = broken(change)
    with pytest.raises(ValueError, match="not finite") as caught:
        predict_images(PredictOptions(run=str(path), images=(str(photos),), out="out"))
    assert f"predict: checkpoint {path} gives numbers that are not finite (nan or inf)" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("out").exists()


@pytest.mark.long
def test_a_detector_whose_maps_are_not_finite_finds_nothing_silently_no_more(detector, scenes, tmp_path):
    content = torch.load(detector / "checkpoints" / "best.ckpt", weights_only=True)
    tiny_std(content)
    torch.save(content, tmp_path / "broken.ckpt")
    with pytest.raises(ValueError, match=r"checkpoint .*broken.ckpt gives numbers that are not finite"):
        predict_images(PredictOptions(run=str(tmp_path / "broken.ckpt"), images=(str(scenes),), out="out"))


def test_names_in_the_table_are_exact_but_for_control_characters(tmp_path):
    network = SimpleNamespace(class_names=["=1+1", "a\x1b[31m\nb", "@x, y"])
    rows = [ClassRow("-rf\udce9.png", list(zip(network.class_names, (0.5, 0.3, 0.2), strict=True)))]
    ClassResults(network).write(tmp_path, rows)
    (row,) = table(tmp_path / "predictions.csv")
    assert row["image"] == r"-rf\udce9.png"
    found = [row["predicted"], row["predicted_2"], row["predicted_3"]]
    assert found == ["=1+1", r"a\x1b[31m\nb", "@x, y"]


def test_odd_files_are_named_or_read(classifier, photos, capsys):
    os.mkfifo(photos / "a" / "fifo.png")
    os.mkfifo(photos / "b" / "predictions.csv")
    (photos / "b" / "x.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (photos / "a" / "0.png").rename(os.fsdecode(os.fsencode(photos / "a") + b"/\xe9.png"))
    assert predict_images(PredictOptions(run=str(classifier), images=(str(photos),), out="out")) == 0
    names = [row["image"] for row in table(Path("out/predictions.csv"))]
    assert names == ["3.PNG", "a/1.jpg", r"a/\udce9.png", "b/0.png", "b/2.webp"]
    assert os.path.isfile(b"out/a/\xe9.png")
    said = capsys.readouterr().out
    assert f"  {photos / 'a' / 'fifo.png'}: is no regular file\n" in said
    assert f"  {photos / 'b' / 'x.heic'}: not an image\n" in said
    assert "predicted 5 of 8 images, 3 skipped" in said


def test_the_images_come_before_the_network(classifier, photos, monkeypatch):
    monkeypatch.setattr(trained_network, "load_trained_network", None)
    with pytest.raises(ValueError, match="there is no 'phots'"):
        predict_images(PredictOptions(run=str(classifier), images=("phots",)))


# detection


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Scenes as files, one of them twice as large."""
    options = DigitScenesOptions(train_scenes=2, val_scenes=2, test_scenes=3)
    data = make_data(options, seed=0, preprocessing=Preprocessing(), num_channels=3, stride=32)
    folder = tmp_path_factory.mktemp("scenes")
    for index in range(3):
        image = Image.fromarray(data.picture("test", index).permute(1, 2, 0).numpy())
        image.resize((192, 192) if index == 2 else (96, 96)).save(folder / f"{index}.png")
    (folder / "1a.png").write_bytes(b"no picture")
    return folder


def test_detections_are_those_of_the_network_in_pixels_of_the_image(detector, scenes, capsys):
    assert predict_images(PredictOptions(run=str(detector), images=(str(scenes),), out="out", batch_size=3)) == 0
    assert "predicted 3 of 4 images, 1 skipped" in capsys.readouterr().out
    assert files(Path("out")) == ["0.png", "1.png", "2.png", "images.json", "predictions.json"]
    rows = json.loads(Path("out/predictions.json").read_text())
    images = json.loads(Path("out/images.json").read_text())
    ids = {image["file_name"]: image["id"] for image in images["images"]}
    assert ids == {"0.png": 1, "1.png": 2, "2.png": 4}
    network = load_trained_network(detector / "checkpoints" / "best.ckpt")
    for name, number in ids.items():
        image = Image.open(scenes / name)
        pixels, scale = network.preprocessing(image), network.preprocessing.scale(image.size)
        assert pixels.shape[1:] == (48, 48)
        assert scale == pytest.approx((48 / image.width, 48 / image.height))
        (found,) = network.answers([pixels])
        said = [row for row in rows if row["image_id"] == number]
        assert len(said) == len(found["scores"]) == 5
        corners = found["boxes"] * image.width / 48
        sides = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
        np.testing.assert_allclose([row["bbox"] for row in said], sides, atol=0.2)
        np.testing.assert_allclose([row["score"] for row in said], found["scores"], atol=1e-3)
        assert all(row["segmentation"]["size"] == [image.height, image.width] for row in said)


def test_tools_for_coco_read_the_results(detector, scenes):
    from faster_coco_eval import COCO

    predict_images(PredictOptions(run=str(detector), images=(str(scenes),), out="out", threshold=0.0))
    truth = COCO("out/images.json")
    results = truth.loadRes("out/predictions.json")
    assert len(results.getAnnIds()) == 15
    assert [truth.cats[i]["name"] for i in truth.getCatIds()] == [str(digit) for digit in range(10)]
    for annotation in results.anns.values():
        image = truth.imgs[annotation["image_id"]]
        assert results.annToMask(annotation).shape == (image["height"], image["width"])


def canned(**more):
    """A network of two classes without weights."""
    return SimpleNamespace(**{"class_names": ["cat", "dog"], "category_ids": [3, 17], **more})


def loaded(number, image, scale):
    return LoadedImage(number, InputImage(Path("a.png"), "a.png", Path("out/a.png")), image, None, scale)


def test_the_threshold_is_for_the_picture_and_the_table_has_all():
    answer = {
        "boxes": torch.tensor([[10.0, 20, 60, 70], [100, 100, 150, 140]]),
        "scores": torch.tensor([0.9, 0.2]),
        "labels": torch.tensor([1, 0]),
    }
    plain = Image.new("RGB", (800, 400))
    boxes = BoxResults(canned(), threshold=0.5)
    picture, (seen, rows) = boxes.draw(loaded(7, plain, (0.25, 0.5)), answer)
    assert seen == {"id": 7, "file_name": "a.png", "width": 800, "height": 400}
    assert [(row["image_id"], row["category_id"]) for row in rows] == [(7, 17), (7, 3)]
    assert [row["bbox"] for row in rows] == [[40, 40, 200, 100], [400, 200, 200, 80]]
    touched = np.asarray(picture).any(2)
    assert touched[20:145, 40:245].any()
    touched[10:145, 35:245] = False
    assert not touched.any()
    both = BoxResults(canned(), threshold=0.1).draw(loaded(7, plain, (0.25, 0.5)), answer)[0]
    assert np.asarray(both)[200:280, 400:600].any()


def test_masks_take_the_size_of_the_image(tmp_path):
    from faster_coco_eval.core import mask

    answer = {
        "boxes": torch.tensor([[0.0, 0, 10, 20]]),
        "scores": torch.tensor([0.9]),
        "labels": torch.tensor([0]),
        "masks": torch.zeros(1, 1, 28, 28),  # within the box
    }
    answer["masks"][..., :14, :] = 1.0
    boxes = BoxResults(canned(), threshold=0.5)
    _, (seen, (row,)) = boxes.draw(loaded(1, Image.new("L", (400, 200)), (0.1, 0.1)), answer)
    decoded = mask.decode(row["segmentation"])
    assert decoded.shape == (200, 400)
    assert decoded[4:96, 4:96].all()
    assert not decoded[104:].any()
    assert not decoded[:, 104:].any()
    boxes.write(tmp_path, [BoxRow(seen, [row])])
    written = json.loads((tmp_path / "images.json").read_text())
    assert written["categories"] == [{"id": 3, "name": "cat"}, {"id": 17, "name": "dog"}]
