"""One exported program for every batch, height and width, from torch and in ONNX."""

from __future__ import annotations

import pytest
import torch
from torch.export import Dim, export

from bbframe import AutoBackbone

from .tiny import cases, distance, free, golden_config, images

# one golden case an architecture, and those that are unlike the others; ONNX is tried with all of them, and in full
SOME = [*{case.partition("/")[0]: case for case in cases()}.values()]
SOME += [case for case in cases() if case not in SOME and not free(golden_config(case))]


def from_case(case, stages=None):
    """The backbone of a golden case, as far as the first so many stages if any may be selected."""
    config = golden_config(case)
    if free(config):
        config.out_features = config.stage_names[:stages]
    torch.manual_seed(0)
    return AutoBackbone.from_config(config).eval()


def sides(net):
    """The smallest side of the programs here, two cells of the coarsest map, and sizes: odd, square, high, wide."""
    least = 2 * max(net.strides)
    sizes = ((1, 2 * least + 1, least + 7), (3, least, least), (2, 2 * least, least + 3), (2, least + 5, 3 * least))
    return least, sizes


def dynamic(least):
    """What a program may be given: any number of images, of any sides from `least`."""
    return ({0: Dim("batch", max=1024), 2: Dim("height", min=least, max=8192), 3: Dim("width", min=least, max=8192)},)


@pytest.mark.slow
@pytest.mark.parametrize("case", SOME)
def test_an_exported_program_serves_every_size(case):
    net = from_case(case, stages=4)
    least, sizes = sides(net)
    x = images(net, least + 3, 2 * least + 5)
    program = export(net, (x,), dynamic_shapes=dynamic(least)).module()
    with torch.no_grad():
        for batch, height, width in sizes:
            x = images(net, height, width, batch)
            for a, b in zip(program(x).feature_maps, net(x).feature_maps, strict=True):
                assert distance(a, b) < 1e-5


@pytest.mark.onnx
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", cases())
def test_onnx_programs_serve_every_size(case, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    net = from_case(case)
    least, sizes = sides(net)
    x = images(net, least + 3, 2 * least + 5)
    program = torch.onnx.export(net, (x,), dynamo=True, dynamic_shapes=dynamic(least), verbose=False)
    program.save(tmp_path / "net.onnx")
    session = runtime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    for batch, height, width in sizes:
        x = images(net, height, width, batch)
        maps = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        with torch.no_grad():
            for a, b in zip(maps, net(x).feature_maps, strict=True):
                assert distance(torch.from_numpy(a), b) < 1e-4
