"""Checkpoints from the Hub: huggingface_hub's own client against a server on the loopback that fails in every way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from functools import cache
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants, file_download
from huggingface_hub.utils import _http
from safetensors.torch import load, save

import bbframe
from bbframe import AutoBackbone
from bbframe.hub import logins
from tests.hub_server import Hub
from tests.tiny import tiny

WEIGHTS = "model.safetensors"
EVIL = "../../x", "/etc/passwd", "https://example.org/x.safetensors", "a/b.safetensors", ".hidden"
PLAIN = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}  # a proxy of this machine has no part in this


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """What a repository of a small backbone holds."""
    folder = tmp_path_factory.mktemp("published")
    published().save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def slept(monkeypatch):
    """The seconds that the client would have waited."""
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


@pytest.fixture
def hub(files, monkeypatch, tmp_path, slept):
    """A Hub that holds org/name; the client asks it, with an empty cache and no token."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in PLAIN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with Hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        for module in (constants, file_download):  # older clients have their own
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        fresh_client()
        server.publish("org/name", files)
        yield server
        fresh_client()


def fresh_client():
    """Close the client's connections."""
    getattr(_http, "close_session" if hasattr(_http, "close_session") else "reset_sessions")()


def fetch(**options):
    return AutoBackbone.from_pretrained("org/name", **options)


def refused(**options):
    """The one line that a call ends in."""
    with pytest.raises(ValueError, match=r"^\S") as error:
        fetch(**options)
    text = str(error.value)
    assert "\n" not in text
    return text


@cache
def published():
    return tiny("resnet")


def right(net):
    """Whether a backbone has the published weights."""
    ours = published().state_dict()
    return all(torch.equal(value, ours[name]) for name, value in net.state_dict().items())


