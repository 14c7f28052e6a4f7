"""Secrets are masked by their names, their shapes and where they come from; what only looks like one stays."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging

import pytest
import yaml

from bbframe import registry
from bbframe.app import train
from bbframe.app.places import CONF, RECIPES
from bbframe.auto import backbone_class, list_backbones
from bbframe.run import masking
from bbframe.run.configuration import RunOptions, TrainerOptions
from bbframe.run.masking import is_secret, mask_overrides, mask_secrets, mask_text, outward, remember
from bbframe.run.record import read_record, write_failure
from bbframe.run.run_log import logging_to
from bbframe.sweep.jobs import report_failure

NAMES = """
    pass pwd auth bearer key wandb_key pat tokens hftoken api_token_v2 secret_value cookie my_key connection_string
    webhook
    DB_PASS GH_PAT OPENAI_KEY AZURE_STORAGE_KEY DATABASE_URL sas_token session_cookie webhook_url ssh_key privateKey
    SSHPASS PGPASSWORD basic_auth REDIS_URL SENTRY_DSN api_keys x-api-key connectionString MONGO_URI bearer_token
    auth_header user_pwd hf_token_2 TOKEN1 X-Auth-Token refresh_token AccountKey slack_webhook jwt GITHUB_TOKEN
""".split()
PLAIN_NAMES = """
    monitor keypoints key_points keyboard turkey compass bypass passes pass_through patch pattern author_name tokenizer
    num_tokens max_tokens mask_token image_key forward_pass detokenize revision sha256 checkpoint url image_url keys
    missing_keys state_keys backbone_name class_token num_register_tokens
