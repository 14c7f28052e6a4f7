"""Which stages of a backbone give maps: names, indices or strides, each turned into the others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from bbframe.schema import nearest, printable

StageNames = Sequence[str] | None
Integers = Sequence[int] | None


class Stage(NamedTuple):
    """One level of a backbone: its name, and the channels and the stride (in input pixels) of its map."""

    name: str
    channels: int
    stride: int


class Selection(NamedTuple):
    """The selected stages, rising: their names, their indices as they were given, and the strides of their maps."""

    features: tuple[str, ...]
    indices: tuple[int, ...]
    strides: tuple[int, ...]


class Selects:
    """What a config and its backbone say alike about the declared and the selected stages.

    Reading `out_features`, `out_indices` or `out_strides` gives a new list, assigning one re-aligns the other two.
    """

    selection: Selection

    def declared_stages(self) -> Sequence[Stage]:
        """Every stage that the architecture has, built or not, the stem first."""
        raise NotImplementedError

    def select(
        self, out_features: StageNames = None, out_indices: Integers = None, out_strides: Integers = None
    ) -> None:
        """Replace the selection; the object stays as it was when this raises ValueError."""
        raise NotImplementedError

    @property
    def out_features(self) -> list[str]:
        """The names of the selected stages."""
        return list(self.selection.features)

    @out_features.setter
    def out_features(self, value: StageNames) -> None:
        self.select(out_features=value)

    @property
    def out_indices(self) -> list[int]:
        """The indices of the selected stages."""
        return list(self.selection.indices)

    @out_indices.setter
    def out_indices(self, value: Integers) -> None:
        self.select(out_indices=value)

    @property
    def out_strides(self) -> list[int]:
        """The strides of the selected maps, in input pixels; assigning them selects the last stage of each stride."""
        return list(self.selection.strides)

    @out_strides.setter
    def out_strides(self, value: Integers) -> None:
        self.select(out_strides=value)

    @property
    def stage_names(self) -> list[str]:
        """The names of all stages, built or not."""
        return [stage.name for stage in self.declared_stages()]

    @property
    def num_features(self) -> list[int]:
        """The channels of all stages, built or not."""
        return [stage.channels for stage in self.declared_stages()]

    @property
    def out_feature_channels(self) -> dict[str, int]:
        """The channels of all stages by name, built or not."""
        return {stage.name: stage.channels for stage in self.declared_stages()}

    @property
    def channels(self) -> list[int]:
        """The channels of the selected maps."""
        channels = self.out_feature_channels
        return [channels[name] for name in self.selection.features]

    @property
    def strides(self) -> list[int]:
        """`out_strides`, by the name that goes with `channels`."""
        return self.out_strides


def align(
    model: str, stages: Sequence[Stage], out_features: StageNames, out_indices: Integers, out_strides: Integers
) -> Selection:
    """Turn any of the three ways to select stages into the other two.

    Raises ValueError that names the model, the value, the menu and the nearest fix.
    """
    names = [stage.name for stage in stages]
    if out_features is not None:
        chosen = _from_names(model, names, out_features)
    elif out_indices is not None:
        chosen = _from_indices(model, names, out_indices)
    elif out_strides is not None:
        chosen = _from_strides(model, stages, out_strides)
    else:
        chosen = [len(names) - 1]
    features = [names[i] for i in chosen]
    if out_features is not None and out_indices is not None and _from_indices(model, names, out_indices) != chosen:
        raise ValueError(
            f"{model}: out_features={features} and out_indices={list(out_indices)} name different stages; "
            f"give one of them, or out_indices={chosen}"
        )
    strides = [stages[i].stride for i in chosen]
    if out_strides is not None and (not _is_list_of(int, out_strides) or list(out_strides) != strides):
        raise ValueError(
            f"{model}: out_strides={_shown(out_strides)} contradicts the selected {features}, whose strides are "
            f"{strides}; give only one of out_features, out_indices and out_strides"
        )
    return Selection(tuple(features), tuple(chosen if out_indices is None else out_indices), tuple(strides))


def _menu(names: Sequence[str]) -> str:
    shown = [f"{i}={name}" for i, name in enumerate(names)]
    if len(shown) > 6:
        shown = [*shown[:3], "...", shown[-1]]
    return f"0..{len(names) - 1} ({', '.join(shown)})"


def _from_names(model: str, names: list[str], given: Sequence[str]) -> list[int]:
    what = f"{model}: out_features={_shown(given)}"
    if not _is_list_of(str, given):
        example = [given] if given in names else names[-1:]
        raise ValueError(f"{what} must be a list of stage names, such as {example} (stages: {', '.join(names)})")
    if not given:
        raise ValueError(f"{what} selects nothing; leave it null for the last stage, {names[-1]!r}")
    for name in given:
        if name not in names:
            raise ValueError(f"{what}: no stage {name!r}{nearest(name, names)} (stages: {', '.join(names)})")
    return _rising(what, [names.index(name) for name in given], given, _menu(names))


def _from_indices(model: str, names: list[str], given: Sequence[int]) -> list[int]:
    what, count = f"{model}: out_indices={_shown(given)}", len(names)
    if not _is_list_of(int, given):
        raise ValueError(f"{what} must be a list of integers within {_menu(names)}{_integers_in(given)}")
    if not given:
        raise ValueError(f"{what} selects nothing; leave it null for the last stage, [{count - 1}]")
    for index in given:
        if not -count <= index < count:
            closest = count - 1 if index > 0 else -count
            raise ValueError(
                f"{what}: no stage {index}; choose within {_menu(names)} or -{count}..-1; the nearest is {closest}"
            )
    return _rising(what, [index % count for index in given], given, _menu(names))


def _from_strides(model: str, stages: Sequence[Stage], given: Sequence[int]) -> list[int]:
    what = f"{model}: out_strides={_shown(given)}"
    last = {stage.stride: i for i, stage in enumerate(stages)}
    if not _is_list_of(int, given):
        raise ValueError(f"{what} must be a list of integers among {sorted(last)}{_integers_in(given)}")
    if not given:
        raise ValueError(f"{what} selects nothing; choose from {sorted(last)}")
    for stride in given:
        if stride not in last:
            fix = min(last, key=lambda s: abs(s - stride))
            raise ValueError(f"{what}: no stage of stride {stride}; choose from {sorted(last)}; the nearest is {fix}")
    return _rising(what, [last[s] for s in given], given, str(sorted(last)))


def _is_list_of(kind: type, given: Any) -> bool:
    return isinstance(given, Sequence) and not isinstance(given, str) and all(type(item) is kind for item in given)


def _integers_in(given: Any) -> str:
    """The end of an error message: the list that was probably meant."""
    found = [int(i) for i in re.findall(r"(-?\d+)(?:\.\d*)?", str(given))]
    return f"; did you mean {found}?" if 0 < len(found) < 20 else ""


def _rising(what: str, chosen: list[int], given: Sequence[Any], menu: str) -> list[int]:
    written = dict(zip(chosen, given, strict=True))
    fixed = sorted(written)
    if chosen != fixed:
        problem = f"repeats a stage of {menu}" if len(fixed) < len(chosen) else f"must rise within {menu}"
        raise ValueError(f"{what} {problem}; did you mean {[written[i] for i in fixed]}?")
    return chosen


def _shown(given: Any) -> str:
    return printable(list(given) if isinstance(given, tuple) else given)
