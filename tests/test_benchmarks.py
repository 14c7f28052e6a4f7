"""The benchmark without its peers and without a clock: what it compares, its arguments, its files."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from bbframe.app.composition import composition, plain_data
from bbframe.auto import AutoBackbone
from bbframe.run.configuration import parse_configuration
from benchmarks import compare, kill, measure, peers, report, scale
from benchmarks.cases import GROUPS, Measure, cases
from tests.tiny import names


def row(title, ours, transformers=None, timm=None, counts=True, name="forward8"):
    """A row with one measurement."""
    given = {"bbframe": ours, "transformers": transformers, "timm": timm}
    values = {library: value for library, value in given.items() if value is not None}
    check = {"float32": 1e-6, "bf16": [0.01, 0.01], "counts": {"float32": counts, "bf16": counts}, "attention": None}
    checks = {library: dict(check) for library in values if library != "bbframe"}
    return {"title": title, "checks": checks, "errors": {}, "measures": {name: {"values": values, "errors": {}}}}


@pytest.fixture
def result():
    rows = {"swin": row("Swin-T", 100.0, 250.0, 200.0), "resnet": row("ResNet-50", 100.0, 110.0, 90.0)}
    return {"machine": {"cpu": "a processor", "threads": 2}, "rows": rows}


def test_every_architecture_is_compared():
    assert sorted(cases()) == names()


@pytest.mark.parametrize("name", names())
def test_a_case_drops_nothing_and_timm_takes_all_its_weights(name):
    case = cases()[name]
    data = peers.backbone_options(case.choice)
    with composition() as compose:
        assert data == plain_data(compose, [f"backbone={case.choice}"])["backbone"]
    with torch.device("meta"):
        net = AutoBackbone.from_config(peers.config(case, data))
    assert net.out_indices == list(case.indices)
    assert not getattr(net.config, "drop_path_rate", 0)
    if case.timm is not None:
        with torch.device("meta"):
            assert peers.from_timm(case, net)  # refuses a tensor without a counterpart, on either side


def test_timms_weights_are_ours():
    case = cases()["resnet"]
    net = peers.ours(case, peers.backbone_options("resnet50")).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(net(x).feature_maps, peers.from_timm(case, net).eval()(x), strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3 * ours.abs().max().item())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["swim"], "unknown architecture 'swim'; did you mean 'swin'?"),
        (["swin", "--only", "forwrd8"], "unknown measurement 'forwrd8'; did you mean 'forward8'?"),
    ],
)
def test_a_misspelt_word_is_named(words, message):
    with pytest.raises(ValueError, match="unknown") as error:
        compare.parse([*words, "--device", "cpu"])
    assert str(error.value) == message


def test_groups_and_single_measurements_are_chosen_in_order():
    options = compare.parse(["resnet", "swin", "--only", "compile-forward8", "bf16", "--device", "cpu"])
    assert list(options.cases) == ["resnet", "swin"]
    assert options.measures == ["bf16-forward1", "bf16-forward8", "bf16-train8", "compile-forward8"]
    every = [name for groups in GROUPS.values() for names in groups.values() for name in names]
    assert compare.parse(["--only", "all", "--device", "cpu"]).measures == [n for n in every if "64" not in n]
    assert set(every) - set(compare.parse(["--device", "cpu"]).measures) >= set(GROUPS["cpu"]["compile-more"])
    assert all(Measure(name).kind and Measure(name).batch for name in every)


def test_a_missing_peer_is_one_line_that_names_the_extra(monkeypatch, capsys):
    monkeypatch.setattr(compare.importlib.util, "find_spec", lambda name: None)
    assert compare.main(["swin", "--device", "cpu"]) == 2
    assert capsys.readouterr().err == (
        "error: transformers is not installed; it comes with an extra: pip install -e '.[bench]'; "
        "--peers timm leaves it out\n"
    )


def test_the_faster_peer_counts_and_one_with_other_maps_does_not(result):
    assert report.ratio(result["rows"]["swin"], "forward8") == 2.0
    assert report.ratio(result["rows"]["resnet"], "forward8") == 0.9
    result["rows"]["swin"]["checks"]["timm"]["counts"] = {"float32": False, "bf16": False}
    assert report.ratio(result["rows"]["swin"], "forward8") == 2.5
    assert "| Swin-T | 100 | 250 | (200) | 2.50 |" in report.markdown(result)


def test_the_report_says_what_was_reached_and_what_failed(result, tmp_path):
    failed = result["rows"]["resnet"]["measures"]["train8"] = {"values": {"bbframe": 3.0}, "errors": {}}
    failed["errors"]["timm"] = "RuntimeError: out of memory"
    result["rows"]["nat"] = row("NAT-mini", 150.0)
    result["rows"]["nat"]["measures"]["forward8"]["values"]["bbframe's Swin-T"] = 100.0
    report.write(result, tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert "| forward, float32, batch 8, geometric mean of 2 | 2.0 | 1.34 | no |" in text
    assert "| the same, each of ResNet, BiT, FocalNet | 1.2 | 0.90 (ResNet-50) | no |" in text
    assert "| NAT-mini, forward, time over Swin-T's | ≤ 1.6 | 1.50 | yes |" in text
    assert "| ResNet-50 | 3 | - | RuntimeError | - |" in text
    assert json.loads((tmp_path / "table.json").read_text()) == result
    assert (tmp_path / "ratios.png").stat().st_size > 10_000


def test_results_of_another_machine_are_refused(result, tmp_path, monkeypatch):
    report.write(result, tmp_path)
    monkeypatch.setattr(compare, "machine", lambda options: {"cpu": "another"})
    with pytest.raises(ValueError, match="choose another folder"):
        compare.open_result(compare.parse(["swin", "--device", "cpu", "--out", str(tmp_path)]))


@pytest.mark.parametrize(("error", "counts"), [(0.0, True), (1e-2, False)])
def test_a_compiled_network_with_other_maps_does_not_count(error, counts, monkeypatch):
    class Compiled(torch.nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return [y * (1 + error) for y in self.net(x)]

    class Net(torch.nn.Module):
        def forward(self, x):
            return [x]

    monkeypatch.setattr(torch, "compile", lambda net, fullgraph: Compiled(net))
    job = measure.Job(case="resnet", options={}, measures=[], rounds=1, threads=1, device="cpu", peers=[])
    found = measure.time_in_turn({"bbframe": Net()}, cases()["resnet"], Measure("compile-forward1"), job)
    assert ("bbframe" in found["values"]) == counts
    assert found["errors"] == ({} if counts else {"bbframe": "ValueError: the compiled maps differ by 1.0e-02"})


@pytest.mark.slow
def test_every_case_of_kills_is_a_configuration():
    with composition() as compose:
        for case in kill.CASES:
            assert parse_configuration(plain_data(compose, list(case.options))).trainer.max_epochs == 3


def test_a_difference_in_one_bit_is_a_difference():
    tensors = {"a": torch.ones(3), "b": [torch.zeros(2), 1.0]}
    other = {"a": torch.ones(3), "b": [torch.zeros(2), 1.0]}
    assert kill.equal(tensors, other)
    other["b"][0][1] = 1e-45
    assert not kill.equal(tensors, other)


def test_a_ring_sends_its_whole_twice_less_what_each_member_has():
    assert scale.ring(8.0, 1) == 0
    assert scale.ring(8.0, 4) == 12
    assert scale.ring(8.0, 4, passes=3) == 18


@pytest.fixture(scope="module")
def resnet50():
    """The case on eight GPUs, whose network is counted once."""
    case = scale.CASES["resnet50"]
    parameters, macs = scale.counted(case)
    assert parameters == 25_557_032 + 2 * 2048  # as published, and the norm before the classifier
    assert macs == pytest.approx(4.09e9, rel=0.01)
    return case


@pytest.mark.parametrize(
    ("changes", "slowest"),
    [
        ({"network_gbit": 1.0, "gpus": 64}, "interconnect"),
        ({"storage_gb": 0.1}, "storage"),
        ({"cores_per_gpu": 1, "storage_gb": 100.0}, "processors"),
        ({"cores_per_gpu": 64, "storage_gb": 100.0}, "GPUs"),
    ],
)
def test_on_paper_the_least_of_the_rates_is_the_bottleneck(resnet50, changes, slowest):
    lines = scale.computed(replace(resnet50, machine=replace(resnet50.machine, **changes)))
    assert lines["slowest"] == slowest
    alone = float(lines[f"the {slowest} alone"].replace(",", ""))
    reached = float(lines["images a second"].replace(",", ""))
    assert reached <= alone + 1
    assert slowest == "interconnect" or reached == pytest.approx(alone, abs=1)


def test_on_paper_a_wrong_key_is_refused():
    with pytest.raises(SystemExit, match="no 'network'; there are gpus, "):
        scale.changed(scale.CASES["resnet50"], {"network": "1"})


@pytest.mark.long
def test_a_sharded_optimizer_takes_a_share_of_the_memory(resnet50):
    whole = scale.computed(resnet50)["weights and optimizer"]
    assert whole.startswith("390 MiB")  # 16 bytes a parameter
    assert scale.computed(replace(resnet50, strategy="fsdp"))["weights and optimizer"].startswith("48.8 MiB")
