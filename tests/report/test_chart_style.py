"""Saving pictures: whole or not at all, in the format that their name says, without a trace in matplotlib."""

import matplotlib
import pytest
from matplotlib.figure import Figure
from PIL import Image

from bbframe.report.chart_style import chart_style, save_picture


@pytest.mark.parametrize("picture", [Image.new("RGB", (8, 8)), Figure(figsize=(1, 1))], ids=["image", "chart"])
@pytest.mark.parametrize(
    ("name", "kind"), [("a.png", "PNG"), ("a.PNG", "PNG"), ("a b é.jpg", "JPEG"), ("a.JPEG", "JPEG")]
)
def test_the_name_says_the_format(tmp_path, picture, name, kind):
    save_picture(picture, tmp_path / name)
    with Image.open(tmp_path / name) as image:
        assert image.format == kind
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_picture_that_breaks_off_leaves_the_old_one(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"old")

    def half(self, file, **options):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(KeyboardInterrupt):
        save_picture(Image.new("RGB", (8, 8)), tmp_path / "a.png")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.png", b"old")]


def test_no_setting_is_left():
    before = dict(matplotlib.rcParams)
    with chart_style():
        assert dict(matplotlib.rcParams) != before
    assert dict(matplotlib.rcParams) == before
