"""`bbframe rank` from the command line: images in, a table, a page and a command out."""

import json
import shlex

import pytest

from bbframe.app import train
from bbframe.app.cli import _run
from tests.tiny import tiny


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BBFRAME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def weights(tmp_path):
    """Two folders of weights, as a training leaves them."""
    for name in ("resnet", "convnextv2"):
        tiny(name, out_indices=[-1]).save_pretrained(tmp_path / f"own_{name}")
    return ["own_resnet", "own_convnextv2"]


def ranked(*arguments):
    assert _run(["rank", *arguments]) == 0
    (path,) = [*_folder(arguments).rglob("rank.json")]
    return json.loads(path.read_text()), path.parent


def _folder(arguments):
    from pathlib import Path

    out = [a.partition("=")[2] for a in arguments if a.startswith("out=")]
    return Path(out[0]) if out else Path("outputs/rank")


@pytest.mark.long
def test_scores_alone_with_weights_of_ones_own(weights, capsys):
    found, folder = ranked(f"backbones={','.join(weights)}", "images=60", "finalists=0", "data.batch_size=32")
    out = capsys.readouterr().out
    assert [row["name"] for row in found["backbones"]] in (weights, weights[::-1])
    assert found["race"] is None
    assert not found["untrained"]
    assert "untrained" not in out
    assert found["images"] == 60
    for row in found["backbones"]:
        assert row["computed_images"] == 60
        assert [stage["name"] for stage in row["stages"]][:2] == ["stem", "stage1"]
        assert set(row["sha256"]) == {"model.safetensors"}
    for name in ("report.html", "rank.md", "score_by_stage.png", "score_against_latency.png", "embedding_map.json"):
        assert (folder / name).stat().st_size > 500
    assert found["command"] in out
    train.command_of(shlex.split(found["command"])[2:])

    again, _ = ranked(f"backbones={','.join(weights)}", "images=60", "finalists=0", "data.batch_size=32", "out=again")
    assert [row["computed_images"] for row in again["backbones"]] == [0, 0]
    assert [row["score"] for row in again["backbones"]] == [row["score"] for row in found["backbones"]]


@pytest.mark.long
def test_untrained_networks_are_called_untrained_everywhere(capsys):
    found, folder = ranked(
        "backbones=convnextv2_atto", "pretrained=false", "images=40", "finalists=0", "data.image_size=32"
    )
    assert found["untrained"]
    assert found["backbones"][0]["untrained"]
    assert found["backbones"][0]["prior"] is None
    texts = [capsys.readouterr().out, (folder / "rank.md").read_text(), (folder / "report.html").read_text()]
    assert all("untrained" in text for text in texts)


@pytest.mark.long
def test_weights_that_cannot_be_had_are_named_once_and_the_others_are_ranked(weights, capsys):
    found, _ = ranked(f"backbones=swin_tiny,nat_tiny,{weights[0]}", "images=40", "finalists=0")
    said = capsys.readouterr()
    assert [row["name"] for row in found["backbones"]] == [weights[0]]
    assert sorted(one["name"] for one in found["failed"]) == ["nat_tiny", "swin_tiny"]
    assert said.err.count("swin_tiny") == 1
    assert "the Hub cannot be reached" in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["backbones=swin_tiny"], "no weights can be had"),
        (["backbones=swin_tyny"], "did you mean 'swin_tiny'"),
        (["backbones=bit_101x1"], "no weights are published"),
        (["backbone=resnet18"], "backbones="),
        (["budget=15"], "with its unit"),
        (["backbones=resnet18", "pretrained=false", "data=image_folder", "data.root=nowhere"], "nowhere"),
        (["backbones=resnet18", "pretrained=false", "data.batchsize=3"], "batch_size"),
        (["--cfg", "job"], "--cfg"),
        (["-m", "seed=1,2"], "--multirun"),
        (["backbones=timm/resnt18"], "resnet18"),
    ],
)
def test_what_cannot_be_ranked_is_one_line(arguments, message):
    with pytest.raises(ValueError, match=r"(?s).*") as caught:
        _run(["rank", *arguments])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.long
