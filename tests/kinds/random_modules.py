"""Small random modules, each written down as a recipe, which a failing property prints."""

import functools
import threading
import warnings
import weakref
from collections import OrderedDict, deque, namedtuple
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.checkpoint import checkpoint

CHANNELS = 4
DTYPES = {"float64": torch.float64, "float32": torch.float32}
DTYPES |= {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Recipe:
    """What a module is made of; `build` makes the same one every time."""

    spatial: tuple[int, ...] = ()
    blocks: tuple[str, ...] = ("affine",)
    fault: str = ""
    flatten: str = "flatten"
    output: str = "logits"
    classes: int = 3
    keeps: str = ""
    writes: str = ""
    dtype: str = "float64"
    inner_dtype: str = ""
    wrapper: str = ""
    seed: int = 0

    @property
    def shape(self):
        return (CHANNELS, *self.spatial)

    def build(self):
        """Return the module in eval mode; what cannot be wrapped comes bare."""
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(self.seed)
            net = _net(self).eval()
            net = net.to(DTYPES[self.dtype])
            try:
                return WRAPPERS[self.wrapper](net, self.sample()).eval()
            except Exception:
                return replace(self, wrapper="").build()

    def sample(self):
        return torch.ones(1, *self.shape, dtype=DTYPES[self.dtype])


class Apply(nn.Module):
    """A function of the input and of modules."""

    def __init__(self, function, *modules):
        super().__init__()
        self.function = function
        self.inner = nn.ModuleList(modules)

    def forward(self, x):
        return self.function(x, *self.inner)


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class ViewedFlat(nn.Module):
    def forward(self, x):
        return x.view(x.size(0), -1).tanh().view(x.shape)


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


class FailsBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise OSError("no way back\nat all")


def _of(kinds, shape, *arguments, **settings):
    """Return the layer of a family for the number of spatial dimensions."""
    return kinds[len(shape) - 1](*arguments, **settings)


_NORMS = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_CONVOLUTIONS = (None, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (None, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_POOLS = (None, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_MEANS = (None, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_ADAPTIVE = (None, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool3d)
_INSTANCE = (None, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def _affine(s, **settings):
    if len(s) == 1:
        return nn.Linear(s[0], CHANNELS)
    return _of(_CONVOLUTIONS, s, s[0], CHANNELS, 3, padding=1, **settings)


def _steps(function, s, module):
    """Apply a module of sequences (B, L, C) and keep the shape."""

    def run(x, inner):
        steps = x.flatten(2).transpose(1, 2) if x.ndim > 2 else x.unsqueeze(1)
        found = function(inner, steps).transpose(1, 2)
        return found.reshape(len(x), found.shape[1], *x.shape[2:])

    return Apply(run, module)


BLOCKS = {
    "affine": _affine,
    "affine_without_bias": lambda s: _affine(s, bias=False) if len(s) > 1 else _affine(s),
    "grouped": lambda s: _of(_CONVOLUTIONS, s, s[0], s[0], 1, groups=s[0]),
    "strided": lambda s: _of(_CONVOLUTIONS, s, s[0], CHANNELS, 2, stride=2),
    "circular": lambda s: _affine(s, padding_mode="circular"),
    "transposed": lambda s: _of(_TRANSPOSED, s, s[0], CHANNELS, 2),
    "linear_of_last_axis": lambda s: nn.Linear(s[-1], s[-1]),
    "batch_norm": lambda s: _of(_NORMS, s, s[0]),
    "batch_norm_without_statistics": lambda s: _of(_NORMS, s, s[0], track_running_stats=False),
    "batch_norm_not_affine": lambda s: _of(_NORMS, s, s[0], affine=False),
    "folds": lambda s: nn.Sequential(_affine(s), _of(_NORMS, (CHANNELS, *s[1:]), CHANNELS)),
    "instance_norm": lambda s: _of(_INSTANCE, s, s[0], affine=True),
    "group_norm": lambda s: nn.GroupNorm(2, s[0]),
    "layer_norm": lambda s: nn.LayerNorm(s),
    "rms_norm": lambda s: nn.RMSNorm(s[-1:]),
    "relu": lambda s: nn.ReLU(),
    "relu_in_place": lambda s: nn.ReLU(inplace=True),
    "relu_functional": lambda s: Apply(lambda x: F.relu(x)),
    "relu_shared": lambda s: nn.Sequential(one := nn.ReLU(), _affine(s), one),
    "affine_shared": lambda s: nn.Sequential(one := _affine(s), nn.Tanh(), one),
    "tanh": lambda s: nn.Tanh(),
    "gelu": lambda s: nn.GELU(),
    "hardswish_in_place": lambda s: nn.Hardswish(inplace=True),
    "elu": lambda s: nn.ELU(),
    "prelu": lambda s: nn.PReLU(s[0]),
    "sigmoid_method": lambda s: Apply(lambda x: x.sigmoid()),
    "square_of_own_function": lambda s: Apply(Square.apply),
    "max_pool": lambda s: _of(_POOLS, s, 2),
    "mean_pool": lambda s: _of(_MEANS, s, 2),
    "adaptive_pool": lambda s: _of(_ADAPTIVE, s, 2),
    "interpolate": lambda s: Apply(lambda x: F.interpolate(x, scale_factor=2)),
    "dropout": lambda s: _of(_DROPOUTS, s, 0.5),
    "dropout_in_place": lambda s: nn.Dropout(0.5, inplace=True),
    "residual": lambda s: Residual(_affine(s)),
    "residual_in_place": lambda s: Apply(lambda x, inner: inner(x).add_(x), _affine(s)),
    "concatenation": lambda s: Apply(lambda x, one: torch.cat([x, one(x)], 1), _affine(s)),
    "nested": lambda s: nn.Sequential(nn.Sequential(OrderedDict(a=_affine(s), b=nn.ReLU()))),
    "gate": lambda s: Apply(lambda x, inner: x * inner(x).sigmoid(), _affine(s)),
    "divided_by_maximum": lambda s: Apply(lambda x: x / (x.abs().max() + 0.1)),
    "minus_mean_of_batch": lambda s: Apply(lambda x: x - 0.5 * x.mean(0)),
    "viewed_flat": lambda s: ViewedFlat(),
    "permuted": lambda s: Apply(lambda x: x.transpose(1, -1).tanh().transpose(1, -1)),
    "reversed": lambda s: Apply(lambda x: x.flip(-1)),
    "whole_batch": lambda s: Apply(lambda x: torch.stack([one.tanh() for one in x])),
    "branch_by_value": lambda s: Apply(lambda x: x * 2 if x.sum() > 0 else x),
    "top_values": lambda s: Apply(lambda x: x * (x >= x.flatten(1).mean())),
    "written_zeros": lambda s: Apply(_written),
    "gru": lambda s: _steps(lambda m, x: m(x)[0], s, nn.GRU(s[0], CHANNELS, batch_first=True)),
    "lstm": lambda s: _steps(lambda m, x: m(x)[0], s, nn.LSTM(s[0], 2, batch_first=True)),
    "rnn_cell": lambda s: _steps(_unrolled, s, nn.RNNCell(s[0], CHANNELS)),
    "attention": lambda s: _steps(
        lambda m, x: m(x, x, x)[0], s, nn.MultiheadAttention(s[0], 2, batch_first=True)
    ),
    "transformer": lambda s: _steps(
        lambda m, x: m(x), s, nn.TransformerEncoderLayer(s[0], 2, 6, batch_first=True)
    ),
}
"""By name, from the shape of one item to a module."""


def _written(x):
    made = torch.zeros_like(x)
    made[:, :2] = x[:, :2] * 2
    made[:, 2:] = x[:, 2:].tanh()
    return made


def _unrolled(cell, steps):
    hidden, found = steps.new_zeros(len(steps), CHANNELS), []
    for step in steps.unbind(1):
        found.append(hidden := cell(step, hidden))
    return torch.stack(found, 1)


class OwnError(Exception):
    """An exception of the user's own."""


def _raise(error):
    def run(x):
        raise error

    return run


def _no_gradient(x):
    with torch.no_grad():
        return x * 2


def _detour(x):
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(leaf.tanh().sum(), leaf)
    return x * slope


FAULTS = {
    "": None,
    "raises_own_error": _raise(OwnError("one line\nand another")),
    "raises_value_error": _raise(ValueError("")),
    "raises_key_error": _raise(KeyError("missing")),
    "raises_stop_iteration": _raise(StopIteration()),
    "raises_not_implemented": _raise(NotImplementedError("later")),
    "raises_os_error": _raise(FileNotFoundError(2, "no such file", "a")),
    "raises_zero_division": lambda x: x / (1 // 0),
    "raises_recursion": lambda x: FAULTS["raises_recursion"](x),
    "raises_warning": _raise(UserWarning("old")),
    "raises_group": _raise(ExceptionGroup("two\nlines", [ValueError("a"), OwnError("b")])),
    "raises_for_several": lambda x: x if len(x) == 1 else _raise(OwnError("one only"))(x),
    "raises_for_one": lambda x: x if len(x) > 1 else _raise(OwnError("several only"))(x),
    "raises_for_dark": lambda x: x if x.abs().mean() > 0.3 else _raise(OwnError("dark"))(x),
    "checks_gradient": lambda x: x if x.requires_grad else _raise(OwnError("no grad"))(x),
    "no_gradient": _no_gradient,
    "detached": lambda x: x.detach(),
    "half_detached": lambda x: x + x.detach().tanh(),
    "numpy": lambda x: torch.from_numpy(x.detach().numpy() * 2),
    "rounded": lambda x: (x * 4).round() / 4,
    "as_integers": lambda x: (x * 4).int().to(x.dtype),
    "constant": lambda x: torch.ones_like(x),
    "random": lambda x: x + torch.randn_like(x),
    "dropout_on": lambda x: F.dropout(x, 0.5, training=True),
    "fails_backward": FailsBackward.apply,
    "in_place_after_save": lambda x: x.sigmoid().mul_(2),
    "in_place_on_input": lambda x: x.mul_(2),
    "data_in_place": lambda x: _through_data(x),
    "nan_gradient": lambda x: x * 0 + (x * 0).sqrt(),
    "infinite": lambda x: x / 0,
    "own_gradient": _detour,
    "gradient_hook": lambda x: _hooked(x),
    "to_other_dtype": lambda x: x.float(),
    "inference_mode": torch.inference_mode()(lambda x: x * 2),
    "double_backward_only_once": lambda x: _freed(x),
}
"""By name, what happens at a place in a network; the shape stays."""


def _through_data(x):
    y = x * 1
    y.data.mul_(2)
    return y


def _hooked(x):
    y = x * 1
    if y.requires_grad:
        y.register_hook(lambda gradient: gradient * 2)
    return y


def _freed(x):
    y = (x * x).sum()
    if y.requires_grad:
        y.backward(retain_graph=False)
    return x


Pair = namedtuple("Pair", "logits extra")
OUTPUTS = {
    "logits": lambda y: y,
    "softmax": lambda y: y.softmax(-1),
    "log_softmax": lambda y: y.log_softmax(-1),
    "sigmoid": lambda y: y.sigmoid(),
    "log_sigmoid": lambda y: F.logsigmoid(y),
    "cut_to_unit": lambda y: y.clamp(0, 1),
    "in_float32": lambda y: y.float(),
    "first_one": lambda y: y[:, 0],
    "squeezed": lambda y: y.squeeze(),
    "mean": lambda y: y.mean(),
    "item": lambda y: y.mean().item(),
    "tuple": lambda y: (y, y),
    "named_tuple": lambda y: Pair(y, y),
    "dict": lambda y: {"logits": y},
    "list": lambda y: [y],
    "nothing": lambda y: None,
    "words": lambda y: "cat",
    "array": lambda y: y.detach().numpy(),
    "argmax": lambda y: y.argmax(-1),
    "booleans": lambda y: y > 0,
    "nan": lambda y: y * torch.nan,
    "infinite": lambda y: y / 0,
    "sparse": lambda y: y.to_sparse(),
    "complex": lambda y: torch.complex(y.float(), y.float()),
    "nested": lambda y: torch.nested.nested_tensor(list(y)),
    "meta": lambda y: y.to("meta"),
    "extra_axis": lambda y: y.unsqueeze(-1),
    "transposed": lambda y: y.T,
    "no_classes": lambda y: y[:, :0],
    "no_rows": lambda y: y[:0],
    "first_row": lambda y: y[0],
    "detached": lambda y: y.detach(),
    "expanded": lambda y: y[:, :1].expand(-1, 3),
    "parameter": lambda y: nn.Parameter(y),
    "huge": lambda y: y * 1e30,
    "tiny": lambda y: y * 1e-30,
}
"""By name, what a network returns of its logits (B, K)."""


class Keeper:
    """An object of the user's, whose method is a hook."""

    def __init__(self):
        self.kept = None

    def hook(self, module, inputs, output):
        self.kept = output

    __call__ = hook


GLOBAL = {}


def forget():
    """Empty what modules keep outside of themselves."""
    GLOBAL.clear()
    Net.shelf.clear()


def _store(where, module, inputs, output):
    where["kept"] = output


def _keep(kind, net, block):
    """Let a hook of a block keep its output; return the function that finds it again."""
    kept, listed, keeper, link = {}, deque([None], 1), Keeper(), weakref.ref(net)
    aside = threading.local()

    def defaulted(module, inputs, output, kept=kept):
        kept["kept"] = output

    hooks = {
        "dict": lambda m, i, o: kept.update(kept=o),
        "list": lambda m, i, o: listed.append(o),
        "partial": functools.partial(_store, kept),
        "default": defaulted,
        "method": keeper.hook,
        "object": keeper,
        "weak": lambda m, i, o: setattr(link(), "recalled", o),
        "own_method": net.note,
        "global": lambda m, i, o: GLOBAL.update(kept=o),
        "of_class": lambda m, i, o: type(net).shelf.append(o),
        "of_thread": lambda m, i, o: setattr(aside, "kept", o),
    }
    recalls = {
        "list": lambda: listed[-1],
        "method": lambda: keeper.kept,
        "object": lambda: keeper.kept,
        "weak": lambda: link().recalled,
        "own_method": lambda: net.recalled,
        "global": lambda: GLOBAL["kept"],
        "of_class": lambda: type(net).shelf[-1],
        "of_thread": lambda: aside.kept,
    }
    block.register_forward_hook(hooks[kind])
    return recalls.get(kind, lambda: kept["kept"])


KEEPS = ("", "dict", "list", "partial", "default", "method", "object", "weak", "own_method")
KEEPS += ("global", "of_class", "of_thread", "changed_by_hook", "changed_by_pre_hook")
KEEPS += ("backward_hook", "unregistered", "in_closure", "lock", "generator", "forward_replaced")


class Net(nn.Module):
    """A body, a head, and what happens beside them."""

    shelf: ClassVar[deque] = deque([None], 1)

    def __init__(self, body, flatten, head, output):
        super().__init__()
        self.body, self.flatten, self.head, self.output = body, flatten, head, output
        self.recall = self.recalled = None
        self.write = None

    def note(self, module, inputs, output):
        self.recalled = output

    def forward(self, x):
        if self.write is not None:
            self.write(self, x)
        logits = self.head(self.flatten(self.body(x)))
        if self.recall is not None:
            logits = logits + self.recall().flatten(1).mean(1, keepdim=True).to(logits) ** 2
        return self.output(logits)


def _beside(kind, net, dtype):
    """Put what a recipe keeps into a network."""
    first = net.body[0] if len(net.body) else net.head
    if kind == "changed_by_hook":
        first.register_forward_hook(lambda m, i, o: o * 2)
    elif kind == "changed_by_pre_hook":
        first.register_forward_pre_hook(lambda m, i: (i[0] * 2,))
    elif kind == "backward_hook":
        first.register_full_backward_hook(lambda m, i, o: (i[0] * 2,))
    elif kind == "unregistered":
        hidden = [net.head.to(dtype)]
        del net.head
        net.head = lambda x: hidden[0](x)
    elif kind == "in_closure":
        hidden = nn.Tanh()
        net.recall = lambda: hidden(net.head.bias)[None]
    elif kind == "lock":
        net.lock = threading.Lock()
    elif kind == "generator":
        net.generator = torch.Generator()
        net.rows = (number for number in range(3))
    elif kind == "forward_replaced":
        net.head.forward = functools.partial(F.linear, weight=net.head.weight)
    elif kind:
        net.recall = _keep(kind, net, first)


def _swap(net, x):
    net.head.bias = nn.Parameter(net.head.bias.detach() + 0)


def _with_embedding(net, x):
    net.table(torch.tensor([0, 1]))


WRITES = {
    "": None,
    "counter": lambda net, x: net.calls.add_(1),
    "counter_assigned": lambda net, x: setattr(net, "calls", net.calls + 1),
    "counter_of_python": lambda net, x: setattr(net, "number", getattr(net, "number", 0) + 1),
    "clamped": lambda net, x: net.head.weight.data.clamp_(-0.2, 0.2),
    "normalised": lambda net, x: net.head.weight.data.div_(net.head.weight.data.norm()),
    "grows": lambda net, x: net.head.weight.data.mul_(1.1),
    "max_norm": _with_embedding,
    "history": lambda net, x: net.history.append(x),
    "history_by_shape": lambda net, x: net.table_of.setdefault(tuple(x.shape), []).append(x),
    "swapped": _swap,
    "frozen": lambda net, x: net.requires_grad_(False),
    "trains": lambda net, x: net.train(),
    "weights_of_data": lambda net, x: setattr(net.head.weight, "data", net.head.weight.data * 1),
    "counted_in_output": lambda net, x: net.head.bias.data.add_(1),
    "new_module": lambda net, x: setattr(net, "added", nn.Linear(1, 1)),
    "new_buffer": lambda net, x: net.register_buffer("last_seen", x.detach()),
    "hook_added": lambda net, x: net.head.register_forward_hook(lambda m, i, o: None),
}
"""By name, what a forward writes."""

FLATTENS = {
    "flatten": nn.Flatten,
    "view": lambda: Apply(lambda x: x.view(x.size(0), -1)),
    "reshape": lambda: Apply(lambda x: x.reshape(len(x), -1)),
    "method": lambda: Apply(lambda x: x.flatten(1)),
    "fixed": lambda: Apply(lambda x: x.reshape(-1, x[0].numel())),
    "mean": lambda: Apply(lambda x: x.flatten(2).mean(2) if x.ndim > 2 else x),
    "last_step": lambda: Apply(lambda x: x.flatten(2)[..., -1] if x.ndim > 2 else x),
}


def _net(recipe):
    modules, shape = [], recipe.shape
    for name in recipe.blocks:
        try:
            module = BLOCKS[name](shape).eval()
            with torch.no_grad():
                shape = tuple(module(torch.ones(2, *shape)).shape[1:])
        except Exception:  # a block that does not fit here is left out
            continue
        modules.append(module)
    if recipe.fault:
        place = recipe.seed % (len(modules) + 1)
        modules.insert(place, Apply(FAULTS[recipe.fault]))
    body = nn.Sequential(*modules)
    if recipe.inner_dtype:
        body = nn.Sequential(_in_dtype(body, recipe.inner_dtype))
    flatten = FLATTENS[recipe.flatten]()
    width = flatten(torch.ones(2, *shape)).shape[1]
    net = Net(body, flatten, nn.Linear(width, recipe.classes), OUTPUTS[recipe.output])
    for name, value in net.named_buffers():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5) if "var" in name else value.normal_()
    _beside(recipe.keeps, net, DTYPES[recipe.dtype])
    if recipe.writes:
        net.write, net.history, net.table_of = WRITES[recipe.writes], [], {}
        net.register_buffer("calls", torch.zeros(()))
        net.table = nn.Embedding(2, 3, max_norm=0.1)
    return net


def _in_dtype(body, name):
    if name == "autocast":
        return Apply(torch.autocast("cpu", torch.bfloat16)(lambda x, inner: inner(x)), body)
    dtype = DTYPES[name]

    def run(x, inner):
        return inner.to(dtype)(x.to(dtype)).to(x.dtype)

    return Apply(run, body)


class Wrapped(nn.Module):
    """A network in another, run by a function."""

    def __init__(self, net, run):
        super().__init__()
        self.net, self.run = net, run

    def forward(self, x):
        return self.run(self.net, x)


class Doubled(nn.Module):
    def forward(self, weight):
        return weight * 2


class RefusesCopies(Wrapped):
    def __deepcopy__(self, cache):
        raise TypeError("cannot be copied")


class CopiesToItself(Wrapped):
    def __deepcopy__(self, cache):
        return self


def _each_head(net):
    return [part for part in net.modules() if isinstance(part, nn.Linear)][-1]


def _changed(change):
    def wrap(net, sample):
        change(_each_head(net))
        return net

    return wrap


WRAPPERS = {
    "": lambda net, sample: net,
    "sequential": lambda net, sample: nn.Sequential(nn.Sequential(net)),
    "data_parallel": lambda net, sample: nn.DataParallel(net),
    "traced": lambda net, sample: torch.jit.trace(net, sample, check_trace=False),
    "scripted": lambda net, sample: torch.jit.script(_scriptable(net)),
    "frozen": lambda net, sample: _frozen(net, sample),
    "compiled": lambda net, sample: torch.compile(net, backend="eager"),
    "exported": lambda net, sample: torch.export.export(net, (sample,)).module(),
    "symbolic": lambda net, sample: torch.fx.symbolic_trace(net),
    "checkpoint": lambda net, sample: Wrapped(
        net, lambda inner, x: checkpoint(inner, x, use_reentrant=False)
    ),
    "reentrant": lambda net, sample: Wrapped(
        net, lambda inner, x: checkpoint(inner, x, use_reentrant=True)
    ),
    "averaged": lambda net, sample: torch.optim.swa_utils.AveragedModel(net),
    "weight_norm": _changed(parametrizations.weight_norm),
    "old_weight_norm": _changed(nn.utils.weight_norm),
    "spectral_norm": _changed(parametrizations.spectral_norm),
    "old_spectral_norm": _changed(nn.utils.spectral_norm),
    "orthogonal": _changed(parametrizations.orthogonal),
    "parametrized": _changed(
        lambda layer: parametrize.register_parametrization(layer, "weight", Doubled())
    ),
    "pruned": _changed(lambda layer: prune.l1_unstructured(layer, "weight", 0.5)),
    "quantised": lambda net, sample: torch.ao.quantization.quantize_dynamic(net, {nn.Linear}),
    "functional": lambda net, sample: Wrapped(
        net,
        lambda inner, x: torch.func.functional_call(inner, dict(inner.named_parameters()), (x,)),
    ),
    "vmapped": lambda net, sample: Wrapped(
        net, lambda inner, x: torch.func.vmap(lambda one: inner(one[None])[0])(x)
    ),
    "refuses_copies": lambda net, sample: RefusesCopies(net, lambda inner, x: inner(x)),
    "copies_to_itself": lambda net, sample: CopiesToItself(net, lambda inner, x: inner(x)),
    "one_by_one": lambda net, sample: Wrapped(
        net, lambda inner, x: torch.cat([inner(one) for one in x.split(1)])
    ),
    "flattened_input": lambda net, sample: nn.Sequential(
        nn.Flatten(), nn.Unflatten(1, sample.shape[1:]), net
    ),
    "no_grad_method": lambda net, sample: Wrapped(net, torch.no_grad()(lambda inner, x: inner(x))),
}
"""By name, what stands around a network."""


def _frozen(net, sample):
    if net.write is WRITES["max_norm"]:
        raise TypeError("torch crashes: a frozen trace renormalises weights that are constants")
    return torch.jit.freeze(torch.jit.trace(net, sample))


def _scriptable(net):
    return nn.Sequential(*net.body, nn.Flatten(), net.head)