""".split()
SHAPES = [
    "hf_" + "aB3dEfGh" * 4, "ghp_" + "aB3d" * 9, "github_pat_11ABCDEFG0123456789_abcdefghij", "glpat-" + "aB3d_-" * 4,
    "sk-" + "aB3d" * 10, "sk-proj-" + "aB3d" * 10, "sk-ant-api03-" + "aB3d" * 10, "AKIAIOSFODNN7EXAMPLE",
    "xoxb-123456789012-abcdefABCDEF", "AIza" + "SyA1b2C3d" * 4, "npm_" + "aB3d" * 9, "pypi-" + "AgEIcHlwaS5vcmc" * 4,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N", "SG." + "aB3d" * 5 + "." + "aB3d" * 9,
    "sk_live_" + "aB3d" * 6, "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nabc=\n-----END RSA PRIVATE KEY-----",
    "q8XcT5nVb2LkZ9wRj4HsYd7GmPf3AeUo", "Bearer abc123def456",
]  # fmt: skip
IN_TEXT = {
    "https://ann:s3cr3t-pw@hub.example/x": "s3cr3t-pw",
    "redis://:s3cr3t-pw@host:6379/0": "s3cr3t-pw",
    "postgres://ann:p@ss-w0rd@host/db": "ss-w0rd",
    "Authorization: Basic YW5uOnMzY3IzdA==": "YW5u",
    "Cookie: session=abcdef": "abcdef",
    "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=Zm9v": "Zm9v",
    "https://host/x?token=Zm9vYmFy&a=1": "Zm9vYmFy",
    "https://hooks.slack.com/services/T000/B000/XXXX": "T000/B000/XXXX",
    "{'api_key': 'Zm9vYmFy', 'x': 1}": "Zm9vYmFy",
    '{"token": ["Zm9vYmFy", "b"]}': "Zm9vYmFy",
    "logger.x: WANDB_API_KEY='Zm9v bar' is wrong": "Zm9v bar",
}
READABLE = [
    hashlib.sha1(b"a").hexdigest(), hashlib.sha256(b"a").hexdigest(), hashlib.sha1(b"a").hexdigest().upper(),
    "/srv/ann/photos/2026-11-27_08-43-02_resnet18/checkpoints/best.ckpt", "facebook/convnextv2-tiny-22k-224",
    "vit_base_patch14_reg4_dinov2.lvd142m", "Dinov2WithRegistersForImageClassification", "2026-11-27T08:43:02+00:00",
    "ConvNextV2ForImageClassification", "models--fb--dinov2-base/snapshots/f9e44c814b77203eaa57a6bdbbd535f21ede1415",
    "backbone.hidden_sizes=[96,192,384,768]", "optim.lr=0.001 task.freeze=none seed=1", "http://127.0.0.1:8080/a@b",
    "550e8400-e29b-41d4-a716-446655440000", "swinv2_base_window12to24_192to384.ms_in22k_ft_in1k", "task-detection",
    "give it again: hub.token=...", "the basic launcher and basic blocks", "config.json: unknown key 'x'", "AKIATA",
    "callbacks={stop: {monitor: val/accuracy, patience: 3}}", "timm/vit_so400m_patch14_siglip_384.webli",
]  # fmt: skip


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """What a test remembers ends with it."""
    monkeypatch.setattr(masking, "_remembered", set())


@pytest.mark.parametrize("name", NAMES)
def test_a_name_says_that_its_value_is_a_secret(name):
    assert is_secret(name)
    masked = {name: ["***", {"b": "***"}], "x": {name: "***"}}
    assert mask_secrets({name: ["a", {"b": "c"}], "x": {name: "d"}}) == masked
    for override in (f"a.{name}=xyz", f"a={{{name}: xyz}}", f"a={{b: 1, {name}: [xyz, 1]}}", f"+a.{name}.b=xyz"):
        assert "xyz" not in mask_overrides([override])[0]
    assert "xyz" not in mask_text(f"cannot connect with {name}=xyz: refused")


@pytest.mark.parametrize("name", PLAIN_NAMES)
def test_a_name_that_is_none_stays(name):
    assert not is_secret(name)
    assert mask_overrides([f"a.{name}=xyz"]) == [f"a.{name}=xyz"]


def test_no_option_of_ours_is_taken_for_a_secret():
    found = {field.name for cls in (RunOptions, TrainerOptions) for field in dataclasses.fields(cls)}
    for kind in registry.KINDS:
        for name in registry.names(kind):
            options = registry.find(kind, name).options
            found |= {field.name for field in dataclasses.fields(options)}
    configs = [backbone_class(name).config_class for name in list_backbones()]
    found |= {field.name for config in configs for field in dataclasses.fields(config)}
    assert {name for name in found if is_secret(name)} == set()
    for file in (*CONF.rglob("*.yaml"), *RECIPES.rglob("*.yaml")):
        data = yaml.safe_load(file.read_text())
        assert mask_secrets(data) == data, file


@pytest.mark.parametrize("secret", SHAPES)
def test_a_shape_says_so_wherever_it_stands(secret):
    for text in (secret, f"error: {secret} was refused", f"x='{secret}'", f"/data/{secret}/x", f'{{"a": "{secret}"}}'):
        assert secret not in mask_text(text)
    assert secret not in str(mask_secrets({"name": [secret]}))
    assert secret not in mask_overrides([f"name={secret}"])[0]


@pytest.mark.parametrize("text", IN_TEXT)
def test_a_secret_inside_of_a_text_is_masked(text):
    assert IN_TEXT[text] in text
    assert IN_TEXT[text] not in mask_text(f"cannot reach {text}")


@pytest.mark.parametrize("text", READABLE)
def test_hashes_paths_names_and_dates_stay_readable(text):
    assert mask_text(text) == text
    assert outward(f"error: {text}") == f"error: {text}"
    assert mask_secrets({"a": [text]}) == {"a": [text]}


def test_what_was_remembered_is_masked_as_other_programs_write_it(tmp_path, capsys):
    secret = 'p&ss "wörd"\\'
    remember([secret, "none", ""])
    for text in (secret, repr(secret), json.dumps(secret), "http://h/?q=p%26ss%20%22w%C3%B6rd%22%5C"):
        assert "rd" not in mask_text(f"a {text} b").replace("word", "")
    assert mask_text("task.freeze=none") == "task.freeze=none"
    remember(["1234567"])
    assert mask_secrets({"a": 1234567, "b": 12345678, "c": True}) == {"a": "***", "b": 12345678, "c": True}
    write_failure(tmp_path / "a", [f"name={secret}"], f"no {secret}")
    report_failure(tmp_path / "b", ["name=1234567"], ValueError("not 1234567"))
    with logging_to(tmp_path / "train.log"):
        logging.getLogger("bbframe").info("it is %s", secret)
    printed = capsys.readouterr()
    for text in (printed.out, printed.err, *(f.read_text() for f in tmp_path.rglob("*") if f.is_file())):
        assert "***" in text
        assert "1234567" not in text
        assert "rd" not in text


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_nothing_that_a_sweep_leaves_or_prints_holds_a_secret(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_TOKEN", "opensesame")
    monkeypatch.setenv("GH_PAT", "ferrets77")
    small = ["backbone=resnet18", "backbone.depths=[1,1,1,1]", "backbone.hidden_sizes=[8,8,8,8]", "data.image_size=32"]
    lines = [
        "name=${oc.env:MY_TOKEN}", "tags=['${oc.env:GH_PAT}','hf_aB3dEfGhaB3dEfGhaB3d']", "+logger.x.name=a",
        "+logger.x._target_=lightning.pytorch.loggers.CSVLogger", "+logger.x.prefix=hf_aB3dEfGhaB3dEfGhaB3d",
        "hydra.output_subdir=.hydra", "trainer.max_epochs=1", "trainer.limit_train_batches=1",
        "backbone.embedding_size=8", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1",
    ]  # fmt: skip
    code = train.main(["-m", *small, *lines, "seed=1,2", "hydra.sweep.subdir=${name}_${hydra.job.num}"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert printed.out.count("/2]") == 2
    folders = [path.parent for path in tmp_path.rglob("metrics.json")]
    assert len(folders) == 2
    assert "***" in read_record(folders[0] / "checkpoints" / "last.ckpt")[0]["tags"]
    texts = {"out": printed.out.encode(), "err": printed.err.encode()}
    texts |= {str(path): path.read_bytes() if path.is_file() else b"" for path in tmp_path.rglob("*")}
    for path, text in texts.items():
        for secret in ("opensesame", "ferrets77", "hf_aB3d"):
            assert secret not in path
            if not path.endswith("metrics.csv"):  # a column that the user has named
                assert secret.encode() not in text, path