def test_the_race_trains_finalists_and_recommends_its_winner(weights, capsys):
    arguments = [f"backbones={','.join(weights)}", "images=60", "budget=10m", "trainer.max_epochs=1", "out=race"]
    found, folder = ranked(*arguments)
    race = found["race"]
    assert [rung["epochs"] for rung in race["rungs"]] == [1]
    assert sorted(race["rungs"][0]["entrants"]) == sorted(weights)
    assert race["winner"] == found["recommended"] == race["rungs"][0]["kept"][0]
    results = {row["name"]: row["race"] for row in found["backbones"]}
    assert max(results, key=lambda name: results[name]["val"]) == race["winner"]
    for row in found["backbones"]:
        record = json.loads((folder / row["race"]["folder"] / "metrics.json").read_text())
        assert list(record["maps"]) == row["chosen"]["stages"]
        assert record["test"]["accuracy"] == pytest.approx(row["race"]["test"])
    assert f"backbone.checkpoint='{(folder.parent / race['winner']).absolute()}'" in found["command"] or (
        race["winner"] in found["command"]
    )
    before = [row["race"]["folder"] for row in found["backbones"]]
    again, _ = ranked(*arguments)  # goes on in its folder: nothing is trained again
    assert [row["race"]["folder"] for row in again["backbones"]] == before
    assert capsys.readouterr().out.count("rung 1:") == 1


@pytest.mark.long
def test_a_folder_goes_on_with_its_own_question_alone(weights, capsys):
    words = [f"backbones={weights[0]}", "images=40", "finalists=0", "out=o"]
    ranked(*words)
    ranked(*words)
    for other in ("images=50", "seed=1", f"backbones={weights[1]}", "budget=1h"):
        changed = [word for word in words if word.partition("=")[0] != other.partition("=")[0]]
        with pytest.raises(ValueError, match="another question"):
            _run(["rank", *changed, other])
    with open("file", "w") as file:
        file.write("x")
    for out in ("file", "own_resnet"):
        with pytest.raises(ValueError, match=f"out={out} is"):
            _run(["rank", *words[:-1], f"out={out}"])


@pytest.mark.long
def test_broken_images_end_neither_the_race_nor_the_recommended_command(weights, tmp_path, capsys):
    from PIL import Image

    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(12):
            Image.new("RGB", (32, 32), (number * 20, 200 * (name == "a"), 0)).save(
                tmp_path / "photos" / name / f"{number}.png"
            )
    (tmp_path / "photos" / "a" / "broken.png").write_bytes(b"no image")
    (tmp_path / "nothing_here").mkdir()
    found, folder = ranked(
        f"backbones={weights[0]},nothing_here", "data=image_folder", "data.root=photos", "image_size=32",
        "data.batch_size=4", "data.num_workers=0", "finalists=1", "budget=5m", "trainer.max_epochs=1", "out=o",
    )  # fmt: skip
    assert found["race"]["winner"] == weights[0]
    assert "broken.png" in " ".join(found["notes"])
    assert "broken.png" in (folder / "report.html").read_text()
    assert "data.on_error=skip" in found["command"]
    assert [one["name"] for one in found["failed"]] == ["nothing_here"]
    assert found["command"].startswith("bbframe train ")


@pytest.mark.long
def test_objects_of_one_class_are_ranked_by_their_sizes(weights, tmp_path, capsys):
    from PIL import Image

    (tmp_path / "imgs").mkdir()
    images, boxes = [], []
    for number in range(16):
        Image.effect_noise((64, 64), 60).convert("RGB").save(tmp_path / "imgs" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 64})
        side = 8 + 3 * number
        boxes.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "bbox": [2, 2, side, side],
                "area": side**2,
                "iscrowd": 0,
            }
        )
    record = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cell"}]}
    (tmp_path / "all.json").write_text(json.dumps(record))
    found, _ = ranked(
        f"backbones={weights[0]}", "data=coco", "data.train_images=imgs", "data.train_annotations=all.json",
        "data.min_size=64", "data.max_size=64", "data.num_workers=0", "finalists=0",
    )  # fmt: skip
    assert found["backbones"][0]["accuracy"] is None
    assert "one class" in " ".join(found["notes"])
    assert {"logme", "box_r2"} <= set(found["backbones"][0]["stages"][0]["scores"])
