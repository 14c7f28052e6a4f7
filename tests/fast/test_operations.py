"""The faster operations: on a CPU they give what the plain ones give, gradients included."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bbframe.fast import attention, convert, probe, product
from bbframe.fast.convolution import conv_norm
from bbframe.fast.perceptron import by_rows, perceptron
from bbframe.fast.probe import computed_once, may_run, once
from bbframe.fast.product import linear
from bbframe.layers.attention import DotProductAttention, join_heads
from bbframe.layers.convolution import ConvNorm, DepthwiseConv
from bbframe.layers.mlp import Mlp
from bbframe.layers.norm import GroupNorm
from bbframe.models.convnextv2 import GlobalResponseNorm
from tests.fast.conftest import needs_onednn
from tests.tiny import distance, images, names, tiny

pytestmark = [needs_onednn, pytest.mark.usefixtures("faster", "small_pieces")]
attend = convert(DotProductAttention())
ACTIVATIONS = (nn.GELU(), nn.GELU(approximate="tanh"), nn.ReLU(), nn.SiLU(), nn.SELU())


def channels_last(x):
    return x.contiguous(memory_format=torch.channels_last)


def gradients(f, x, *parameters):
    """What f gives at x, its gradients, and the gradients of these."""
    x = x.detach().clone().requires_grad_()
    given = [x, *parameters]
    out = f(x)
    first = torch.autograd.grad(out.sin().sum(), given)
    again = torch.autograd.grad(f(x).sin().sum(), given, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in again), given)
    return [out, *first, *again, *second]


def assert_same(f, plain, x, *parameters):
    for a, b in zip(gradients(f, x, *parameters), gradients(plain, x, *parameters), strict=True):
        assert distance(a, b) < 1e-5
    with torch.no_grad():
        assert distance(f(x), plain(x)) < 1e-5


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 7), (1, 7), (4, 5, 6, 7)])
@pytest.mark.parametrize("out", [3, 16])
def test_linear_layers_are_those_of_torch(shape, out, bias):
    layer = convert(nn.Linear(7, out, bias=bias))
    x = torch.randn(shape)
    assert may_run("product", x, *layer.parameters())
    assert_same(layer, lambda x: F.linear(x, layer.weight, layer.bias), x, *layer.parameters())
    with torch.no_grad():
        assert distance(layer(x.mT.contiguous().mT), F.linear(x, layer.weight, layer.bias)) < 1e-5
        for act in ACTIVATIONS:
            fused = linear(x, layer.weight, layer.bias, act)
            assert (fused - act(F.linear(x, layer.weight, layer.bias))).abs().max() < 3e-6


@pytest.mark.parametrize("shape", [(5, 3), (3, 5)])
def test_the_gradient_of_a_large_weight(shape, monkeypatch):
    monkeypatch.setattr(product, "_LARGE", 1)
    layer = convert(nn.Linear(*shape))
    assert_same(
        layer, lambda x: F.linear(x, layer.weight, layer.bias), torch.randn(4, 6, shape[0]), *layer.parameters()
    )


class Seen:
    """A compiler that runs what it is given as it is, and keeps the names of the operations."""

    def __init__(self):
        self.operations = set()

    def __call__(self, graph, inputs):
        self.operations |= {str(node.target) for node in graph.graph.nodes if node.op == "call_function"}
        return graph.forward


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_compiler_gets_the_product_as_one_operation(dtype, dynamic):
    net, seen = convert(Mlp(8, 20, "gelu")), Seen()
    torch.compiler.reset()
    compiled = torch.compile(net, backend=seen, fullgraph=True, dynamic=dynamic)
    x = torch.randn(3, 5, 8)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        with torch.no_grad():
            out, expected = compiled(x), net(x)
        assert "bbframe.product" in seen.operations
        assert out.dtype == expected.dtype == dtype
        assert distance(out, expected) < 1e-6
        seen.operations.clear()
        compiled(x).sum().backward()  # gradients are left to the compiler
    assert seen.operations
    assert "bbframe.product" not in seen.operations
    exported = torch.export.export(net.eval(), (x,))
    assert not any("bbframe" in str(node.target) for node in exported.graph.nodes)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="torch's own compiler needs one of C++")
def test_what_the_compiler_of_torch_makes_of_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    net = convert(Mlp(8, 20, "gelu"))
    x = torch.randn(3, 5, 8)
    torch.compiler.reset()
    with torch.no_grad():
        assert distance(torch.compile(net, fullgraph=True)(x), net(x)) < 1e-6


@pytest.mark.parametrize("kernel", [3, 7])
def test_the_gradient_of_a_depthwise_convolution_lies_as_its_map_does(kernel):
    x = channels_last(torch.randn(2, 6, 9, 11)).requires_grad_()
    out = convert(DepthwiseConv(6, kernel))(x)
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert grad.stride() == x.stride()


def test_where_the_plain_operation_is_used():
    layer = convert(nn.Linear(7, 3))
    assert may_run("product", torch.randn(2, 7), layer.weight)
    assert not may_run("product", torch.randn(2, 7, dtype=torch.float64), layer.weight)
    assert not may_run("product", torch.randn(7), layer.weight)
    assert not may_run("product", torch.randn(2, 7, device="meta"), layer.weight)
    assert not may_run("product", torch.randn(2, 7), layer.weight.bfloat16())
    assert layer(torch.randn(0, 7)).shape == (0, 3)
    torch._C._set_mkldnn_enabled(False)  # torch.backends.mkldnn.flags warns of other flags
    try:
        assert not may_run("product", torch.randn(2, 7), layer.weight)
    finally:
        torch._C._set_mkldnn_enabled(True)
    many = torch.randn(4, 7)
    assert torch.func.vmap(layer)(many[:, None]).shape == (4, 1, 3)


@pytest.mark.parametrize("act", ["gelu", "gelu_new", "relu", "silu", "selu"])
def test_perceptrons_of_many_rows(act):
    net = convert(Mlp(8, 20, act))

    def plain(x):
        x = net.act(F.linear(x, net.fc1.weight, net.fc1.bias))
        return F.linear(x, net.fc2.weight, net.fc2.bias)

    assert_same(net, plain, torch.randn(3, 5, 7, 8), *net.parameters())


def test_perceptrons_with_a_norm_of_whole_images():
    fc1, act, norm, fc2 = nn.Linear(6, 24), nn.GELU(), GlobalResponseNorm(24), nn.Linear(24, 6)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)

    def plain(x):
        x = F.gelu(F.linear(x, fc1.weight, fc1.bias))
        energy = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        share = energy / (energy.mean(dim=-1, keepdim=True) + 1e-6)
        x = norm.weight * (x * share) + norm.bias + x
        return F.linear(x, fc2.weight, fc2.bias)

    weights = [*fc1.parameters(), *norm.parameters(), *fc2.parameters()]
    assert_same(lambda x: perceptron(x, fc1, act, fc2, norm), plain, torch.randn(3, 5, 4, 6), *weights)


def test_what_is_frozen_gets_no_gradient_and_the_rest_its_own():
    net = convert(Mlp(8, 20, "gelu"))
    whole = copy.deepcopy(net)
    net.fc1.weight.requires_grad_(False)
    x = torch.randn(40, 8)
    net(x).sin().sum().backward()
    whole(x).sin().sum().backward()
    assert net.fc1.weight.grad is None
    for name in ("fc1.bias", "fc2.weight", "fc2.bias"):
        assert torch.equal(net.get_parameter(name).grad, whole.get_parameter(name).grad)


def test_what_listens_to_a_layer_or_stands_in_its_place_is_heard():
    net, heard = convert(Mlp(8, 20, "gelu")), []
    net.fc1.register_forward_hook(lambda module, given, out: heard.append(out))
    net(torch.randn(3, 8))
    assert len(heard) == 1
    net.fc2 = nn.Sequential(net.fc2, nn.Tanh())
    assert net(100 * torch.randn(3, 8)).abs().max() <= 1


@pytest.mark.parametrize("windows", [(), (1,), (6,)])  # none; of one bias; each with its own
def test_attention_with_a_bias_that_learns(windows):
    batch = (2, 6) if windows else (3,)
    q, k, v = (torch.randn(*batch, 2, 5, 4) for _ in range(3))
    bias = torch.randn(*(windows if windows == (6,) else ()), 2, 5, 5, requires_grad=True)
    k.requires_grad_()
    v.requires_grad_()

    def plain(q, k):
        return (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5 + bias).softmax(-1) @ v

    assert_same(lambda q: attend(q, k, v, bias), lambda q: plain(q, k), q, k, v, bias)
    assert_same(lambda k: attend(q, k, v, bias), lambda k: plain(q, k), k, bias)  # the queries take no gradient


# all windows with the same bias, each with its own, or none; of many windows and of few
@pytest.mark.parametrize("bias", [None, (), (5, 7), (3, 5, 7), (1, 3, 5, 7), (4, 1, 5, 7), (4, 3, 5, 7)])
@pytest.mark.parametrize("windows", [(4,), (2, 4), (7, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scores", [1, 40, 500, 10**6])
def test_attention_in_pieces(scores, dtype, windows, bias, monkeypatch):
    monkeypatch.setattr(attention, "_SCORES", scores)
    q, k, v = (torch.randn(*windows, 3, n, 8, dtype=dtype) for n in (5, 7, 7))
    bias = None if bias is None else 3 * torch.randn(bias, dtype=dtype)
    with torch.no_grad():
        assert attention._pays_in_pieces(q, k, v, bias)
        x = attend(q, k, v, bias, scale=0.5)
        exact = q.double() @ k.double().mT * 0.5
        exact = (exact if bias is None else exact + bias.double()).softmax(-1) @ v.double()
    assert x.dtype == dtype
    assert distance(x, exact) < {torch.float32: 1e-6, torch.bfloat16: 4e-3}[dtype]
    assert join_heads(x).data_ptr() == x.data_ptr()  # no copy


def test_attention_in_pieces_is_for_small_windows_without_a_gradient():
    q, large = torch.randn(2, 3, 9, 8), torch.randn(1, 1, 145, 8)
    with torch.no_grad():
        assert attention._pays_in_pieces(q, q, q, None)
        assert not attention._pays_in_pieces(large, q, q, None)
        assert not attention._pays_in_pieces(q[:, :, :0], q, q, None)
        assert not attention._pays_in_pieces(q.double(), q, q, None)
    assert attention._pays_in_pieces(q, q, q, None)
    assert not attention._pays_in_pieces(q, q, q, torch.zeros(9, 9, requires_grad=True))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "ceil_mode": True}])
def test_max_pooling_keeps_places_alone(options, layout):
    pool = convert(nn.MaxPool2d(3, **options))
    x = torch.randn(2, 4, 11, 9).contiguous(memory_format=layout)
    assert_same(pool, lambda x: F.max_pool2d(x, 3, **options), x)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        out = pool(x.requires_grad_())
    assert [t.dtype for t in kept] == [torch.int64]
    out.sum().backward()
    assert x.grad.stride() == x.stride()


@pytest.mark.parametrize("act", ["relu", "gelu"])
def test_a_stem_pools_what_its_activation_gives(act):
    """Though ReLU may come behind: the same map and gradients."""
    stem = convert(tiny("resnet", hidden_act=act)).stem.train()
    assert_same(
        stem,
        lambda x: F.max_pool2d(stem.act(stem.norm(stem.conv(x))), 3, 2, 1),
        torch.randn(2, 3, 32, 32),
        *stem.parameters(),
    )


@pytest.mark.long
def test_max_pooling_under_transforms_and_without_gradient():
    pool, x = convert(nn.MaxPool2d(3, 2)), torch.randn(2, 4, 11, 9)
    assert torch.equal(pool(x), F.max_pool2d(x, 3, 2))
    given = torch.func.grad(lambda x: pool(x).sum())(x)
    y = x.clone().requires_grad_()
    pool(y).sum().backward()
    assert torch.equal(given, y.grad)
    assert torch.equal(torch.compile(pool, backend="aot_eager")(y), pool(y))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("size", [(9, 11), (3, 20), (7, 7)])
def test_depthwise_convolutions(kernel, size, bias):
    conv = convert(DepthwiseConv(6, kernel, bias))
    x = torch.randn(3, 6, *size)

    def plain(x):
        return F.conv2d(x, conv.weight, conv.bias, padding=kernel // 2, groups=6)

    for layout in (x, channels_last(x)):
        assert_same(conv, plain, layout, *conv.parameters())


@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [5, 30])  # few places and many
@pytest.mark.parametrize("training", [True, False])
def test_convolutions_with_a_norm_an_activation_and_a_residual(kernel, stride, side, training):
    net = convert(ConvNorm(4, 6, kernel, stride)).train(training)
    for value in (net.norm.weight, net.norm.running_var):
        nn.init.uniform_(value, 0.5, 2)
    nn.init.normal_(net.norm.running_mean)
    plain = nn.Sequential(nn.Conv2d(4, 6, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(6)).train(training)
    plain.load_state_dict(dict(zip(plain.state_dict(), net.state_dict().values(), strict=True)))
    x = torch.randn(2, 4, side, side + 3)
    residual = torch.randn(plain[0](x).shape)
    for act in (None, *ACTIVATIONS):
        for added in (None, residual):
            expected = plain(x) if added is None else plain(x) + added
            expected = expected if act is None else act(expected)
            assert distance(conv_norm(net, channels_last(x), act, added), expected) < 1e-5
            with torch.no_grad():
                assert distance(conv_norm(net, channels_last(x), act, added), expected.detach()) < 1e-5


@pytest.mark.parametrize(("kernel", "channels", "last"), [(1, 8, False), (1, 16, True), (3, 8, True)])
def test_a_strided_step_of_few_channels_leaves_channels_last(kernel, channels, last):
    """Where the gradient of torch's convolution would overwrite other memory."""
    net, x = ConvNorm(channels, 32, kernel, 2), channels_last(torch.randn(2, channels, 32, 48)).requires_grad_()
    assert conv_norm(net, x).is_contiguous(memory_format=torch.channels_last) == last
    conv_norm(net, x).sin().sum().backward()
    mine = x.grad.clone(), net.conv.weight.grad.clone()
    net.zero_grad()
    x = x.detach().contiguous().requires_grad_()
    net(x).sin().sum().backward()
    assert all(distance(a, b) < 1e-4 for a, b in zip(mine, (x.grad, net.conv.weight.grad), strict=True))


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 1, bias=False), nn.Conv2d(4, 6, 3, 2, 1)])
def test_convolutions_are_those_of_torch(layer):
    def plain(x):
        return F.conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding)

    assert_same(convert(layer), plain, channels_last(torch.randn(2, 4, 9, 8)), *layer.parameters())


