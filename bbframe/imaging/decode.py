"""Read an image file as a person would see it: upright, 8 bits, without transparency."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image, ImageFile, features

from bbframe.imaging.deep_pixels import deep_pixels, peak_value, scaled, scaled_to_bytes, told_bits
from bbframe.imaging.file_ends import ends_as_it_should, has_late_notes, nearly_whole
from bbframe.imaging.image_files import MAX_PIXELS, ImageSource, check_regular, open_image, open_source, read_header
from bbframe.schema import Range

# not every Pillow is built with every decoder; one too old to know of AVIF would warn of the question
_LACKING = {
    suffix
    for suffix, decoder in ((".webp", "webp"), (".avif", "avif"), (".jp2", "jpg_2000"), (".j2k", "jpg_2000"))
    if decoder not in (*features.modules, *features.codecs) or not features.check(decoder)
}
SUFFIXES = {
    f".{word}"
    for word in "apng avif bmp dib gif ico j2k jfif jp2 jpe jpeg jpg mpo pbm pgm png pnm ppm tga tif tiff webp".split()
} - _LACKING
# pictures that are not decoded here, so that whoever finds them can say so
UNREADABLE = _LACKING | {
    f".{word}" for word in "heic heif svg jxl exr hdr psd eps dcm raw dng cr2 cr3 nef arw orf rw2 raf".split()
}
_GREY = {"1", "L", "LA"}
_ORIENTATION = 0x0112
_WIDTH, _HEIGHT = 256, 257  # tags of a TIFF
_TURNS = dict(
    zip(
        range(2, 9),
        (
            Image.Transpose.FLIP_LEFT_RIGHT,
            Image.Transpose.ROTATE_180,
            Image.Transpose.FLIP_TOP_BOTTOM,
            Image.Transpose.TRANSPOSE,
            Image.Transpose.ROTATE_270,
            Image.Transpose.TRANSVERSE,
            Image.Transpose.ROTATE_90,
        ),
        strict=True,
    )
)
# what undoes each turn: a quarter to the left one to the right, any other turn itself
_TURNS_BACK = {**_TURNS, 6: _TURNS[8], 8: _TURNS[6]}


@dataclass(frozen=True)
class Decoding:
    """How image files are read: `bits` are the significant ones of 16, None: see `read_image`.

    Without `exif`, the size that annotations say decides, and `as_stored` about turned images whose size does not.
    """

    max_pixels: Annotated[int, Range(1, 10**9)] = MAX_PIXELS
    bits: Annotated[int, Range(1, 16)] | None = None
    exif: Literal["apply", "ignore"] | None = None
    as_stored: bool = False

    @classmethod
    def of(cls, options: object) -> Decoding:
        """What the options of a data set say, where they say anything."""
        given: dict[str, Any] = {entry.name: getattr(options, entry.name, entry.default) for entry in fields(cls)}
        return cls(**given)


AS_USUAL = Decoding()


@dataclass
class ImageFacts:
    """What a file tells before it is decoded: its `size` (width, height) once upright and as it is `stored`.

    `turned`: its EXIF says that it is not upright. `assumed` is what the reading assumes. `peak` is the largest value
    of 16-bit pixels whose significant bits the file does not tell.
    """

    size: tuple[int, int]
    stored: tuple[int, int]
    turned: bool
    assumed: list[str] = field(default_factory=list)
    peak: int | None = None


def read_image(path: ImageSource, decoding: Decoding = AS_USUAL, said: tuple[int, int] | None = None) -> Image.Image:
    """The image in mode L (no colours in the file's mode) or RGB; `info["assumed"]` lists what the reading assumed.

    Its EXIF orientation is applied, unless the (width, height) that annotations `said` are those of the stored pixels
    alone. Transparency lies on white as in a viewer. 16-bit values are scaled, not clipped: by the bits that the file
    or `decoding` names, else by 12 when the largest value has 11 or 12, as from many cameras, else by 16. A JPEG,
    PNG or GIF without its last bytes is read as far as it goes. Raises OSError or ValueError, or whatever the decoder
    raises, when the file cannot be read.
    """
    try:
        return _read(path, decoding, said)
    except OSError as error:
        if "truncated" not in str(error):
            raise
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        if not nearly_whole(path, _read(path, replace(decoding, exif="ignore"), None)):
            raise ValueError("is cut off")
        seen = _read(path, decoding, said)
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    seen.info["assumed"].append("image files without their last bytes, read as far as they go")
    return seen


def _read(path: ImageSource, decoding: Decoding, said: tuple[int, int] | None) -> Image.Image:
    assumed: list[str] = []
    with open_image(path, decoding.max_pixels) as image:
        orientation = orientation_of(image, assumed) if image.format == "TIFF" else 1  # Pillow forgets it once applied
        deep = deep_pixels(path, image)
        if image.mode in ("I", "F") and deep is None:
            raise ValueError(f"32-bit pixels (mode {image.mode}) have no known range; save it with 8 or 16 bits")
        if getattr(image, "is_animated", False) and image.format != "MPO":
            several = "TIFF files of several pages" if image.format == "TIFF" else "animations"
            assumed.append(f"{several} of which the first picture is taken")
        image.load()
        if image.format != "TIFF":
            orientation = orientation_of(image, assumed)
        seen: Image.Image = image if deep is None else scaled(deep, decoding.bits or told_bits(path, image), assumed)
        if deep is not None and (clear := image.info.get("transparency")) is not None:
            hidden = (deep.reshape(*deep.shape[:2], -1) == clear).all(-1)
            seen.paste("white", mask=Image.fromarray(hidden))
    done = image.format == "TIFF" and _ORIENTATION not in image.tag_v2  # type: ignore[attr-defined]
    if orientation in _TURNS and done == _lies_as_stored(orientation, _stored_size(image), decoding, said):
        seen = seen.transpose((_TURNS_BACK if done else _TURNS)[orientation])
    if image.format == "TIFF" and seen.mode in ("LA", "RGBA") and not _is_alpha(image, seen):
        assumed.append("TIFF files whose last channel is no transparency, and is left out")
        seen = seen.convert(seen.mode[:-1])
    seen = opaque(seen)
    seen.info = {"assumed": assumed}  # its turn is applied: whoever reads it again must not find it
    return seen


def opaque(image: Image.Image) -> Image.Image:
    """An image of any mode of bytes in mode L (no colours in its own mode) or RGB; transparency lies on white."""
    grey = image.mode in _GREY
    if image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    mode = "L" if grey else "RGB"
    return image if image.mode == mode else image.convert(mode)


def opened(image: Image.Image) -> Image.Image:
    """A PIL image as `read_image` gives the file of such pixels: upright by its EXIF, in mode L or RGB.

    16-bit pixels are scaled as those of a file that does not tell its bits. Raises ValueError for 32-bit ones, and
    whatever the decoder raises.
    """
    if 0 in image.size:
        raise ValueError(f"an image of {image.width}x{image.height} pixels shows nothing")
    if image.mode in ("I", "F") and not (image.mode == "I" and image.format in ("PNG", "PPM")):
        raise ValueError(f"32-bit pixels (mode {image.mode}) have no known range; give 8 or 16 bits, or an array")
    image.load()
    orientation = orientation_of(image, [])
    deep = image.mode.startswith("I")
    seen = scaled_to_bytes(np.asarray(image).astype(np.uint32)) if deep else image
    done = image.format == "TIFF" and _ORIENTATION not in getattr(image, "tag_v2", {})  # Pillow turned it
    seen = opaque(seen.transpose(_TURNS[orientation]) if orientation in _TURNS and not done else seen)
    seen = seen.copy() if seen is image else seen
    seen.info = {}
    return seen


def glance(path: ImageSource, decoding: Decoding = AS_USUAL) -> ImageFacts:
    """What the first bytes of a file tell; the last ones tell if it is all there.

    An image is decoded only when its end is not where it should be, or when its pixels have 16 bits. Raises ValueError
    for one that is cut off, and whatever the decoder raises.
    """
    assumed: list[str] = []
    check_regular(path)
    with open_source(path) as file:
        whole = ends_as_it_should(file)
        file.seek(0)
        try:
            with read_header(file, decoding.max_pixels) as image:
                if image.format == "PNG" and has_late_notes(file):
                    image.load()
                orientation, stored = orientation_of(image, assumed), _stored_size(image)
                upright = stored[::-1] if orientation in (5, 6, 7, 8) else stored
                facts = ImageFacts(upright, stored, orientation in _TURNS, assumed)
                looked = getattr(image, "is_animated", False) or image.format in ("TIFF", "ICO")
                if decoding.bits is None and told_bits(path, image) is None:
                    deep = deep_pixels(path, image)
                    facts.peak = None if deep is None else peak_value(deep)
            if not whole or looked:
                seen = read_image(path, decoding)
                facts.assumed = list(seen.info["assumed"]) if seen is not None else assumed
                if looked and not facts.turned:  # an ICO may hold a picture of another size than it says
                    facts.size = facts.stored = seen.size
        except Exception as error:  # a decoder may raise anything on a broken file
            if whole:
                raise
            raise ValueError("is cut off") from error
    return facts


def orientation_of(image: Image.Image, assumed: list[str]) -> int:
    """The EXIF orientation, 1 (upright) without any; EXIF that cannot be read is noted in `assumed`."""
    broken, orientation = image.info.get("broken_exif"), 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            orientation = Image.Image.getexif(image).get(_ORIENTATION, 1)  # a PNG's own method decodes it
        except Exception:  # it may hold anything
            broken = True
    if broken or caught:
        assumed.append("EXIF that cannot be read, and is left out")
        return 1
    return orientation if isinstance(orientation, int) else 1


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """The (width, height) of the pixels as they are stored; Pillow swaps the two of a turned TIFF."""
    if image.format != "TIFF":
        return image.size
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    return tags[_WIDTH], tags[_HEIGHT]


def _lies_as_stored(
    orientation: int, stored: tuple[int, int], decoding: Decoding, said: tuple[int, int] | None
) -> bool:
    """Whether the annotations mean the pixels as they are stored, whatever the EXIF says."""
    if decoding.exif is not None:
        return decoding.exif == "ignore"
    if said is not None and orientation >= 5 and stored[0] != stored[1]:
        return said == stored
    return decoding.as_stored


def _is_alpha(image: Image.Image, seen: Image.Image) -> bool:
    """Whether the last channel of a TIFF is transparency: mostly all or nothing, which infrared is not."""
    if not image.tag_v2.get(338):  # type: ignore[attr-defined]
        return False
    counts = seen.getchannel("A").histogram()
    return 2 * (counts[0] + counts[255]) >= sum(counts)


def reason(error: Exception) -> str:
    """A decoder's complaint without the path, which the reader of the message has already."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(f"{error}".split())[:300] or type(error).__name__
