"""Image folders and files as other tools write them: read rightly, and what was assumed is counted."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from bbframe.imaging.decode import SUFFIXES, glance, read_image
from tests.data.helpers import write
from tests.data.images.test_image_folder import FLAT, fault, load, names, told

PARTS = ("train", "val", "test")


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Train", "Val", "Test"),
        ("training", "validation", "testing"),
        ("TRAIN", "dev", "TEST"),
        ("training_set", "val_set", "test_set"),
        ("trainset", "valid", "testset"),
        ("train_images", "valid_images", "test_images"),
    ],
)
def test_folders_of_parts_by_other_names(train, val, test, folder):
    root = folder({f"{part}/{name}": 3 for part in (train, val, test) for name in ("cat", "dog")})
    data = load(root)
    assert (data.class_names, data.counts) == (["cat", "dog"], dict.fromkeys(PARTS, 6))
    assert {name.split("/")[0] for name in names(data, "test")} == {test}
    assert not data.assumed


BY_WORD = "folders taken for parts by a word of their name"


@pytest.mark.parametrize(
    ("train", "other", "part"),
    [
        ("train2017", "val2017", "val"),
        ("seg_train", "seg_test", "test"),
        ("1_train", "2_val", "val"),
        ("train-00", "val-00", "val"),
        ("images_train", "images_val", "val"),
        ("dataset_train", "dataset_val", "val"),
        ("my.train", "testing 2", "test"),
        ("trainval", "test", "test"),
        ("tr", "te", "test"),
        ("train", "eval", "val"),
        ("train", "evaluation", "val"),
        ("train", "holdout", "test"),
        ("train", "val2017", "val"),
    ],
)
def test_folders_of_parts_by_a_word_of_their_name(train, other, part, folder):
    data = load(folder({f"{place}/{name}": 4 for place in (train, other) for name in ("cat", "dog")}))
    assert (data.class_names, data.counts[part]) == (["cat", "dog"], 8)
    assert {name.split("/")[0] for name in names(data, part)} == {other}
    assert {name.split("/")[0] for name in names(data, "train")} == {train}
    said = [f"{train} (train)"] * (train != "train") + [f"{other} ({part})"] * (other != "test")
    assert told(data) == {BY_WORD: said}


def test_evaluation_is_the_part_that_is_missing(folder):
    root = folder({f"{place}/{name}": 4 for place in ("train", "val", "eval") for name in ("cat", "dog")})
    assert names(load(root), "test") == {f"eval/{name}/{i}.png" for name in ("cat", "dog") for i in range(4)}


def test_a_part_within_itself_and_images_to_be_predicted(folder):
    places = {f"seg_{part}/seg_{part}/{name}": 4 for part in ("train", "test") for name in ("sea", "street")}
    data = load(folder({**places, "seg_pred/seg_pred": 5}))
    assert (data.class_names, data.counts) == (["sea", "street"], {"train": 6, "test": 8, "val": 2})
    assert told(data) == {
        BY_WORD: ["seg_train (train)", "seg_test (test)"],
        "folders beside those of the parts, which are left out": ["seg_pred"],
        "folders that hold one other folder, whose content is read": ["seg_train", "seg_test"],
    }


@pytest.mark.parametrize(
    "places",
    [
        {"test": 5, "bus": 5},
        {"test tube": 5, "train station": 5},
        {"training shoes/left": 5, "test tube/left": 5, "bus/left": 5},
        {"train station/old": 5, "test tube/full": 5},
        {"tr": 5, "te": 5},
        {"tr/a": 5, "te/a": 5, "en/a": 5},
        {"train_1/a": 5, "train_2/a": 5},
    ],
)
def test_classes_that_are_called_like_parts(places, folder):
    data = load(folder(places))
    assert data.class_names == sorted({place.split("/")[0] for place in places})
    assert sum(data.counts.values()) == 5 * len(places)


def test_two_parts_by_one_word_are_refused_or_left_out(folder):
    places = {f"{place}/{name}": 4 for place in ("train1", "train2", "val1") for name in ("cat", "dog")}
    assert "train1 and train2 both name the train images; keep one" in fault(folder(places))


def test_of_two_folders_that_may_be_meant_none_is_taken(folder):
    data = load(folder({f"{place}/{name}": 4 for place in ("train", "test_a", "test_b") for name in ("cat", "dog")}))
    assert data.counts == {"train": 6, "val": 2}
    assert told(data) == {"folders beside those of the parts, which are left out": ["test_a", "test_b"]}


def test_folders_of_parts_in_those_of_classes(folder):
    root = folder({"cat/train": 4, "cat/val": 2, "dog/train": 5, "dog/val": 3, "dog/old": 1, "cat": 1})
    data = load(root)
    assert (data.class_names, data.counts) == (["cat", "dog"], {"train": 9, "val": 5})
    assert {name.split("/")[1] for name in names(data, "val")} == {"val"}
    assert list(data.parts["val"].labels) == [0, 0, 1, 1, 1]
    assert told(data) == {
        "class folders that hold folders of parts, read as those": ["train, val"],
        "folders beside those of the parts, which are left out": ["dog/old"],
        "class folders whose images beside the folders of parts are left out": ["cat"],
    }
    assert "it has cat/val/, so data.val_fraction=0.2 must be null" in fault(root, val_fraction=0.2)
    folder({"cow": 3})
    assert "some class folders hold folders of parts (cat/train/ ...), but not these: cow" in fault(root)


@pytest.mark.parametrize("above", ["my-data-main", "my-data/my-data", "images"])
def test_the_only_folder_is_entered(above, folder):
    root = folder({f"{above}/{part}/{name}": 4 for part in ("train", "val") for name in ("cat", "dog")})
    data = load(root)
    assert (data.class_names, data.counts) == (["cat", "dog"], {"train": 8, "val": 8})
    assert told(data) == {"roots that hold one other folder, which is read (data.root=...)": [str(root / above)]}


def test_the_only_folder_may_hold_the_classes(folder):
    assert load(folder({"pets/cat": 6, "pets/dog": 7})).counts == {"train": 9, "val": 2, "test": 2}


def test_a_link_to_the_root_is_not_entered_for_ever(folder):
    root = folder({})
    (root / "again").symlink_to(root)
    assert "only one class folder, 'again'" in fault(root)


def test_names_that_differ_in_unicode_alone_are_one_class(folder):
    composed, apart = "caf\u00e9", "cafe\u0301"
    data = load(folder({f"train/{composed}": 4, "train/b": 4, f"val/{apart}": 2, "val/b": 2}))
    assert data.counts == {"train": 8, "val": 4}
    assert told(data) == {"class folders spelled otherwise than in train": [f"val/{apart} ({composed})"]}


def test_classes_that_look_the_same_are_said(folder):
    composed, apart = "caf\u00e9", "cafe\u0301"
    what = "groups of classes whose names differ in case or spaces alone, or not to the eye"
    assert told(load(folder({composed: 4, apart: 4, "b": 4}))) == {what: [f"{apart!r} and {composed!r}"]}


def test_names_that_are_no_utf8_are_read_and_spelled_out(folder):
    root = folder({"cat": 6, "dog": 7})
    (root / "cat" / "0.png").rename(os.fsdecode(os.fsencode(root / "cat") + b"/\xff\xe9.png"))
    (root / "dog" / "0.png").write_bytes(b"")
    (root / "dog" / "0.png").rename(os.fsdecode(os.fsencode(root / "dog") + b"/\xfe.png"))
    (root / "cat").rename(os.fsdecode(os.fsencode(root) + b"/c\xff"))
    assert r"dog/\udcfe.png (not an image)" in fault(root)
    data = load(root, on_error="skip")
    assert data.class_names == [r"c\udcff", "dog"]
    assert sum(data.counts.values()) == 12
    found = {name for part in data.parts for name in names(data, part)}
    assert r"c\udcff/\udcff\udce9.png" in found
    assert list(data.skipped) == [rf"{root}/dog/\udcfe.png"]
    assert sum(len(batch["image"]) for batch in data.train_dataloader()) == data.counts["train"]


def test_pictures_that_cannot_be_decoded_are_counted(folder):
    root = folder(FLAT | {"cow": 0})
    for place in ("cat/1.heic", "cat/2.HEIC", "dog/x.svg", "cow/1.heic", "cow/notes.txt"):
        (root / place).write_bytes(b"what it may be")
    assert "in these folders: cow (1 that cannot be decoded)" in fault(root)
    write(root / "cow" / "1.png")
    write(root / "cow" / "2.png")
    write(root / "cow" / "3.png")
    rest = "files, which cannot be decoded and are left out (convert them to PNG or JPEG)"
    assert told(load(root)) == {
        f".heic {rest}": ["cat/1.heic", "cat/2.HEIC", "cow/1.heic"],
        f".svg {rest}": ["dog/x.svg"],
    }


@pytest.mark.parametrize("suffix", ["jpe", "avif", "jp2", "mpo", "tga", "ico", "pnm", "dib"])
def test_rarer_suffixes_are_read(suffix, folder):
    if f".{suffix}" not in SUFFIXES:
        pytest.skip("this Pillow has no decoder of it")
    root = folder({"cat": 3, "dog": 3}, suffix)
    assert sum(load(root).counts.values()) == 6


def test_parts_without_classes_are_no_classes(folder):
    assert "it has Test, Train, but no train/" in fault(folder({"Train": 3, "Test": 3}))


def test_parts_by_a_word_without_classes_are_no_classes(folder):
    assert "it has train2017, val2017, but no train/" in fault(folder({"train2017": 3, "val2017": 3}))


def test_class_folders_beside_a_part_are_refused(folder):
    assert "test/ has class folders too; move those for training into train/" in fault(folder(FLAT | {"test/cat": 2}))


JUNK = ("__MACOSX/cat", "lost+found", "@eaDir", "train/__MACOSX", "train/.ipynb_checkpoints", "test/lost+found")


@pytest.mark.parametrize("flat", [True, False])
def test_what_systems_leave_behind_is_not_seen(flat, folder):
    root = folder(FLAT if flat else {f"{part}/{name}": 3 for part in PARTS for name in ("cat", "dog")})
    for place in ("__MACOSX/cat", "lost+found", "@eaDir") if flat else JUNK:
        (root / place).mkdir(parents=True)
    write(root / "__MACOSX" / "cat" / "1.png")
    inside = root if flat else root / "train"
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "cat/._1.png", "cat/.DS_Store", "cat/Thumbs.db"):
        (inside / name).write_bytes(b"junk")
    data = load(root)
    assert (data.class_names, sum(data.counts.values()), data.assumed) == (["cat", "dog"], 13 if flat else 18, {})


def test_a_part_may_lack_classes_of_train(folder):
    root = folder({"train/cat": 4, "train/cow": 4, "train/dog": 4, "val/cat": 2, "val/dog": 2, "test/Cow ": 2})
    for options in ({}, {"on_error": "skip"}):
        data = load(root, **options)
        assert data.class_names == ["cat", "cow", "dog"]
        assert [list(data.parts[part].labels) for part in ("val", "test")] == [[0, 0, 2, 2], [1, 1]]
        assert told(data) == {
            "classes of train that val/ lacks": ["cow"],
            "classes of train that test/ lacks": ["cat", "dog"],
            "class folders spelled otherwise than in train": ["test/Cow  (cow)"],
        }


def test_a_class_that_train_lacks_is_refused_or_left_out(folder):
    root = folder({"train/cat": 4, "train/dog": 4, "val/cat": 2, "val/dog": 2, "val/pig": 2})
    assert "val/ has classes that train/ lacks: pig; repair or remove them, or set data.on_error=skip" in fault(root)
    data = load(root, on_error="skip")
    assert (data.counts["val"], len(data.skipped)) == (4, 1)


@pytest.mark.parametrize("test", ["test", "test/unknown", "Testing/images"])
def test_images_without_a_class_are_left_out_and_said(test, folder):
    data = load(folder({"train/cat": 9, "train/dog": 9, test: 5}))
    assert (data.counts, data.test_part) == ({"train": 16, "val": 2}, "val")
    ((what, found),) = told(data).items()
    assert "have no class" in what
    assert found == [f"{test.split('/')[0]}/"]


def test_loose_images_are_said(folder):
    data = load(folder(FLAT | {"": 2}))
    assert sum(data.counts.values()) == 13
    assert told(data) == {"images outside of the class folders, which are left out": ["0.png", "1.png"]}


# links


@pytest.mark.parametrize("target", ["..", "../..", "."])
def test_a_link_upwards_is_not_followed(target, folder):
    root = folder(FLAT)
    (root / "cat" / "up").symlink_to(target)
    data = load(root)
    assert sum(data.counts.values()) == 13
    assert told(data) == {"links to a folder that is read already, which are not followed": ["cat/up"]}


def test_links_to_elsewhere_are_followed_once(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    for i in range(3):
        write(other / "deep" / f"{i}.png", i)
    root = folder(FLAT)
    for name in ("one", "two"):
        (root / "cat" / name).symlink_to(other)
    (other / "deep" / "round").symlink_to(other)
    assert sum(load(root).counts.values()) == 16


def test_links_into_another_class_are_refused_or_left_out(folder):
    root = folder(FLAT)
    (root / "dog" / "linked").symlink_to(root / "cat")
    (root / "dog" / "one.png").symlink_to(root / "cat" / "1.png")
    assert "images that links put into two classes: dog/linked/0.png (also in cat)" in fault(root)
    data = load(root, on_error="skip")
    assert (sum(data.counts.values()), len(data.skipped)) == (13, 7)


def test_a_link_from_one_part_to_another_is_said(folder):
    root = folder({"train/cat": 4, "train/dog": 4})
    (root / "val").symlink_to(root / "train")
    assert len(told(load(root))["images that links put into two parts"]) == 8


# files


def both(path):
    """The image, and what was assumed by the look before training and by the reading."""
    image, facts = read_image(path), glance(path)
    assert facts.size == image.size
    return image, facts.assumed


def deep_png(path, values, bits=None):
    """A PNG of 16-bit values (H, W, C)."""
    height, width, channels = values.shape

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    told_bits = chunk(b"sBIT", bytes([bits] * channels)) if bits else b""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + head + told_bits + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [None, 10, 12, 14])
def test_twelve_bits_in_sixteen_are_scaled(channels, bits, tmp_path):
    most = 2 ** (bits or 12) - 1
    values = np.linspace(0, most, 12 * channels).reshape(3, 4, channels).round().astype(int)
    if channels in (2, 4):
        values[..., -1] = 65535  # opaque
    deep_png(tmp_path / "a.png", values, bits)
    image = read_image(tmp_path / "a.png")
    seen = np.asarray(image).reshape(3, 4, -1)
    assert image.mode == ("L" if channels < 3 else "RGB")
    colours = values[..., : seen.shape[2]]
    assert np.abs(seen - colours * 255 / most).max() <= 1


def test_all_images_are_scaled_alike(tmp_path):
    for i, most in enumerate((4095, 500, 200, 3000, 900, 60, 3500, 700)):
        deep_png(tmp_path / ("cat" if i % 2 else "dog") / f"{i}.png", np.full((8, 8, 1), most))
    data = load(tmp_path)
    assert data.options.bits == 12
    assert list(told(data).values()) == [["4095"]]
    for part in PARTS:
        for i in range(data.counts[part]):
            most = {"0": 4095, "1": 500, "2": 200, "3": 3000, "4": 900, "5": 60, "6": 3500, "7": 700}
            expected = most[data.source(part, i)[-5]] * 255 / 4095
            assert data.picture(part, i).float().mean() == pytest.approx(expected, abs=1)
    assert load(tmp_path, bits=16).picture("train", 0).max() <= 16


@pytest.mark.parametrize("infrared", ["noise", "constant", "ramp"])
def test_infrared_is_no_transparency(infrared, tmp_path):
    rng = np.random.default_rng(0)
    fourth = {"noise": rng.integers(0, 256, (8, 32)), "constant": np.full((8, 32), 90), "ramp": np.arange(256)}[
        infrared
    ]
    pixels = np.concatenate([rng.integers(0, 256, (8, 32, 3)), fourth.reshape(8, 32, 1)], 2).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    image, assumed = both(tmp_path / "a.tif")
    assert np.array_equal(np.asarray(image), pixels[..., :3])
    assert assumed == ["TIFF files whose last channel is no transparency, and is left out"]
    pixels[..., 3] = 255 * (pixels[..., 3] > 99)
    pixels[0, 0, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "b.tif")
    assert both(tmp_path / "b.tif")[0].getpixel((0, 0)) == (255, 255, 255)


def test_exif_that_does_not_parse_is_left_out(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    image.save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\xff" * 40)
    image.save(tmp_path / "b.jpg", exif=b"Exif\0\0nonsense")
    for name in "ab":
        found, _ = both(tmp_path / f"{name}.jpg")
        assert found.size == (60, 40)
    exif = Image.Exif()
    exif[0x0112] = 77
    image.save(tmp_path / "c.jpg", exif=exif)
    assert both(tmp_path / "c.jpg")[0].size == (60, 40)


def test_animations_show_their_first_picture(tmp_path):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    for name in ("a.gif", "a.webp", "a.png"):
        options = {"lossless": True} if name.endswith("webp") else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        image, assumed = both(tmp_path / name)
        assert image.getpixel((3, 3)) == (255, 0, 0)
        if name != "a.png":
            assert assumed == ["animations of which the first picture is taken"]


@pytest.mark.parametrize("progressive", [False, True])
def test_cmyk_photographs_have_their_colours(progressive, tmp_path):
    Image.new("CMYK", (32, 32), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95, progressive=progressive)
    red, green, blue = both(tmp_path / "a.jpg")[0].getpixel((9, 9))
    assert red > 240
    assert max(green, blue) < 15


def test_palettes_with_transparency(tmp_path):
    image = Image.new("P", (4, 4), 0)
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.putpixel((0, 0), 1)
    for name in ("a.png", "a.gif"):
        image.save(tmp_path / name, transparency=0 if name.endswith("gif") else b"\0\xff")
        seen = both(tmp_path / name)[0]
        assert (seen.getpixel((0, 0)), seen.getpixel((2, 2))) == ((0, 0, 200), (255, 255, 255))


def test_more_pixels_than_allowed_are_refused_unread(folder):
    root = folder(FLAT)
    head = struct.pack(">IIBBBBB", 10**5, 10**5, 8, 2, 0, 0, 0)
    whole = (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    )
    whole += b"\0\0\0\0IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")) + b"\0\0\0\0IEND\xaeB`\x82"
    (root / "cat" / "bomb.png").write_bytes(whole)
    assert "cat/bomb.png (has 100000x100000 pixels, and data.max_pixels=178956970; raise that" in fault(root)
    assert "has 20x12 pixels, and data.max_pixels=100" in fault(root, max_pixels=100)
    data = load(root, on_error="skip")
    assert len(data.skipped) == 1


def test_above_pillows_limit_is_read(tmp_path, monkeypatch):
    Image.new("L", (60, 40)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_image(tmp_path / "a.png").size == (60, 40)


def test_a_program_is_not_started_for_an_image(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(Exception, match="cannot identify"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("size", [(20000, 1), (1, 20000), (60000, 1), (3000, 2)])
def test_long_thin_images_cost_little(size, folder):
    import resource

    root = folder(FLAT)
    Image.new("L", size, 200).save(root / "cat" / "thin.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for augment in (None, {"degrees": 5.0}):
        data = load(root, augment=augment, image_size=224, batch_size=13, val_fraction=0.1, test_fraction=0.0)
        for batch in (*data.train_dataloader(), *data.val_dataloader()):
            assert torch.isfinite(batch["image"]).all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KiB


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_fault_of_a_transform_is_named_or_skipped(num_workers, folder, monkeypatch):
    root = folder(FLAT)
    Image.new("RGB", (7, 5)).save(root / "cat" / "odd.png")

    def fail(image):
        if image.size == (7, 5):
            raise MemoryError
        return image

    for skip in (False, True):
        options = {"on_error": "skip"} if skip else {}
        data = load(root, num_workers=num_workers, val_fraction=0.1, test_fraction=0.0, split_seed=2, **options)
        step = data._train_transform[0].__class__
        plain = step.forward
        monkeypatch.setattr(step, "forward", lambda self, image, plain=plain: plain(self, fail(image)))
        loaders = (data.train_dataloader(), data.val_dataloader())
        if skip:
            [list(loader) for loader in loaders]
            assert list(data.skipped) == [str(root / "cat" / "odd.png")]
        else:
            with pytest.raises(ValueError, match=r"cat/odd.png: a transform failed: MemoryError; repair"):
                [list(loader) for loader in loaders]
        data.teardown("")
        monkeypatch.undo()


def test_what_is_skipped_is_said_once_with_names(folder, caplog):
    root = folder({"cat": 9, "dog": 9})
    for number in (1, 4):
        (root / "cat" / f"{number}.png").write_bytes(b"")
    data = load(root, on_error="skip")
    (line,) = [record.message for record in caplog.records]
    first, second = (f"{root}/cat/{number}.png (not an image)" for number in (1, 4))
    assert line == f"data: skipped 2 unreadable images, of at most data.max_errors=100: {first}, {second}"
    list(data.train_dataloader())
    assert len(caplog.records) == 1


def test_a_jpeg_without_its_end_is_read(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)).save(stream, "PNG")
    for cut in (1, 4, 12, 16):
        (tmp_path / "a.png").write_bytes(stream.getvalue()[:-cut])
        assert both(tmp_path / "a.png")[0].size == (320, 240)
