"""Where the parts and the classes of an image folder lie, by the names of its folders."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

from bbframe.data.faults import Faults, raise_all
from bbframe.imaging.decode import SUFFIXES

PART_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
# words that name a part only beside a train folder, and the parts that they may mean, the likelier first
LOOSE_NAMES = {
    "tr": ("train",),
    "trainval": ("train",),
    "te": ("test",),
    "eval": ("val", "test"),
    "evaluation": ("val", "test"),
    "holdout": ("test", "val"),
}
WORDS = {name: (part,) for part, names in PART_NAMES.items() for name in names} | LOOSE_NAMES
# what operating systems and archives leave behind
JUNK = {"__macosx", "lost+found", "$recycle.bin", "system volume information", "@eadir", "__pycache__"}


def unspelled(name: str) -> str:
    """A class's name without its spelling: its case, its spaces and how Unicode composes its letters."""
    return "".join(unicodedata.normalize("NFC", name).split()).casefold()


def part_of(folder: str) -> str | None:
    """The part that a folder's name means, such as "Training" or "test_set"."""
    name = _without_noun(folder)
    return next((part for part, names in PART_NAMES.items() if name in names), None)


def subfolders(folder: Path) -> list[str]:
    """The visible sub-folders' names, sorted; none when there is no such folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        found = [entry.name for entry in entries if entry.is_dir()]
    return sorted(name for name in found if not name.startswith(".") and name.lower() not in JUNK)


def inner_root(root: Path) -> Path:
    """The folder below `root` in which the classes or parts lie, when it alone is in `root`, as in an archive's.

    `root` itself when there is no such folder.
    """
    inner = root
    seen = {os.path.realpath(root)}
    while len(names := subfolders(inner)) == 1 and part_of(names[0]) != "train" and not _has_files(inner):
        inner = inner / names[0]
        if os.path.realpath(inner) in seen:
            return root
        seen.add(os.path.realpath(inner))
    held = subfolders(inner)
    return inner if len(held) > 1 or any(part_of(name) == "train" for name in held) else root


def part_folders(root: Path, faults: Faults) -> dict[str, str]:
    """The folder, relative to `root`, of each part that has one; {"train": ""} when `root` itself holds the classes.

    A folder is a part by its whole name or, as `_loosely_named` says, by a word of it, such as train2017. What else
    lies beside the parts is left out, and said. Raises FaultsError for folders of parts that hold no classes.
    """
    present = subfolders(root)
    named = {part: [name for name in present if part_of(name) == part] for part in PART_NAMES}
    strict = any(subfolders(root / name) for name in named["train"])
    loose = _loosely_named(root, present, named)
    parts = {name for names in (*named.values(), *loose.values()) for name in names}
    strangers = [name for name in present if name not in parts]
    if not strict and not loose["train"]:
        _refuse_parts_without_classes(root, present, faults)
        for name in (name for names in named.values() for name in names):
            if set(subfolders(root / name)) & set(strangers):
                faults.fatal(f"{name}/ has class folders too; move those for training into train/")
        return {"train": ""}
    for part, names in loose.items():
        for name in names:
            faults.assume("folders taken for parts by a word of their name", f"{name} ({part})")
    for name in strangers:
        faults.assume("folders beside those of the parts, which are left out", name)
    for part, names in named.items():
        names += loose[part]
        if len(names) > 1:
            names.sort(key=PART_NAMES[part].index if set(names) <= set(PART_NAMES[part]) else None)
            faults.fatal(f"{' and '.join(names)} both name the {part} images; keep one")
    chosen: dict[str, str] = {}
    for part, names in named.items():
        if names:
            chosen[part] = _entered(root, names[0], _classes(root, chosen["train"]) if chosen else set())
            if chosen[part] != names[0]:
                faults.assume("folders that hold one other folder, whose content is read", names[0])
    return chosen


def parts_in_classes(root: Path, faults: Faults) -> dict[str, dict[int, str]]:
    """The folders of classes in each part, {part: {class: path}}, where each class has folders of parts: cat/train.

    Empty where no class has them; it is a fault when some classes have them and others do not.
    """
    classes = subfolders(root)
    found: dict[str, dict[int, str]] = {}
    split = []
    for label, name in enumerate(classes):
        inside = {sub: part_of(sub) or WORDS.get(sub.casefold(), (None,))[0] for sub in subfolders(root / name)}
        parts = [part for part in inside.values() if part]
        if "train" not in parts or set(parts) == {"train"}:
            continue
        split.append(name)
        if _has_files(root / name):
            faults.assume("class folders whose images beside the folders of parts are left out", name)
        for sub, part in inside.items():
            if part is None:
                faults.assume("folders beside those of the parts, which are left out", f"{name}/{sub}")
            elif label in found.setdefault(part, {}):
                first = found[part][label]
                faults.fatal(f"{first} and {name}/{sub} both name the {part} images; keep one")
            else:
                found[part][label] = f"{name}/{sub}"
    if split and len(split) < len(classes):
        others = ", ".join(name for name in classes if name not in split)
        faults.fatal(f"some class folders hold folders of parts ({split[0]}/train/ ...), but not these", others)
    elif split:
        faults.assume("class folders that hold folders of parts, read as those", ", ".join(found))
    return found


def _loosely_named(root: Path, present: list[str], named: dict[str, list[str]]) -> dict[str, list[str]]:
    """The folders that are parts by a word of their name, where no whole name says which folder is that part.

    A word proves little, because a class may be called "test tube". Beside a train folder by its whole name it counts
    if the folder has classes of that. Otherwise there must be a train folder with sub-folders and another part, which
    has the same name but for that word, as val2017 beside train2017, or classes that no other folder has.
    """
    found: dict[str, list[str]] = {part: [] for part in PART_NAMES}
    meant = {name: _meant(name) for name in present if not part_of(name)}
    strict = [name for name in named["train"] if subfolders(root / name)]
    trains = strict or _loose_trains(root, meant)
    if not trains:
        return found
    classes = _classes(root, _entered(root, trains[0], set()))
    sharing = {name for name in present if classes & _classes(root, _entered(root, name, classes))}
    alone = all(name in trains or part_of(name) or meant[name] for name in sharing)
    alike = not strict and (alone or "tr" not in _words(trains[0]))  # whether the rest of a name is proof
    for name in sorted(meant, key=lambda name: len(meant[name])):  # those that may mean two parts last
        proven = (name in sharing and (strict or alone)) or (alike and _rest(name) == _rest(trains[0]))
        if proven and meant[name] and meant[name] != ("train",):
            free = [part for part in meant[name] if not named[part] and (len(meant[name]) == 1 or not found[part])]
            if free:
                found[free[0]].append(name)
    if strict:  # of two that may be meant none is taken
        return {part: names if len(names) == 1 else [] for part, names in found.items()}
    whole = [name for part in ("val", "test") for name in named[part]]
    if any(found.values()) or any(name in sharing or not _rest(trains[0]) for name in whole):
        found["train"] = trains
    return found


def _loose_trains(root: Path, meant: dict[str, tuple[str, ...]]) -> list[str]:
    """The folders for training by a word of their name; one for training and validation only without any other."""
    trains = [name for name, parts in meant.items() if parts == ("train",) and subfolders(root / name)]
    return [name for name in trains if len(_words(name)) == 1 and "trainval" not in _words(name)] or trains


def _refuse_parts_without_classes(root: Path, present: list[str], faults: Faults) -> None:
    """Raises FaultsError when all folders, two at least, are parts by their names, yet none holds classes."""
    parts = {part_of(name) for name in present}
    loose = {name: _meant(name) for name in present}
    alike = len({_rest(name) for name in present}) == 1 and all(loose.values()) and len(set(loose.values())) > 1
    spelled = any(set(_words(name)) & set(PART_NAMES["train"]) for name in present)
    if (present and None not in parts) or (alike and spelled and not any(subfolders(root / name) for name in present)):
        faults.fatal(f"it has {', '.join(present)}, but no train/ with one sub-folder a class")
        raise_all([faults])


def _entered(root: Path, folder: str, classes: set[str]) -> str:
    """The folder of a part, or the only one in it that holds the classes instead: seg_train/seg_train.

    `classes` are those of train, as `unspelled` writes them; empty for train itself.
    """
    there = subfolders(root / folder)
    if len(there) != 1 or unspelled(there[0]) in classes or _has_files(root / folder):
        return folder
    inner = f"{folder}/{there[0]}"
    below = _classes(root, inner)
    return inner if (below & classes if classes else len(below) > 1) else folder


def _classes(root: Path, folder: str) -> set[str]:
    return {unspelled(name) for name in subfolders(root / folder)}


def _has_files(folder: Path) -> bool:
    """Whether a folder holds images beside its sub-folders."""
    with os.scandir(folder) as entries:
        return any(os.path.splitext(entry.name)[1].lower() in SUFFIXES for entry in entries if not entry.is_dir())


def _without_noun(name: str) -> str:
    return re.sub(r"[ _-]?(set|data|images|split)$", "", name.casefold())


def _letters(folder: str) -> list[str]:
    """The words of a folder's name, which digits, spaces and signs separate."""
    return [_without_noun(word) or word for word in re.findall(r"[^\W\d_]+", _without_noun(folder))]


def _words(folder: str) -> list[str]:
    """The words of a folder's name that name a part."""
    return [word for word in _letters(folder) if word in WORDS]


def _rest(folder: str) -> tuple[str, ...]:
    """The other words of a folder's name."""
    return tuple(word for word in _letters(folder) if word not in WORDS)


def _meant(folder: str) -> tuple[str, ...]:
    """The parts that a word of a folder's name may mean, the likelier first; train_val is for training."""
    parts = [WORDS[word] for word in _words(folder)]
    return ("train",) if ("train",) in parts else parts[0] if parts else ()
