"""What Hydra's documentation tells users to type works; what a file may not set is refused before Hydra acts."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import yaml

from bbframe.app import cli, execution, train
from bbframe.app.command_line import readable
from bbframe.app.places import HOME
from bbframe.app.sweep_jobs import Launch
from bbframe.files import dump_yaml

SHORT = ["trainer.max_epochs=1", "debug=true"]


@pytest.fixture
def at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def done(monkeypatch):
    """The jobs that would have run: their configuration, overrides and folder; nothing is trained."""
    from hydra.core.hydra_config import HydraConfig

    jobs = []

    def execute(job, secrets):
        jobs.append((job, HydraConfig.get(), dict(os.environ)))
        (job.folder / "metrics.json").write_text('{"status": "ok", "metric": "accuracy", "seconds": {"total": 1.0}}')

    monkeypatch.setattr(execution, "execute", execute)
    monkeypatch.setattr(Launch, "train", lambda self, job, position: execute(job, self.secrets))
    monkeypatch.setattr("bbframe.sweep.leaderboard.write", lambda folder: "the table")
    return jobs


# files are data: each line of a recipe, and the setting that the refusal names

ATTACKS = {
    "a log handler's factory": (
        {"sweeper": {"params": {"hydra.hydra_logging.root": "{handlers: [a]}", "seed": "1,2"}}, "mode": "MULTIRUN"},
        "hydra.hydra_logging.root",
    ),
    "the environment, by params": (
        {"sweeper": {"params": {"+hydra.job.env_set.HF_ENDPOINT": "http://x"}}, "mode": "MULTIRUN"},
        "+hydra.job.env_set.HF_ENDPOINT",
    ),
    "a relocated group, by params": ({"sweeper": {"params": {"+recipes@hydra.job": "x"}}}, "+recipes@hydra.job"),
    "a deletion, by params": ({"sweeper": {"params": {"~hydra.run.dir": "x"}}}, "~hydra.run.dir"),
    "a class among params": ({"sweeper": {"params": {"x": {"_target_": "os.system"}}}}, "hydra.sweeper.params.x"),
    "params as a class": ({"sweeper": {"params": {"_target_": "os.system"}}}, "'_target_'"),
    "another sweeper class": ({"sweeper": {"_target_": "os.system"}}, "hydra.sweeper._target_"),
    "the environment": ({"job": {"env_set": {"PATH": "x"}}}, "hydra.job.env_set.PATH"),
    "copied environment": ({"job": {"env_copy": ["HOME"]}}, "hydra.job.env_copy"),
    "job options": ({"job": {"config": {"override_dirname": {"kv_sep": "/"}}}}, "hydra.job.config"),
    "a changed folder": ({"job": {"chdir": True}}, "hydra.job.chdir"),
    "callbacks": ({"callbacks": {"x": {"_target_": "os.system"}}}, "hydra.callbacks.x._target_"),
    "job logging": ({"job_logging": {"root": {"handlers": ["x"]}}}, "hydra.job_logging.root.handlers"),
    "a launcher": ({"launcher": {"_target_": "os.system"}}, "hydra.launcher._target_"),
    "hidden overrides": ({"overrides": {"hydra": ["+hydra.job.env_set.X=1"]}}, "hydra.overrides"),
    "hidden overrides of the job": ({"overrides": {"task": ["seed=7"]}}, "hydra.overrides"),
    "verbosity": ({"verbose": True}, "hydra.verbose"),
    "a run folder elsewhere": ({"run": {"dir": "../elsewhere"}}, "hydra.run.dir must lead below output_dir"),
    "output_dir itself": ({"run": {"dir": "${output_dir}"}}, "hydra.run.dir must lead below output_dir"),
    "a sweep folder elsewhere": ({"sweep": {"dir": "/elsewhere"}}, "hydra.sweep.dir must lead below output_dir"),
    "a subfolder elsewhere": ({"output_subdir": "../x"}, "hydra.output_subdir must lead below output_dir"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_recipe_sets_none_of_hydras_settings_that_act(name, at, done, capsys):
    settings, said = ATTACKS[name]
    (at / "mine" / "recipes").mkdir(parents=True)
    text = "# @package _global_\n" + dump_yaml({"hydra": settings})
    (at / "mine" / "recipes" / "stranger.yaml").write_text(text)
    assert train.main(["--config-dir", "mine", "recipes=stranger"]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: recipes=stranger: ")
    assert said in error
    assert "\n" not in error
    assert not done
    assert sorted(path.name for path in at.iterdir()) == ["mine"]


@pytest.mark.parametrize(
    ("file", "text", "line"),
    [
        ("recipes/x.yaml", "# @package hydra.job\nenv_set: {PATH: x}\n", "recipes=x"),
        ("recipes/x.yaml", "# @package _global_\ndefaults: [{override /hydra/job_logging: default}]\n", "recipes=x"),
        ("hydra/config.yaml", "job: {env_set: {PATH: x}}\n", "seed=1"),
        ("hydra/launcher/mine.yaml", "_target_: os.system\n", "hydra/launcher=mine"),
        ("first.yaml", "defaults: [config, _self_]\nhydra: {searchpath: ['pkg://antigravity']}\n", "-cn first"),
        ("first.yaml", "defaults: [config, _self_]\nhydra: {aliases: {seed: hydra.job.name}}\n", "-cn first"),
    ],
)
def test_no_other_file_sets_them_either(file, text, line, at, done, capsys):
    path = at / "mine" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert train.main(["--config-dir", "mine", *line.split()]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert "\n" not in error
    assert "Traceback" not in error
    assert "antigravity" not in sys.modules
    assert not done


@pytest.mark.long
def test_a_job_of_a_sweep_is_looked_at_like_a_run(at, done, capsys):
    (at / "mine" / "recipes").mkdir(parents=True)
    (at / "mine" / "recipes" / "x.yaml").write_text("# @package hydra.job\nenv_set: {PATH: x}\n")
    assert train.main(["-cd", "mine", "-m", "recipes=x,digits_quick"]) == 1
    assert "a file may not set hydra.job.env_set.PATH" in capsys.readouterr().err
    assert [job.config["trainer"]["max_epochs"] for job, _, _ in done] == [10]


@pytest.mark.long
@pytest.mark.parametrize(
    ("line", "code", "sizes"),
    [
        ("backbone=swin_tiny,swin_small backbone.window_size=8", 0, [8, 8]),
        ("backbone=glob(swin_t*) backbone.window_size=8", 0, [8]),
        ("backbone=swin_tiny,swinv2_tiny backbone.window_size=4,8", 0, [4, 4, 8, 8]),
        ("backbone=resnet18,swin_tiny backbone.window_size=8", 1, [8]),
        ("backbone=swin_tiny,swin_small backbone.depths=[1,1,1,1] backbone.window_size=8 seed=1,2", 0, [8] * 4),
    ],
)
def test_an_option_that_only_the_swept_backbones_have(line, code, sizes, at, done, capsys):
    assert train.main(["-m", *line.split()]) == code
    assert sorted(job.config["backbone"]["window_size"] for job, _, _ in done) == sizes
    assert ("unknown option 'window_size'" in capsys.readouterr().err) is (code == 1)


@pytest.mark.long
def test_an_option_that_no_swept_backbone_has(at, done, capsys):
    assert train.main(["-m", "backbone=resnet18,resnet50", "backbone.window_size=8"]) == 1
    assert capsys.readouterr().err.startswith("error: resnet: unknown option 'window_size'")
    assert not done


@pytest.mark.parametrize("override", ["hydra.searchpath=[pkg://antigravity]", "hydra.run.dir=x", "+a@hydra.job=b"])
def test_a_record_sets_none_of_them(override, at, done, capsys):
    assert train.main([*SHORT, "name=first"]) == 0
    (folder,) = (at / "outputs").rglob("*_first")
    job = done.pop()[0]
    (folder / "config.yaml").write_text(dump_yaml(job.config))
    (folder / "overrides.yaml").write_text(dump_yaml([override]))
    assert train.main([f"rerun={folder}", "seed=3"]) == 1
    error = capsys.readouterr().err.strip()
    assert "its record sets" in error
    assert "only your own command line may" in error
    assert not done
    assert "antigravity" not in sys.modules


def test_a_recipe_may_say_where_below_output_dir(at, done):
    (at / "mine" / "recipes").mkdir(parents=True)
    settings = "run: {dir: '${output_dir}/fine_${seed}'}\n  output_subdir: inner"
    (at / "mine" / "recipes" / "x.yaml").write_text(f"# @package _global_\nhydra:\n  {settings}\n")
    assert train.main(["-cd", "mine", "recipes=x", "seed=4"]) == 0
    assert str(done[0][0].folder) == "outputs/fine_4"
    assert (at / "outputs" / "fine_4" / "inner" / "config.yaml").is_file()


# what the command line may


@pytest.mark.parametrize(
    ("line", "read"),
    [
        ("hydra.run.dir=there/it=is", lambda job, hydra, env: str(job.folder) == "there/it=is"),
        ("hydra.run.dir=there/${hydra.job.name}_${seed}", lambda job, hydra, env: str(job.folder) == "there/train_0"),
        ("hydra.job.name=mine", lambda job, hydra, env: hydra.job.name == "mine"),
        ("+hydra.job.env_set.MINE=1", lambda job, hydra, env: env["MINE"] == "1"),
        ("hydra.job.chdir=true", lambda job, hydra, env: hydra.job.chdir),
        ("hydra.verbose=true", lambda job, hydra, env: hydra.verbose),
        ("hydra.output_subdir=.hydra", lambda job, hydra, env: (job.folder / ".hydra" / "hydra.yaml").is_file()),
        ("hydra/job_logging=disabled", lambda job, hydra, env: hydra.runtime.choices["hydra/job_logging"]),
        ("--run", lambda job, hydra, env: job.config["seed"] == 0),
        ("hydra.mode=RUN recipes=digits_sweep", lambda job, hydra, env: job.config["seed"] == 0),
        ("-cn config", lambda job, hydra, env: hydra.job.config_name == "config"),
        ("-cn own -cd own", lambda job, hydra, env: job.config["seed"] == 9),
        ("hydra.searchpath=[own] recipes=far", lambda job, hydra, env: job.config["seed"] == 7),
        ("-cp conf", lambda job, hydra, env: job.config["seed"] == 8),
        ("~logger.csv", None),
        ("++seed=3", lambda job, hydra, env: job.config["seed"] == 3),
    ],
)
def test_a_setting_of_hydras_is_obeyed(line, read, at, done, capsys):
    (at / "own" / "recipes").mkdir(parents=True)
    (at / "own" / "recipes" / "far.yaml").write_text("# @package _global_\nseed: 7\n")
    (at / "own" / "own.yaml").write_text("defaults: [config, _self_]\nseed: 9\n")
    if "-cp" in line:
        import shutil

        shutil.copytree(HOME / "conf", at / "conf")
        text = (at / "conf" / "config.yaml").read_text()
        (at / "conf" / "config.yaml").write_text(re.sub(r"(?m)^seed: 0", "seed: 8", text))
    code = train.main(line.split())
    said = capsys.readouterr().err
    if read is None:
        assert code == 1
        assert "\n" not in said.strip()
        return
    assert (code, said) == (0, "")
    ((job, hydra, env),) = done
    assert read(job, hydra, env)
    assert os.environ.get("MINE") is None


@pytest.mark.long
@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("-m seed=1,2", [{"seed": 1}, {"seed": 2}]),
        ("--multirun seed=range(1,4)", [{"seed": 1}, {"seed": 2}, {"seed": 3}]),
        ("-m seed=choice(4,5)", [{"seed": 4}, {"seed": 5}]),
        ("-m seed=sort(3,1,2)", [{"seed": 1}, {"seed": 2}, {"seed": 3}]),
        ("hydra.mode=MULTIRUN seed=1,2", [{"seed": 1}, {"seed": 2}]),
        ("-m backbone=glob(resnet1*)", [{"backbone_name": f"resnet{n}"} for n in (101, 152, 18)]),
        ("recipes=digits_sweep seed=1", [{"seed": 1, "name": "backbones"}] * 3),
        ("-m seed=1,2 hydra.sweep.dir=there hydra.sweep.subdir=s${seed}", [{"seed": 1}, {"seed": 2}]),
    ],
)
def test_several_values_are_several_jobs(line, seen, at, done):
    assert train.main(line.split()) == 0
    assert [{key: job.config[key] for key in wanted} for wanted, (job, _, _) in zip(seen, done, strict=True)] == seen
    assert len({job.folder for job, _, _ in done}) == len(done)
    if "there" in line:
        assert [str(job.folder) for job, _, _ in done] == ["there/s1", "there/s2"]
        count = len(done)
        assert train.main(line.split()) == 0
        assert len(done) == count  # what is done is not repeated


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-m optim.lr=interval(0,1)", ["interval is for a search", "trials=30", "optim.lr=0.001,0.01"]),
        ("-m seed=1,2 hydra/sweeper=basic", ["hydra/sweeper=basic", "leave it out"]),
        ("-m seed=1,2 hydra/launcher=submitit_slurm", ["pip install 'bbframe[submitit]'"]),
        ("-m hydra.job.name=a,b", ["Sweeping over Hydra's configuration is not supported"]),
        ("-m backbone=glob(nothing*)", ["backbone=glob(nothing*) matches nothing"]),
        ("-m seed=1,2 hydra.sweep.subdir=../x${seed}", ["hydra.sweep.subdir=../x1 must lead below hydra.sweep.dir"]),
        ("-m seed=1,2 hydra.sweep.subdir=x", ["gives two jobs one folder", "${hydra.job.num}"]),
        ("--experimental-rerun x", ["--experimental-rerun", "rerun=<run folder>"]),
        ("-m --cfg job", ["exclude each other"]),
        ("--resolve", ["--cfg job --resolve"]),
        ("--cfg jobs", ["--cfg", "invalid choice"]),
        ("--cfg job -p trainr", ["--package trainr"]),
        ("-cn nothing", ["--config-name nothing: no such file"]),
        ("-cp nowhere", ["--config-path nowhere: no such folder"]),
        ("-cd nowhere", ["--config-dir nowhere: no such folder"]),
        ("--plugin no.such", ["plugin 'no.such' cannot be imported"]),
        ("lr=0.1", ["did you mean optim.lr=...?"]),
        ("epochs=1", ["did you mean trainer.max_epochs=...?"]),
        ("model=resnet18", ["did you mean backbone=...?"]),
        ("model.pretrained=true", ["did you mean backbone.pretrained=...?"]),
        ("resume=x.ckpt", ["give the folder of a sweep", "one run goes on by ckpt_path=<run folder>"]),
        ("resume_from=x.ckpt", ["did you mean ckpt_path=...?"]),
        ("imgsz=32", ["did you mean data.image_size=...?"]),
        ("dataset=coco", ["did you mean data=...?"]),
        ("name=a,b", ["name=a,b names several values", "\"name='a,b'\""]),
    ],
)
def test_what_does_not_work_says_what_to_type(line, said, at, done, capsys):
    assert train.main(line.split()) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert "\n" not in error
    for part in said:
        assert part in error
    assert not done


@pytest.mark.long
def test_two_runs_of_one_second_have_two_folders_and_a_named_one_is_never_overwritten(at, done, capsys):
    for _ in range(3):
        assert train.main(["name=same"]) == 0
    assert len({job.folder for job, _, _ in done}) == 3
    assert train.main(["hydra.run.dir=here"]) == 0
    assert train.main(["hydra.run.dir=here"]) == 1
    assert "hydra.run.dir=here holds the record of an earlier run; give another folder" in capsys.readouterr().err
    assert train.main(["hydra.run.dir=."]) == 0


@pytest.mark.parametrize("which", ["job", "hydra", "all"])
def test_cfg_shows_what_it_is_asked_for(which, at, capsys):
    assert train.main(["--cfg", which, "seed=5"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert ("seed" in shown, "hydra" in shown) == (which != "hydra", which != "job")
    assert train.main(["--cfg", "all", "--resolve"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["hydra"]["run"]["dir"].startswith("outputs/classification/")
    assert train.main(["--cfg", "job", "-p", "optim"]) == 0
    assert capsys.readouterr().out.startswith("# @package optim\nname: adamw\n")


# text


@pytest.mark.parametrize(
    "text", ["~/x", "my photos (1)", "photos/niños", "x/epoch=3.ckpt", "a#b", r"C:\new\x (1)", "it's", "[a", "x & y"]
)
def test_a_path_is_read_as_it_stands(text, at, capsys):
    written = f"name={text}" if text != "[a" else "name='[a'"
    assert train.main(["--cfg", "job", "--resolve", written]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["name"] == os.path.expanduser(text)


@pytest.mark.long
@pytest.mark.parametrize("text", ["1234567", "12e4567", "true", "1_000", "nan"])
def test_an_option_of_text_keeps_its_text(text, at, done):
    assert train.main([f"backbone.revision={text}"]) == 0
    assert train.main(["-m", f"backbone.revision={text},abc"]) == 0
    assert [job.config["backbone"]["revision"] for job, _, _ in done] == [text, text, "abc"]


def test_a_comma_in_the_name_of_a_folder_that_exists_separates_nothing(at, capsys):
    (at / "a,b").mkdir()
    assert train.main(["--cfg", "job", "data=image_folder", "data.root=a,b"]) == 0
    assert "root: a,b" in capsys.readouterr().out
    assert readable("data.root=é,b", True) == "data.root='é',b"


# commands of their own


def command(*line, **environment):
    variables = {**os.environ, "PYTHONPATH": f"{HOME}:{os.environ.get('PYTHONPATH', '')}", **environment}
    done = subprocess.run([sys.executable, *line], capture_output=True, text=True, env=variables, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def said(monkeypatch, capsys):
    """What a command of this process prints: `train` without a program, or another one's `main`."""

    def run(*line, main=train.main, comp_line=""):
        monkeypatch.setenv("COMP_LINE", comp_line)
        monkeypatch.setattr(sys, "argv", ["bbframe", *line])
        capsys.readouterr()
        assert (main() if main is cli.main else main(list(line))) == 0
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_tab_completes_groups_choices_and_commands(shell, at, said):
    query = ["-sc", f"query={shell}"]
    for start in ("bbframe train", "bbframe info"):
        words = said(*query, main=cli.main, comp_line=f"{start} backbone=resnet1").split()
        assert "backbone=resnet18" in words
    assert said(*query, main=cli.main, comp_line="bbframe t").split() == ["train"]
    assert "recipes=digits_quick" in said(*query, comp_line="python train.py recipes=").split()
    assert "complete" in said("-sc", f"install={shell}", main=cli.main) or shell == "zsh"
    assert "@hydra.main" in (HOME / "train.py").read_text()  # Hydra's scripts look for it