def empty_cache(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", constants.HF_HUB_CACHE + "-empty")


def cached(name=WEIGHTS):
    """The files of that name in the cache."""
    return list(Path(constants.HF_HUB_CACHE).glob(f"models--org--name/snapshots/*/{name}"))


# downloads and the cache


@pytest.mark.parametrize("hashes", [True, False], ids=["hashes announced", "tags announced"])
def test_a_checkpoint_is_downloaded_once_and_its_commit_and_hash_are_recorded(hub, files, hashes):
    hub.hashes = hashes
    (commit,) = hub.repositories["org/name"].commits
    for _ in range(2):
        net = fetch()
        assert right(net)
        assert net.load_report.revision == commit
        assert net.load_report.sha256 == {WEIGHTS: sha256(files[WEIGHTS]).hexdigest()}
        assert net.load_report.preprocessing == "preprocessor_config.json"
    assert sorted(request.file for request in hub.bodies()) == sorted(files)


def test_a_branch_a_tag_and_a_commit_are_followed(hub, files):
    (old,) = hub.repositories["org/name"].commits
    other = {**files, WEIGHTS: save({key: value + 1 for key, value in load(files[WEIGHTS]).items()})}
    new = hub.publish("org/name", other, "v2", "refs/pr/1")
    for revision, commit in {"v2": new, "refs/pr/1": new, new: new, "main": old, old: old}.items():
        net = fetch(revision=revision)
        assert net.load_report.revision == commit
        assert right(net) == (commit == old)
        assert fetch(revision=revision, local_files_only=True).load_report.revision == commit
    assert len(hub.bodies(WEIGHTS)) == 2
    hub.publish("org/name", other, "main")
    assert fetch().load_report.revision == new
    assert fetch(revision=old).load_report.revision == old
    assert len(hub.bodies(WEIGHTS)) == 2


def test_all_files_are_of_one_commit_when_a_new_one_comes_meanwhile(hub, files):
    (old,) = hub.repositories["org/name"].commits
    other = {**files, WEIGHTS: save({key: value + 1 for key, value in load(files[WEIGHTS]).items()})}
    hub.fault("config.json", lambda: hub.publish("org/name", other) and None)
    net = fetch()
    assert hub.repositories["org/name"].refs["main"] != old
    assert net.load_report.revision == old
    assert right(net)


# no Hub


def stopped(hub, monkeypatch):
    hub.stop()
    fresh_client()


def switched_off(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fresh_client()


def behind_a_login_page(hub, monkeypatch):
    for file in ("config.json", "preprocessor_config.json", WEIGHTS):
        hub.fault(file, "page", "HEAD")
        hub.fault(file, "page")


def hanging_up(hub, monkeypatch):
    for file in ("config.json", "preprocessor_config.json", WEIGHTS):
        hub.fault(file, "silent", "HEAD")


def busy(hub, monkeypatch):
    for file in ("config.json", "preprocessor_config.json", WEIGHTS):
        hub.fault(file, 503, "HEAD")
        hub.fault(file, 503)


@pytest.mark.parametrize(
    ("leave", "reason"),
    [
        (stopped, "the Hub cannot be reached ("),
        (switched_off, "the Hub cannot be reached (HF_HUB_OFFLINE is set) and the file is not in the cache; where"),
        (behind_a_login_page, "is not the Hub: a login page of the network?) and the file is not in the cache; where"),
        (hanging_up, "the Hub cannot be reached ("),
        (busy, "could not be downloaded ("),
    ],
)
def test_without_the_hub_the_cache_serves_and_an_empty_one_is_an_error_at_once(
    leave, reason, hub, monkeypatch, slept, capfd
):
    fetch()
    leave(hub, monkeypatch)
    capfd.readouterr()
    before = len(hub.bodies())
    assert right(fetch())
    assert len(hub.bodies()) == before
    assert slept == []
    empty_cache(monkeypatch)
    text = refused()
    assert text.startswith("org/name: config.json: ")
    assert reason in text
    assert leave is busy or (slept, capfd.readouterr().err) == ([], "")
    if hub._servers:  # the Hub comes back
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        fresh_client()
        hub.heal()
        assert right(fetch())


def test_what_is_cached_of_a_checkpoint_without_a_preprocessor_serves_a_busy_hub(hub, files, slept):
    hub.publish("org/name", {name: files[name] for name in ("config.json", WEIGHTS)})
    fetch()
    for file in files:
        hub.fault(file, 503, "HEAD")
    assert fetch().load_report.preprocessing == "default"
    assert slept == []


def test_a_hub_that_fails_midway_never_means_default_preprocessing(hub):
    hub.fault("preprocessor_config.json", 503, "HEAD")
    assert refused().startswith("org/name: preprocessor_config.json: could not be downloaded (")
    hub.heal()
    assert fetch().load_report.preprocessing == "preprocessor_config.json"


def in_a_pickle(files, tmp_path):
    torch.save(load(files[WEIGHTS]), tmp_path / "weights.bin")
    rest = {name: content for name, content in files.items() if name != WEIGHTS}
    return {**rest, "pytorch_model.bin": (tmp_path / "weights.bin").read_bytes()}


@pytest.mark.parametrize("form", ["pickle", "shards"])
def test_the_cache_serves_weights_in_another_form(form, hub, files, tmp_path):
    hub.publish("org/name", in_a_pickle(files, tmp_path) if form == "pickle" else sharded(files))
    fetch()
    assert right(fetch(local_files_only=True))


@pytest.mark.parametrize("file", ["config.json", WEIGHTS, "model-00001-of-00002.safetensors"])
def test_what_the_cache_lacks_is_named_with_the_command_that_fetches_it(file, hub, files):
    hub.publish("org/name", files if file in files else sharded(files))
    fetch(revision="main")
    for path in cached(file):
        path.unlink()
    commit = "" if file == "config.json" else f" --revision {hub.repositories['org/name'].refs['main']}"
    assert refused(local_files_only=True) == (
        f"org/name: {file}: the Hub cannot be reached and the file is not in the cache; where there is a network run "
        f"`hf download org/name{commit} --local-dir FOLDER`, then give FOLDER in its place"
    )


def test_a_hub_that_does_not_answer_is_asked_once(hub, monkeypatch):
    fetch()
    hanging_up(hub, monkeypatch)
    before = len(hub.requests)
    assert right(fetch())
    assert len(hub.requests) == before + 1


def test_a_cache_that_transformers_left_does_not_mean_the_default_preprocessing(hub, files, monkeypatch, caplog):
    """transformers fetches no preprocessor for a model: offline nobody knows whether there is one."""
    fetch()
    commit = hub.repositories["org/name"].refs["main"]
    for path in cached("preprocessor_config.json"):
        path.unlink()
    net = fetch(local_files_only=True)
    assert right(net)
    assert "images by a preprocessor_config.json that is not in the cache: unknown" in str(net.load_report)
    with pytest.raises(ValueError, match=r"^org/name: preprocessor_config\.json: the Hub cannot be reached") as error:
        print(net.preprocessing)
    assert f"`hf download org/name --revision {commit} --local-dir FOLDER`" in str(error.value)
    net.preprocessing = bbframe.Preprocessing()
    assert net.preprocessing.size == (224, 224)
    assert fetch().preprocessing == published().preprocessing


def test_a_preprocessor_that_the_hub_lacks_means_the_default_offline_too(hub, files):
    hub.publish("org/name", {name: files[name] for name in ("config.json", WEIGHTS)})
    for offline in (False, True):
        net = fetch(local_files_only=offline)
        assert net.load_report.preprocessing == "default"
        assert "; images by ImageNet's default, the checkpoint has no preprocessor_config.json: 224 x" in str(
            net.load_report
        )


def test_the_report_says_how_images_are_prepared_and_who_says_so(hub):
    assert f"; images by preprocessor_config.json: {published().preprocessing}" in str(fetch().load_report)


@pytest.mark.parametrize("leave", [stopped, switched_off, behind_a_login_page, hanging_up])
def test_the_cached_commit_that_serves_is_named_with_its_day_and_the_reason(leave, hub, files, monkeypatch, caplog):
    fetch()
    commit = hub.repositories["org/name"].refs["main"]
    for path in cached("config.json"):
        os.utime(path, (86400 * 365, 86400 * 365))
    leave(hub, monkeypatch)
    report = fetch().load_report
    assert report.revision == commit
    assert report.notes[0].startswith("from the cache of 1971-01-0")
    assert "the Hub cannot be reached (" in report.notes[0]
    assert report.notes[0] in str(report)
    warned = [record.getMessage() for record in caplog.records if record.name == "bbframe.hub.client"]
    assert warned == ([] if leave is switched_off else [f"org/name at {commit[:12]}: {report.notes[0]}"])
    assert fetch(local_files_only=True).load_report.notes[0].endswith(", as local_files_only says")


@pytest.mark.parametrize("error", [TypeError("a bug"), RuntimeError("another"), KeyError("x"), ValueError("no url")])
def test_an_error_that_is_no_broken_connection_does_not_mean_offline(error, hub, monkeypatch):
    fetch()

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", fail)
    assert refused().startswith("org/name: config.json: could not be downloaded (")


@pytest.mark.parametrize("fault", [None, 403, 404, "silent", 503])
def test_a_login_in_the_endpoint_is_never_said(fault, hub, monkeypatch, caplog, capfd):
    url = hub.url.replace("//", "//me:opensesame@")
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    for module in (constants, file_download):
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    caplog.set_level("DEBUG")
    if fault is None:
        hub.repositories.clear()
    else:
        hub.fault("config.json", fault, "HEAD")
        hub.fault("config.json", fault)
    said = refused()
    written = capfd.readouterr()
    logged = "".join(r.getMessage() for r in caplog.records if r.name.startswith(("bbframe", "httpx", "huggingface")))
    assert "opensesame" not in said + written.out + written.err + logged


def test_a_token_that_makes_no_header_is_not_repeated(hub):
    assert "hf_secret" not in refused(token="hf_secret\n0123")


# refusals


@pytest.mark.parametrize(
    ("change", "options", "text"),
    [
        (
            lambda repository: repository.commits.clear(),
            {"revision": "v9"},
            "config.json: no revision 'v9'; leave revision null for the newest",
        ),
        (
            lambda repository: [files.pop("config.json") for files in repository.commits.values()],
            {},
            "no config.json there; put it beside the weights, or pass config=",
        ),
        (
            lambda repository: [files.pop(WEIGHTS) for files in repository.commits.values()],
            {},
            "holds no weights; looked for model.safetensors, ",
        ),
        (
            lambda repository: repository.__setattr__("readers", {"hf_mine"}),
            {},
            "config.json: no such repository on the Hub, or a private one; check the spelling, or run `hf auth login`",
        ),
        (
            lambda repository: repository.__dict__.update(readers={"hf_mine"}, gated=True),
            {},
            "config.json: the repository is gated: accept its terms on {url}/org/name, then run `hf auth login`",
        ),
        (
            lambda repository: repository.__dict__.update(readers={"hf_mine"}, gated=True),
            {"token": "hf_other"},
            "config.json: the repository is gated: accept its terms on {url}/org/name, then run `hf auth login`",
        ),
        (lambda repository: None, {"token": "hf_expired"}, "config.json: access is refused ("),
    ],
    ids=["revision", "config", "weights", "private", "gated", "gated to others", "expired token"],
)
def test_a_refusal_says_what_to_do_and_leaves_the_cache_sound(change, options, text, hub, files):
    repository = hub.repositories["org/name"]
    kept = {commit: dict(files) for commit in repository.commits}
    change(repository)
    assert refused(**options).startswith(f"org/name: {text.replace('{url}', hub.url)}")
    repository.commits = kept
    assert right(fetch(token="hf_mine"))


def test_a_repository_that_is_not_there_is_named(hub):
    with pytest.raises(ValueError, match=r"^org/nome: config.json: no such repository on the Hub, or a private one; "):
        AutoBackbone.from_pretrained("org/nome")
    with pytest.raises(ValueError, match=r"^org/na--me: no valid id on the Hub \("):
        AutoBackbone.from_pretrained("org/na--me")


def test_a_status_without_a_reason_is_told(hub):
    hub.fault("config.json", 403, "HEAD")
    assert refused().startswith(
        "org/name: config.json: access is refused (403 Forbidden: None.); ask for it, then run"
    )
    hub.fault("config.json", 404, "HEAD")
    assert refused().endswith(f"; try again, or check HF_ENDPOINT={hub.url}")


# faults on the way


@pytest.mark.parametrize("file", ["config.json", WEIGHTS])
@pytest.mark.parametrize("kind", ["cut", "reset", "short", "silent", "page", "wrong", 500])
def test_a_fault_is_one_error_or_none_and_never_stays_in_the_cache(kind, file, hub):
    hub.hashes = kind == "wrong"
    hub.fault(file, kind)
    assert refused().startswith(f"org/name: {file}: ")
    assert not cached(file)
    hub.fault(file, kind, times=1)
    try:
        assert right(fetch())
    except ValueError as error:
        assert str(error).startswith(f"org/name: {file}: ")  # noqa: PT017
    hub.heal()
    assert right(fetch())


@pytest.mark.long
def test_wrong_bytes_that_only_the_given_hash_shows_do_not_stay_in_the_cache(hub, files):
    hub.hashes = False
    hub.fault(WEIGHTS, "wrong", times=2)
    pin = sha256(files[WEIGHTS]).hexdigest()
    assert f"not {pin} as sha256 says; fetched twice and not kept: " in refused(sha256=pin)
    assert not cached()
    hub.fault(WEIGHTS, "wrong", times=1)
    assert right(fetch(sha256=pin))
    assert right(fetch())


def test_an_interrupted_download_goes_on_where_it_stopped(hub, files, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.fault(WEIGHTS, "cut", times=1)
    try:
        net = fetch()
    except ValueError:  # older clients go on at the next call
        net = fetch()
    assert right(net)
    (rest,) = [request.headers["Range"] for request in hub.bodies(WEIGHTS) if "Range" in request.headers]
    assert 0 < int(rest.removeprefix("bytes=").removesuffix("-")) <= len(files[WEIGHTS]) // 2


def test_a_download_that_stalls_is_taken_up_again(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    hub.fault(WEIGHTS, "stall", times=1)
    assert right(fetch())


def test_a_busy_hub_is_asked_again(hub):
    hub.fault("config.json", 503, "HEAD", times=2)
    try:
        net = fetch()
    except ValueError as error:  # older clients leave that to the next call
        assert "config.json: could not be downloaded (" in str(error)  # noqa: PT017
        net = fetch()
    assert right(net)


# what is damaged on the disk


@pytest.mark.parametrize("hashes", [True, False], ids=["hashes", "tags"])
@pytest.mark.parametrize("file", ["config.json", WEIGHTS])
def test_a_file_that_was_cut_in_the_cache_is_fetched_anew(file, hashes, hub, files, monkeypatch):
    hub.hashes = hashes
    fetch()
    (path,) = cached(file)
    path.write_bytes(files[file][: len(files[file]) // 2])
    with monkeypatch.context() as patch:
        switched_off(hub, patch)
        text = refused()
        assert text.startswith(f"{path}: ")
        assert text.endswith(
            "; the Hub cannot be reached (HF_HUB_OFFLINE is set) to fetch it again: where there is a network, delete "
            "the file and run this again"
        )
    fresh_client()
    assert right(fetch())
    assert path.read_bytes() == files[file]
    assert len(hub.bodies(file)) == 2


def test_a_bit_that_flipped_in_the_cache_is_seen(hub, files):
    fetch()
    (path,) = cached()
    content = bytearray(files[WEIGHTS])
    content[-1] ^= 1
    path.write_bytes(content)
    assert right(fetch())
    assert path.read_bytes() == files[WEIGHTS]


# the hash that the caller asks for


def test_weights_of_the_given_hash_are_loaded(hub, files, tmp_path):
    digest = sha256(files[WEIGHTS]).hexdigest()
    for pin in (digest, digest.upper(), {WEIGHTS: digest}):
        assert right(fetch(sha256=pin))
    assert right(bbframe.make_backbone({**options(), "sha256": digest}))
    published().save_pretrained(tmp_path / "folder")
    assert right(AutoBackbone.from_pretrained(tmp_path / "folder", sha256=digest))


def options():
    config = published().config.to_dict()
    return {"model_type": "resnet", "pretrained": True, "checkpoint": "org/name", "depths": config["depths"]} | {
        key: config[key] for key in ("embedding_size", "hidden_sizes", "layer_type", "hidden_act", "out_features")
    }


@pytest.mark.parametrize("hashes", [True, False], ids=["hashes", "tags"])
def test_weights_of_another_hash_are_refused_and_not_kept(hashes, hub, files, tmp_path):
    hub.hashes = hashes
    found, wanted = sha256(files[WEIGHTS]).hexdigest(), "0" * 64
    problem = f"its SHA-256 is {found}, not {wanted} as sha256 says"
    assert refused(sha256=wanted).startswith(f"org/name: {WEIGHTS}: {problem}; fetched twice and not kept: ")
    assert not cached()
    assert right(fetch())
    with pytest.raises(ValueError, match=problem):
        bbframe.make_backbone({**options(), "sha256": wanted})
    assert right(fetch())
    (path,) = cached()
    assert refused(sha256=wanted, local_files_only=True).startswith(f"{path}: {problem}; the Hub cannot be reached to")
    assert path.exists()
    published().save_pretrained(tmp_path / "folder")
    with pytest.raises(ValueError, match=f"{WEIGHTS}: {problem}; fetch the file again, or correct sha256"):
        AutoBackbone.from_pretrained(tmp_path / "folder", sha256=wanted)


def test_every_file_of_the_weights_has_its_hash(hub, files):
    parts = sharded(files)
    hub.publish("org/name", parts)
    digests = {name: sha256(content).hexdigest() for name, content in parts.items() if name.endswith(".safetensors")}
    one, two = digests
    net = fetch(sha256=digests)
    assert right(net)
    assert net.load_report.sha256 == digests
    assert "its SHA-256 is" in refused(sha256={**digests, two: digests[one]})
    text = f"org/name: sha256 is given for {one}; give it for each of {one}, {two}"
    assert refused(sha256=digests[one]) == refused(sha256={one: digests[one]}) == text


def test_the_hash_holds_for_timms_networks(hub):
    timm = pytest.importorskip("timm")
    weights = save(timm.create_model("test_resnet").state_dict())
    hub.publish("org/theirs", {"config.json": b'{"architecture": "test_resnet"}', WEIGHTS: weights})
    digest = sha256(weights).hexdigest()
    theirs = {"model_type": "timm_backbone", "backbone": "hf-hub:org/theirs", "pretrained": True}
    assert bbframe.make_backbone({**theirs, "sha256": digest}).load_report.sha256 == {WEIGHTS: digest}
    for make in (
        lambda: bbframe.make_backbone({**theirs, "sha256": "0" * 64}),
        lambda: AutoBackbone.from_pretrained("hf-hub:org/theirs", sha256="0" * 64),
    ):
        with pytest.raises(ValueError, match=f"^org/theirs: {WEIGHTS}: its SHA-256 is {digest}, not 0000"):
            make()


@pytest.mark.parametrize("pin", ["", "abc", "g" * 64, {WEIGHTS: "abc"}])
def test_a_hash_has_64_digits(pin, hub):
    assert refused(sha256=pin).endswith("must be 64 hexadecimal digits")
    assert hub.requests == []


# weights in several files, and in pickles


def sharded(files, name_of="model-{:05}-of-00002.safetensors".format):
    """The files with the weights split into two, and an index."""
    tensors = load(files[WEIGHTS])
    parts = [dict(list(tensors.items())[i::2]) for i in range(2)]
    index = {"weight_map": {key: name_of(i) for i, part in enumerate(parts, start=1) for key in part}}
    rest = {name: content for name, content in files.items() if name != WEIGHTS}
    shards = {f"model-{i:05}-of-00002.safetensors": save(part) for i, part in enumerate(parts, start=1)}
    return {**rest, **shards, "model.safetensors.index.json": json.dumps(index).encode()}


def test_a_missing_shard_is_named(hub, files):
    parts = sharded(files)
    del parts["model-00002-of-00002.safetensors"]
    hub.publish("org/name", parts)
    assert "index.json: the shard model-00002-of-00002.safetensors is missing; " in refused()


@pytest.mark.parametrize("evil", EVIL)
def test_a_shard_with_a_path_for_a_name_is_not_asked_for(evil, hub, files):
    hub.publish("org/name", sharded(files, lambda i: evil))
    assert f"index.json: refers to {evil!r}; shards must be plain file names" in refused()
    assert {Path(request.file).suffix for request in hub.bodies()} == {".json"}


class _Harm:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickle_with_code_is_refused_and_does_not_run(hub, files, tmp_path):
    torch.save({"stem.conv.weight": _Harm(tmp_path / "witness")}, tmp_path / "harm.bin")
    hub.publish(
        "org/name", {"config.json": files["config.json"], "pytorch_model.bin": (tmp_path / "harm.bin").read_bytes()}
    )
    assert "pytorch_model.bin: not a whole file of tensors alone" in refused()
    assert not (tmp_path / "witness").exists()


# what a repository may say of itself


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "org/name: config.json: not valid JSON (Expecting property name"),
        ("[" * 100_000, "org/name: config.json: not valid JSON (maximum recursion depth exceeded"),
        ("<html>Welcome</html>", "org/name: config.json: not valid JSON (Expecting value"),
        ("[1]", "config.json: must hold a JSON object, not list"),
        ('{"model_type": "bert"}', "org/name: config.json: no backbone 'bert'; "),
        ("{}", "org/name: config.json: has no model_type; "),
    ],
)
def test_a_published_config_that_makes_no_sense_is_named(text, message, hub, files):
    hub.publish("org/name", {**files, "config.json": text.encode()})
    assert message in refused()
    hub.publish("org/name", files)
    assert right(fetch())


# the token


def test_a_given_token_reaches_the_hub_and_no_other_host(hub):
    repository = hub.repositories["org/name"]
    repository.readers = {"hf_mine"}
    assert right(fetch(token="hf_mine"))
    assert {request.token for request in hub.requests if request.host == "hub"} == {"Bearer hf_mine"}
    assert {request.token for request in hub.requests if request.host == "elsewhere"} == {None}


def test_a_login_is_for_huggingface_alone_and_another_endpoint_gets_what_the_environment_says(hub, monkeypatch):
    Path(constants.HF_TOKEN_PATH).write_text("hf_login")
    assert right(fetch())
    assert {request.token for request in hub.requests} == {None}
    repository = hub.repositories["org/name"]
    repository.readers, repository.gated = {"hf_login", "hf_mine"}, True
    empty_cache(monkeypatch)
    assert refused().endswith(f"; {hub.url} is sent a given token or HF_TOKEN's, no login's")
    assert refused(token="hf_other").endswith("; the account of the token that was sent has no access yet")
    monkeypatch.setenv("HF_TOKEN", "hf_mine\n")
    assert right(fetch())
    assert hub.requests[-1].token == "Bearer hf_mine"
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    assert logins.token_to_send() is False
    for endpoint, own in {
        "https://huggingface.co": True,
        "https://hub-ci.huggingface.co": True,
        "http://huggingface.co": False,
        "https://huggingface.co.example.org": False,
        "https://nothuggingface.co": False,
    }.items():
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        assert (logins.token_to_send() is None) == own, endpoint


# the whole program


@pytest.mark.long
def test_the_environment_names_the_endpoint_and_the_token(hub, tmp_path):
    program = (
        "import bbframe\n"
        "for name in ('org/name', 'org/none'):\n"
        "    try: print(bbframe.AutoBackbone.from_pretrained(name).load_report)\n"
        "    except ValueError as error: print('error:', error)\n"
    )
    repository = hub.repositories["org/name"]
    repository.readers = {"hf_mine"}
    environment = {**os.environ, **PLAIN, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_TOKEN": "hf_mine"}
    command = [sys.executable, "-c", program]
    lines = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[0].startswith(f"org/name at {next(iter(repository.commits))[:12]}: ")
    assert lines[1].startswith("error: org/none: config.json: no such repository on the Hub, or a private one; ")
    assert len(lines) == 2
