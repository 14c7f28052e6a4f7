"""New run folders: they never collide, and one that cannot be made is said."""

import os

import pytest
from omegaconf import DictConfig

from bbframe.app import hydra_settings
from bbframe.app.run_folder import new_folder


def test_run_folders_sort_by_time_and_never_collide(tmp_path):
    name = hydra_settings._run_name(_root_=DictConfig({"name": "a b/../c"}))
    made = [new_folder(tmp_path / "classification" / f"2026-11-20_09-05-07_{name}") for _ in range(3)]
    assert [str(folder.relative_to(tmp_path)) for folder in made] == [
        f"classification/2026-11-20_09-05-07_a-b-..-c{end}" for end in ("", "_2", "_3")
    ]
    assert all(folder.is_dir() for folder in made)


def a_file(root):
    root.write_text("")


def a_dangling_link(root):
    root.symlink_to(root.parent / "nowhere" / "deeper")


def a_read_only_folder(root):
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    root.mkdir(mode=0o500)


@pytest.mark.parametrize("obstacle", [a_file, a_dangling_link, a_read_only_folder])
def test_an_output_folder_that_cannot_be_written(tmp_path, obstacle):
    obstacle(tmp_path / "outputs")
    with pytest.raises(ValueError, match=r"^output_dir=.*outputs: cannot make the run folder .*output_dir=\.\.\.$"):
        new_folder(tmp_path / "outputs" / "classification" / "run")
