"""`bbframe push`: a network goes to a Hub on the loopback and comes back; what goes wrong is one line."""

from __future__ import annotations

import json
import time

import pytest
import yaml
from huggingface_hub import constants, file_download
from huggingface_hub.utils import _http

import bbframe
from bbframe import AutoBackbone
from bbframe.app import cli
from bbframe.app.push_command import push
from bbframe.predict.model_card import model_card
from bbframe.predict.training_facts import TrainingFacts
from tests.hub_server import Hub
from tests.predict.networks import assert_equal_results, pictures, under

# the client's own way of sending a file
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
TOKEN = "hf_" + "anna" * 8
SAVED = {
    "README.md",
    "bbframe.json",
    "calibration.safetensors",
    "config.json",
    "head.safetensors",
    "model.safetensors",
    "preprocessor_config.json",
}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty Hub where anna may write; the client asks it, with an empty cache and no token."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("NO_PROXY", "no_proxy"):  # a proxy of this machine has no part in this
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.chdir(tmp_path)
    with Hub() as server:
        server.writers[TOKEN] = "anna"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        for module in (constants, file_download):  # older clients have their own
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        fresh_client()
        yield server
        fresh_client()


def fresh_client():
    getattr(_http, "close_session" if hasattr(_http, "close_session") else "reset_sessions")()


@pytest.fixture
def folder(tmp_path):
    under("linear", "tiny_convnextv2").save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def files(hub, name, ref="main"):
    repository = hub.repositories[name]
    return repository.commits[repository.refs[ref]]


def refused(call):
    with pytest.raises(ValueError, match=r"^\S") as error:
        call()
    text = str(error.value)
    assert "\n" not in text
    assert TOKEN not in text
    return text


def test_a_run_goes_to_the_hub_and_comes_back(hub, digits_run, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert push([f"run={digits_run}", "repo=anna/digits", "licence=mit", "message=the first"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"published: {hub.url}/anna/digits/commit/")
    assert "bbframe.load('anna/digits')" in said
    assert set(files(hub, "anna/digits")) == SAVED | {".gitattributes"}
    assert hub.repositories["anna/digits"].messages == ["the first"]  # one commit
    monkeypatch.delenv("HF_TOKEN")
    hub.requests.clear()
    net, run = bbframe.load("anna/digits"), bbframe.load(digits_run)
    assert_equal_results(net(pictures()), run(pictures()))
    assert net.facts.test == run.facts.test
    assert not any(request.token for request in hub.requests)
    hub.stop()
    fresh_client()
    assert_equal_results(bbframe.load("anna/digits", local_files_only=True)(pictures()), run(pictures()))
    assert_equal_results(bbframe.load("anna/digits")(pictures()), run(pictures()))


def test_the_token_goes_to_the_hub_alone(hub):
    under("linear", "tiny_convnextv2").push_to_hub("anna/x", token=TOKEN)
    puts = [request for request in hub.requests if request.method == "PUT"]
    assert len(puts) == 3
    assert all(request.host == "elsewhere" and request.token is None for request in puts)
    assert all(request.token == f"Bearer {TOKEN}" for request in hub.requests if request.method == "POST")


def test_a_login_goes_to_no_other_hub(hub, tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    text = refused(lambda: under("linear", "tiny_convnextv2").push_to_hub("anna/x"))
    assert "anna/x: no token to write to the Hub; run `hf auth login`" in text
    assert hub.requests == []


@pytest.mark.long
def test_an_existing_repository_is_left_alone_unless_asked(hub):
    net = under("linear", "tiny_convnextv2")
    net.push_to_hub("anna/x", token=TOKEN)
    before = files(hub, "anna/x")
    text = refused(lambda: net.push_to_hub("anna/x", token=TOKEN))
    assert text.startswith("anna/x: the repository exists; choose another name, or overwrite=true")
    assert files(hub, "anna/x") == before
    net.push_to_hub("anna/x", token=TOKEN, overwrite=True, licence="mit")
    assert b"license: mit" in files(hub, "anna/x")["README.md"]
    net.push_to_hub("anna/x", token=TOKEN, overwrite=True, revision="v2", licence="gpl-3.0")
    assert b"license: mit" in files(hub, "anna/x")["README.md"]
    assert b"license: gpl-3.0" in files(hub, "anna/x", "v2")["README.md"]
    assert_equal_results(bbframe.load("anna/x", revision="v2")(pictures()), net(pictures()))


@pytest.mark.long
def test_a_private_repository_needs_the_token(hub):
    net = under("linear", "tiny_convnextv2")
    net.push_to_hub("anna/x", token=TOKEN, private=True)
    assert hub.repositories["anna/x"].private
    assert "no such repository on the Hub, or a private one" in refused(lambda: bbframe.load("anna/x"))
    assert_equal_results(bbframe.load("anna/x", token=TOKEN)(pictures()), net(pictures()))
    net.push_to_hub("anna/x", token=TOKEN, private=True, overwrite=True, licence="mit")
    assert b"license: mit" in files(hub, "anna/x")["README.md"]


def test_what_is_private_goes_to_no_public_repository(hub):
    net = under("linear", "tiny_convnextv2")
    net.push_to_hub("anna/x", token=TOKEN)
    before = files(hub, "anna/x")
    text = refused(lambda: net.push_to_hub("anna/x", token=TOKEN, private=True, overwrite=True, licence="mit"))
    assert text == "anna/x: private=true, and the repository is there already and public; make it private on its page"
    assert files(hub, "anna/x") == before


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"token": "hf_wrong" + "x" * 20}, "the token is not accepted"),
        ({"repo": "ben/x", "token": TOKEN}, "ben/x: the token may not write there"),
        ({"repo": "x", "token": TOKEN}, "repo='x' must be <user or organisation>/<name>"),
        ({"repo": "anna/x y", "token": TOKEN}, "repo='anna/x y' must be"),
        ({"licence": "MY OWN", "token": TOKEN}, "licence='MY OWN' must be an identifier"),
    ],
)
def test_what_the_hub_refuses_is_said_in_one_line(hub, options, text):
    options = {"repo": "anna/x", **options}
    assert text in refused(lambda: under("linear", "tiny_convnextv2").push_to_hub(**options))
    assert hub.repositories == {}