def test_autocast_reaches_what_it_does_not_know():
    net, conv, norm = map(convert, (Mlp(8, 20, "gelu"), DepthwiseConv(8, 5), ConvNorm(8, 4, 3)))
    x, m = torch.randn(3, 8, requires_grad=True), torch.randn(2, 8, 9, 9, requires_grad=True)
    for grad in (True, False):
        with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(grad):
            results = [net(x), conv(m), norm(m), conv_norm(norm.eval(), m, nn.ReLU())]
        assert all(y.dtype == torch.bfloat16 for y in results)
        if grad:
            sum(y.float().sum() for y in results).backward()
    assert all(p.grad.dtype == torch.float32 for module in (net, conv, norm) for p in module.parameters())


def test_pieces_are_joined_in_order():
    x = torch.randn(3, 50, 4)
    counts = []

    def double(rows):
        counts.append(len(rows))
        return 2 * rows

    with torch.no_grad():
        assert torch.equal(by_rows(double, x), 2 * x)
    assert len(counts) > 1
    assert sum(counts) == 150
    assert torch.equal(by_rows(double, x), 2 * x)  # with gradients all at once
    assert counts[-1] == 3


def test_a_thing_is_computed_once_inside_the_block_alone():
    made = []
    owner = object()
    for _ in range(2):
        with computed_once():
            assert once(owner, lambda: made.append(1) or len(made)) == once(owner, lambda: made.append(1) or len(made))
    assert once(owner, lambda: made.append(1) or len(made)) == 3


