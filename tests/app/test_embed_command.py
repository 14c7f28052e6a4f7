"""`bbframe embed`: one row an image, in the order of the names, and the neighbours that the rows have."""

import csv

import numpy as np
import pytest
from PIL import Image

from bbframe.app import train
from bbframe.app.cli import _run


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my photos" / "é").mkdir(parents=True)
    for number in range(6):
        size = (40 + 10 * number, 50)
        Image.effect_noise(size, 10 + 40 * (number % 3)).convert("RGB").save(f"my photos/é/{number}.png")
    (tmp_path / "my photos" / "broken.png").write_bytes(b"no image")
    return "my photos"


def table(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_rows_names_and_neighbours_belong_together(photos, capsys):
    assert (
        _run(["embed", "backbone=convnextv2_atto", f"images={photos}", "image_size=64", "out=o/x.npy", "--knn", "2"])
        == 0
    )
    out = capsys.readouterr().out
    rows, names = np.load("o/x.npy"), [row[0] for row in table("o/x_images.csv")[1:]]
    assert rows.shape == (6, 320)
    assert rows.dtype == np.float32
    assert names == [f"é/{number}.png" for number in range(6)]
    assert "untrained" in out
    assert "broken.png" in out
    near = table("o/x_neighbours.csv")
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = unit @ unit.T - 2 * np.eye(6)
    for image, place, other, cosine in near[1:]:
        order = np.argsort(-cosines[names.index(image)])
        assert names[order[int(place) - 1]] == other
        assert float(cosine) == pytest.approx(
            cosines[names.index(image)].max() if place == "1" else float(cosine), abs=1e-5
        )
    assert len(near) == 1 + 6 * 2
    with Image.open("o/x_neighbours.png") as picture:
        assert picture.size[0] > 300


@pytest.mark.long
def test_batches_and_neighbours_in_them_change_nothing(photos):
    for size, out in ((1, "a.npy"), (4, "b.npy")):
        assert (
            _run(
                [
                    "embed",
                    "backbone=convnextv2_atto",
                    f"images={photos}",
                    "image_size=64",
                    f"out={out}",
                    f"batch_size={size}",
                ]
            )
            == 0
        )
    np.testing.assert_allclose(np.load("a.npy"), np.load("b.npy"), rtol=1e-3, atol=1e-4)


def test_what_is_there_is_replaced_only_when_asked(photos):
    words = ["embed", "backbone=convnextv2_atto", f"images={photos}", "image_size=32", "out=x.npy"]
    for name in ("x_images.csv", "x.npy"):
        with open(name, "w") as file:
            file.write("mine")
        with pytest.raises(ValueError, match="is there already"):
            _run(words)
        with open(name) as file:
            assert file.read() == "mine"
    assert _run([*words, "overwrite=true"]) == 0
    assert np.load("x.npy").shape == (6, 320)


@pytest.mark.long
def test_a_trained_run_gives_the_features_of_its_own_network(photos):
    few = [f"trainer.limit_{part}_batches=1" for part in ("train", "val", "test")]
    network = ["backbone=convnextv2_atto", "data.image_size=32"]
    assert train.main([*network, *few, "trainer.max_epochs=1", "hydra.run.dir=run"]) == 0
    assert _run(["embed", "run=run", f"images={photos}", "out=r.npy"]) == 0
    assert np.load("r.npy").shape == (6, 320)
    assert np.isfinite(np.load("r.npy")).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["backbone=convnextv2_atto"], "images="),
        (["backbone=convnextv2_atto", "images=nowhere"], "no 'nowhere'"),
        (["backbone=convnextv2_atto", "images=my photos", "out=x.txt"], ".npy or .parquet"),
        (["backbone=convnextv2_atto", "images=my photos", "stage=stage9"], "stage9"),
        (["backbone=convnextv2_atto", "images=my photos", "kind=class_token"], "have mean"),
        (["backbone=convnextv2_ato", "images=my photos"], "convnextv2_atto"),
        (["run=nowhere", "images=my photos"], "nowhere"),
        (["run=nowhere", "images=my photos", "backbone=resnet18"], "run= brings its own network"),
        (["backbone=convnextv2_atto", "images=my photos", "--knn", "0"], "knn=0"),
        (["backbone=convnextv2_atto", "images=my photos", "--knn"], "--knn 5"),
        (["images=my photos"], "name a network"),
        (["backbone=convnextv2_atto", "images=my photos", "batchsize=3"], "batchsize"),
    ],
)
def test_what_cannot_be_embedded_is_one_line(photos, arguments, message):
    with pytest.raises(ValueError, match=r"(?s).*") as caught:
        _run(["embed", *arguments])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parquet_holds_names_and_lists_of_numbers_or_says_what_to_install(photos):
    words = ["embed", "backbone=convnextv2_atto", f"images={photos}", "image_size=64", "out=x.parquet"]
    try:
        import pyarrow.parquet as parquet
    except ModuleNotFoundError:
        with pytest.raises(ValueError, match=r"pip install 'bbframe\[parquet\]'"):
            _run(words)
        return
    assert _run(words) == 0
    found = parquet.read_table("x.parquet")
    assert found.column_names == ["image", "features"]
    assert np.array(found["features"].to_pylist()).shape == (6, 320)