def test_an_upload_that_breaks_off_can_go_on(hub):
    net = under("linear", "tiny_convnextv2")
    hub.fault("main", 500, "POST")
    text = refused(lambda: net.push_to_hub("anna/x", token=TOKEN))
    assert text.startswith("anna/x: could not be uploaded (")
    assert text.endswith("the repository is made: overwrite=true goes on with it")
    hub.heal()
    net.push_to_hub("anna/x", token=TOKEN, overwrite=True)
    assert set(files(hub, "anna/x")) >= SAVED


def test_without_a_network_it_says_so(hub, monkeypatch):
    net = under("linear", "tiny_convnextv2")
    hub.stop()
    fresh_client()
    assert "cannot be reached" in refused(lambda: net.push_to_hub("anna/x", token=TOKEN))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fresh_client()
    assert "HF_HUB_OFFLINE is set" in refused(lambda: net.push_to_hub("anna/x", token=TOKEN))


def test_a_repository_without_a_network_says_what_it_is(hub, folder):
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.publish("anna/backbone", {name: content[name] for name in ("config.json", "model.safetensors")})
    assert "anna/backbone: is a backbone without a head" in refused(lambda: bbframe.load("anna/backbone"))
    assert AutoBackbone.from_pretrained("anna/backbone").channels
    hub.publish("anna/notes", {"README.md": b"hello"})
    assert "anna/notes: holds no bbframe.json" in refused(lambda: bbframe.load("anna/notes"))
    del content["head.safetensors"]
    hub.publish("anna/half", content)
    assert "anna/half/head.safetensors: is missing" in refused(lambda: bbframe.load("anna/half"))
    assert "no such repository on the Hub" in refused(lambda: bbframe.load("anna/nothing"))
    hub.stop()
    fresh_client()
    assert "is not in the cache" in refused(lambda: bbframe.load("anna/never"))


def test_a_damaged_head_is_fetched_again(hub, folder):
    hub.publish("anna/x", {path.name: path.read_bytes() for path in folder.iterdir()})
    hub.fault("head.safetensors", "wrong", times=1)
    assert_equal_results(bbframe.load("anna/x")(pictures()), bbframe.load(folder)(pictures()))
    assert len(hub.bodies("head.safetensors")) == 2


def test_predict_and_embed_take_an_id(hub, folder, tmp_path, capsys):
    hub.publish("anna/x", {path.name: path.read_bytes() for path in folder.iterdir()})
    (tmp_path / "photos").mkdir()
    pictures()[0].save(tmp_path / "photos" / "a.png")
    assert cli.COMMANDS["predict"][0](["run=anna/x", "images=photos"]) == 0
    assert (tmp_path / "outputs" / "anna--x" / "predictions" / "predictions.csv").is_file()
    assert cli.COMMANDS["embed"][0](["run=anna/x", "images=photos", "out=f.npy"]) == 0
    assert "1 of 1 images" in capsys.readouterr().out