@pytest.mark.long
def test_tab_completes_a_line_of_the_script(at):
    done = command(HOME / "train.py", "-sc", "query=bash", COMP_LINE="python train.py optim=s")
    assert "optim=sgd" in done.split()


@pytest.mark.parametrize("what", ["", "all", "defaults", "defaults-tree", "config", "searchpath", "plugins"])
def test_info_is_hydras(what, at, said):
    shown = said("--info", *([what] if what else []))
    assert {"plugins": "BackboneSweeper", "config": "max_epochs", "searchpath": "conf"}.get(what, "e") in shown


@pytest.mark.long
def test_hydras_own_help_and_the_versions(at, said):
    assert "hydra/launcher" in command(HOME / "train.py", "--hydra-help")
    assert re.match(r"bbframe \d+\.\d+\.\d+, hydra-core 1\.\d", said("--version"))


PLUGIN = """
from dataclasses import dataclass
from bbframe.registry import register
from bbframe.tasks import OptimOptions

@dataclass(frozen=True, kw_only=True)
class MyOptions(OptimOptions):
    name: str = "my_optim"
    lr: float = 0.5
    parts: tuple[int, ...] = (1, 2)

@register("optim", "my_optim", MyOptions)
class Mine:
    pass
"""


@pytest.mark.long
def test_a_plugins_part_is_chosen_like_a_file(at):
    (at / "my_parts.py").write_text(PLUGIN)
    line = [HOME / "train.py", "--plugin", "my_parts"]
    shown = yaml.safe_load(command(*line, "--cfg", "job", "optim=my_optim", "optim.lr=0.25"))
    own = {key: shown["optim"][key] for key in ("name", "lr", "parts")}
    assert own == {"name": "my_optim", "lr": 0.25, "parts": [1, 2]}
    assert "my_optim" in command(*line, "--help")
