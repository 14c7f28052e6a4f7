"""The end of an image file: is it there, what is left without it, and what a PNG tells behind its pixels."""

from __future__ import annotations

import os
import zlib
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from bbframe.imaging.image_files import ImageSource, open_source

_MCU = 16  # rows of pixels that a JPEG codes together
_TAIL = 2**16  # bytes in which the end of an image is looked for: some cameras write more behind it
_LARGEST = 2**30  # bytes of a cut off file that are looked through
_NOTES = (b"XML:com.adobe.xmp", b"Raw profile type exif")  # texts of a PNG that may hold an orientation


def ends_as_it_should(file: BinaryIO) -> bool:
    """Whether a file ends as its format says, as far as that is known."""
    head, size = file.read(12), file.seek(0, os.SEEK_END)
    if head.startswith(b"RIFF") and head.endswith(b"WEBP"):
        return size >= int.from_bytes(head[4:8], "little") + 8
    for length in (12, _TAIL):  # the few bytes are nearly always enough
        file.seek(max(0, size - length))
        tail = file.read(length)
        if head.startswith(b"\xff\xd8\xff"):  # JPEG; a scan that begins behind an end, a preview's, goes on
            found = tail.rfind(b"\xff\xd9") > tail.rfind(b"\xff\xda")
        elif head.startswith(b"\x89PNG"):
            found = b"IEND\xaeB`\x82" in tail
        elif head.startswith(b"GIF8"):
            found = tail.rstrip(b"\0").endswith(b";")
        else:
            return True
        if found:
            return True
    return False


def nearly_whole(path: ImageSource, stored: Image.Image) -> bool:
    """Whether what a cut off JPEG, PNG or GIF lacks is some of its last rows at most."""
    with open_source(path) as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        return False
    if content.startswith(b"\x89PNG"):
        place, packed = 8, []
        while place < len(content):
            length = int.from_bytes(content[place : place + 4], "big")
            if content[place + 4 : place + 8] == b"IDAT":
                packed.append(content[place + 8 : place + 8 + length])
            place += length + 12
        depth, channels = content[24], {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(content[25], 1)
        row = 1 + (stored.width * depth * channels + 7) // 8
        rows = zlib.decompressobj().decompress(b"".join(packed), row * stored.height)
        return len(rows) >= 15 / 16 * row * stored.height
    pixels = np.asarray(stored).reshape(stored.height, stored.width, -1)
    filler: Any = 128  # what the decoder leaves
    few = max(_MCU, stored.height // 16)
    if content.startswith(b"\xff\xd8"):
        scan = content.rfind(b"\xff\xda")
        low_bit = scan + 1 + int.from_bytes(content[scan + 2 : scan + 4], "big")
        if content[low_bit : low_bit + 1] not in (b"\0", b"\x10"):
            return False  # a progressive JPEG breaks off before the scans of the last bits
    elif content.startswith(b"GIF8"):
        filler, few = pixels[-1, -1], max(1, stored.height // 16)
    else:
        return False
    return bool((pixels == filler).all((1, 2))[::-1].cumprod().sum() <= few)


def has_late_notes(file: BinaryIO) -> bool:
    """Whether a PNG may tell its orientation behind its pixels, so that only decoding it shows the orientation."""
    before, place, behind, found = file.tell(), 8, False, False
    while not found:
        file.seek(place)
        head = file.read(8 + max(map(len, _NOTES)))
        kind = head[4:8]
        if len(head) < 8 or kind == b"IEND":
            break
        noted = kind in (b"tEXt", b"zTXt", b"iTXt") and head[8:].startswith(_NOTES)
        found = behind and (kind == b"eXIf" or noted)
        behind = behind or kind == b"IDAT"
        place += int.from_bytes(head[:4], "big") + 12
    file.seek(before)
    return found