def test_a_folder_is_written_without_a_network(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert push([f"run={folder}", f"folder={tmp_path / 'card'}", "licence=apache-2.0"]) == 0
    assert "written, not sent" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "card").iterdir()} == SAVED
    assert_equal_results(bbframe.load(tmp_path / "card")(pictures()), bbframe.load(folder)(pictures()))
    assert "holds files already" in refused(lambda: push([f"run={folder}", f"folder={tmp_path / 'card'}"]))
    assert push([f"run={folder}", f"folder={tmp_path / 'card'}", "overwrite=true", "repo=anna/x"]) == 0
    assert 'bbframe.load("anna/x")' in (tmp_path / "card" / "README.md").read_text()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["run=x"], "push: repo must be given"),
        (["repo=anna/x"], "push: run must be given"),
        (["run=x", "repo=anna/x", "token=abc"], "a token has no place on a command line"),
        (["run=x", "repo=anna/x", "licens=mit"], "did you mean 'licence'"),
        (["run=x", "repo=anna"], "repo='anna' must be"),
        (["run=x", "repo=anna/x", "private=perhaps"], "private='perhaps' must be true or false"),
        (["x"], "'x' is no option; write key=value"),
        (["run=no/such/run", "repo=anna/x"], "there is no 'no'"),
        (["run=x", "repo=anna/x", "--plugin", "no_such_module"], "plugin 'no_such_module' cannot be imported"),
    ],
)
def test_a_wrong_command_line_is_refused(words, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert text in refused(lambda: push(words))


# the card


def front_matter(card):
    _, matter, rest = card.split("---\n", 2)
    return yaml.safe_load(matter), rest


def test_the_card_states_what_the_record_holds(digits_run):
    net = bbframe.load(digits_run)
    matter, text = front_matter(model_card(net, "anna/digits", "mit"))
    assert (matter["library_name"], matter["pipeline_tag"], matter["license"]) == (
        "bbframe",
        "image-classification",
        "mit",
    )
    assert "base_model" not in matter  # its weights were fresh
    metrics = json.loads((digits_run / "metrics.json").read_text())
    ((result,),) = [index["results"] for index in matter["model-index"]]
    measured = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert measured == {name: round(metrics["test"][name], 4) for name in ("accuracy", "f1", "top5")}
    low, high = (metrics[end]["accuracy"] for end in ("test_low", "test_high"))
    assert f"| Accuracy | {metrics['test']['accuracy']:.4f} | {low:.3f} to {high:.3f} |" in text
    assert "On 269 test images" in text
    assert f"temperature of {net.calibration.temperature:.3f}" in text
    assert "10: 0, 1, 2, 3" in text
    assert "`digits`: 1259 training, 269 validation, 269 test images" in text
    assert "'backbone.depths=[1,1,1,1]'" in text
    assert str(digits_run) not in text


@pytest.mark.parametrize(
    ("head", "tag"), [("mask_rcnn", "image-segmentation"), ("fcos", "object-detection"), ("linear", None)]
)
def test_the_hub_is_told_the_task(head, tag):
    net = under(head, "tiny_swin")
    matter, text = front_matter(model_card(net, "anna/x"))
    assert matter["pipeline_tag"] == (tag or "image-classification")
    assert "license" not in matter
    assert "model-index" not in matter
    assert "This network was not tested" in text
    assert "a cat, Öl &amp; Gas, c" in text


def test_the_card_names_the_pretrained_weights_and_hides_nothing_of_the_test(folder):
    net = bbframe.load(folder)
    vars(net)["facts"] = TrainingFacts(
        checkpoint="facebook/some", revision="a" * 40, data="folder", test={"accuracy": 0.5}, test_part="val",
        test_images=20, overrides=("data.root=...",),
    )  # fmt: skip
    matter, text = front_matter(model_card(net, "anna/x"))
    assert matter["base_model"] == "facebook/some"
    assert "`facebook/some` at `aaaaaaaaaaaa`" in text
    assert "On 20 validation images" in text
    assert "They also chose the epoch" in text
    assert "20 images alone" in text


def test_class_names_are_shown_as_they_are(folder):
    net = bbframe.load(folder)
    net.class_names = ["<script>", "a|b", "*c*\n# d"]
    text = model_card(net, "anna/x")
    assert "&lt;script>, a\\|b, \\*c\\*\\\\n\\# d" in text


def test_the_command_is_known(capsys):
    assert cli.COMMANDS["push"][0] is push
    assert "repo=user/name" in cli.COMMANDS["push"][1]
