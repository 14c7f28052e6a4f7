"""The search for a batch size: what is measured, what follows from it, and what is left behind."""

from __future__ import annotations

import pytest
import torch

import bbframe.run.batch_size_finder as finder
from bbframe.run.available_memory import available_memory
from bbframe.run.batch_size_finder import StepMemory, find_batch_size, largest_tried, rounded_down, step_memory
from tests.run.trial import built


@pytest.mark.parametrize(("size", "down"), [(1, 1), (3, 2), (7, 4), (8, 8), (15, 8), (1259, 1256)])
def test_sizes_are_rounded_down(size, down):
    assert rounded_down(size) == down


def test_memory_follows_a_straight_line():
    line = StepMemory.through((2, 4), (300, 500), least=10)
    assert (line.fixed, line.each) == (100, 100)
    assert line.of(10) == 1100
    assert line.fitting(1000) == 9
    assert line.fitting(50) == 0
    assert StepMemory.through((2, 4), (300, 300), least=10).each == 10


def test_a_size_that_does_not_fit_is_lowered():
    tried = []

    def attempt(size):
        tried.append(size)
        if size > 20:
            raise torch.OutOfMemoryError

    assert largest_tried(40, attempt) == 16
    assert tried == [40, 32, 24, 16]

    def never(size):
        raise torch.OutOfMemoryError

    with pytest.raises(
        ValueError, match=r"^data: batch_size=auto finds no size: .* not suffice for one image; choose"
    ):
        largest_tried(8, never)


@pytest.mark.long
@pytest.mark.parametrize(
    "overrides",
    [(), pytest.param(("task=detection", "head=fcos_small", "data=digit_scenes"), marks=pytest.mark.slow)],
)
def test_a_larger_step_takes_what_small_ones_foretell(overrides, tmp_path):
    plan, _, task, data = built(*overrides)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    used = [step_memory(plan, task, data, tmp_path, size)[0] for size in (2, 4, 16)]
    assert StepMemory.through((2, 4), (used[0], used[1]), least=1).of(16) == pytest.approx(used[2], rel=0.25)
    assert all(torch.equal(before[name], value) for name, value in task.state_dict().items())
    assert list(tmp_path.iterdir()) == []


def test_the_size_follows_the_memory_and_the_images(tmp_path, monkeypatch):
    plan, _, task, data = built("data.batch_size=auto")
    free = 2.0**60
    monkeypatch.setattr(finder, "step_memory", lambda *known: (2.0**24 + 2.0**20 * known[-1], free))
    assert find_batch_size(plan, task, data, tmp_path) == 1256  # of 1,259 images
    free = (2.0**24 + 2.0**20 * 21) / finder.CPU_SHARE
    assert find_batch_size(plan, task, data, tmp_path) == 16
    free = 2.0**24
    text = r"^data: batch_size=auto finds no size: a step on 2 images takes 0\.02 GiB, and 0\.02 GiB .*batch_size=1$"
    with pytest.raises(ValueError, match=text):
        find_batch_size(plan, task, data, tmp_path)


def test_memory_that_is_left_is_bounded_by_every_group(tmp_path):
    assert available_memory(tmp_path) == float("inf")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:     8 kB\n")
    assert available_memory(tmp_path) == 8192
    (tmp_path / "proc/self/cgroup").write_text("0::/a/b\n")
    group = tmp_path / "sys/fs/cgroup"
    for path, limit, used in (("a/b", "max", 10), ("a", "5000", 1000), ("", "7000", 100)):
        (group / path).mkdir(parents=True, exist_ok=True)
        (group / path / "memory.max").write_text(f"{limit}\n")
        (group / path / "memory.current").write_text(f"{used}\n")
    assert available_memory(tmp_path) == 4000
    (group / "a/memory.stat").write_text("anon 3\ninactive_file 500\n")
    assert available_memory(tmp_path) == 4500


def test_memory_of_the_older_groups_counts_too(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("4:memory:/docker/1\n1:cpu:/x\n")
    group = tmp_path / "sys/fs/cgroup/memory"  # a container sees no path below it
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text("3000")
    (group / "memory.usage_in_bytes").write_text("1000")
    assert available_memory(tmp_path) == 2000