def test_weights_that_change_between_calls_are_seen():
    net = convert(ConvNorm(4, 6, 3)).eval()
    x = torch.randn(2, 4, 30, 30)
    with torch.no_grad():
        before = net(x)
        net.conv.weight.mul_(2)
        net.norm.running_mean.zero_()
        net.norm.bias.zero_()
        assert distance(net(x), 2 * before) < 1e-5


@pytest.mark.parametrize("name", names())
def test_the_faster_ways_are_as_exact(name, monkeypatch):
    """What float64 gives is the measure."""
    net = tiny(name).eval()
    x = images(net, 64, 96)
    with torch.no_grad():
        exact = copy.deepcopy(net).double()(x.double()).feature_maps
        fast = net(x).feature_maps
        monkeypatch.setattr(probe, "FASTER", False)
        for a, b, truth in zip(fast, net(x).feature_maps, exact, strict=True):
            assert distance(a.double(), truth) < 4 * distance(b.double(), truth) + 1e-6


def test_group_norms_do_not_depend_on_the_layout():
    norm, x = GroupNorm(4, 8), 5 + torch.randn(2, 8, 30, 30)
    assert torch.equal(norm(x), norm(channels_last(x)))


def test_a_channel_without_energy_has_a_gradient():
    norm, x = GlobalResponseNorm(4), torch.randn(2, 3, 3, 4)
    nn.init.ones_(norm.weight)
    x[..., 1] = 0
    norm(x.requires_grad_()).sin().sum().backward()
    assert torch.isfinite(x.grad).all()
