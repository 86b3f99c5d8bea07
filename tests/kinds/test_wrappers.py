"""Networks inside wrappers and other formats: the values of the plain network, or a way out."""

import copy
import io

import pytest
import torch
from torch import distributed, nn
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

from . import by_hand
from .by_hand import BLACK_BOX, SETTINGS, assert_like_plain


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(144, 3)
        nn.init.uniform_(self.body[1].running_var, 0.5, 2)
        self.double().eval()

    def forward(self, inputs):
        return self.head(self.body(inputs).flatten(1))


def scripted():
    return torch.jit.script(Net())


def traced():
    return torch.jit.trace(Net(), torch.rand(1, 3, 8, 8).double())


def frozen():
    return torch.jit.freeze(scripted())


def saved_and_loaded():
    file = io.BytesIO()
    torch.jit.save(traced(), file)
    file.seek(0)
    return torch.jit.load(file).eval()


def traced_inside():
    net = Net()
    net.body = torch.jit.trace(net.body, torch.rand(1, 3, 8, 8).double())
    return net


BY_RULES = ("deeplift", "guided_backprop")
SCRIPTS = [scripted, traced, frozen, saved_and_loaded]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", SCRIPTS, ids=lambda make: make.__name__)
def test_torchscript_gives_the_values_of_the_net(make, pictures):
    refused = ["gradcam", *BY_RULES] + (["uni_blur"] if make is frozen else [])
    methods = set(SETTINGS) - set(refused)
    assert_like_plain(make(), Net(), pictures, methods, by_hand.METRICS)
    for method in refused:
        assert "TorchScript" in by_hand.refusal(make(), pictures, method), method


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, given):
        ctx.save_for_backward(given)
        return given * given.sigmoid()

    @staticmethod
    def backward(ctx, gradient):
        (given,) = ctx.saved_tensors
        slope = given.sigmoid()
        return gradient * slope * (1 + given * (1 - slope))


def swish(given):
    return given * given.sigmoid()


class Applies(Net):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, inputs):
        return self.head(self.function(self.body[:2](inputs)).flatten(1))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["function", "script"])
def test_rules_do_not_miss_what_they_cannot_see(kind, pictures):
    function = Swish.apply if kind == "function" else torch.jit.script(swish)
    model, plain = Applies(function), Applies(swish)
    methods = set(SETTINGS) - set(BY_RULES)
    assert_like_plain(model, plain, pictures, methods, by_hand.METRICS)
    assert "use method='ig'" in by_hand.refusal(model, pictures, "deeplift")


@pytest.mark.filterwarnings("ignore")
def test_torchscript_inside_a_module(pictures):
    methods = set(SETTINGS) - {"gradcam", *BY_RULES}
    assert_like_plain(traced_inside(), Net(), pictures, methods, by_hand.METRICS)


@pytest.fixture
def group(tmp_path):
    distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("place", ["outside", "inside", "in a sequence", "with hooks"])
@pytest.mark.parametrize("kind", ["DataParallel", "DistributedDataParallel"])
def test_parallel_modules_give_the_values_of_the_net(kind, place, pictures, group):
    wrap = getattr(nn.parallel, kind)
    net = Net()
    if place == "inside":
        net.body = wrap(net.body)
        model = net
    else:
        model = wrap(net)
    if place == "in a sequence":
        model = nn.Sequential(nn.Identity(), model)
    if place == "with hooks":
        model.register_forward_hook(lambda module, given, output: 2 * output)
    plain, methods = Net(), set(SETTINGS)
    if place == "with hooks":
        plain = Doubled(plain)
        if kind == "DistributedDataParallel":
            methods -= {"uni_blur", "gradcam", "deeplift"}
            assert ".module" in by_hand.refusal(model.eval(), pictures, "uni_blur")
    assert_like_plain(model.eval(), plain, pictures, methods, by_hand.METRICS)


class Doubled(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net
        self.eval()

    def forward(self, inputs):
        return 2 * self.net(inputs)


class Checkpointed(Net):
    reentrant = False

    def forward(self, inputs):
        hidden = checkpoint(self.body, inputs, use_reentrant=self.reentrant)
        return self.head(hidden.flatten(1))


class Reentrant(Checkpointed):
    reentrant = True


def averaged():
    return torch.optim.swa_utils.AveragedModel(Net()).eval()


def moving_average():
    function = torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    return torch.optim.swa_utils.AveragedModel(Net(), multi_avg_fn=function).eval()


def compiled():
    return torch.compile(Net(), backend="eager")


def compiled_in_place():
    net = Net()
    net.compile(backend="eager")
    return net


def compiled_inside():
    net = Net()
    net.body = torch.compile(net.body, backend="eager")
    return net.eval()


class Halved(nn.Module):
    def forward(self, weight):
        return weight / 2

    def right_inverse(self, weight):
        return 2 * weight


def parametrised():
    net = Net()
    nn.utils.parametrize.register_parametrization(net.head, "weight", Halved())
    return net.eval()


def weight_normed():
    net = Net()
    nn.utils.parametrizations.weight_norm(net.body[0])
    return net.eval()


def weight_normed_of_old():
    net = Net()
    nn.utils.weight_norm(net.head)
    return net.eval()


def spectral_normed_of_old():
    net = Net()
    nn.utils.spectral_norm(net.head)
    return net.double().eval()


def pruned():
    net = Net()
    prune.l1_unstructured(net.body[0], "weight", amount=0.3)
    return net.eval()


def functional():
    """Called with weights of its own, as `torch.func` users do."""

    class Called(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.scale = Net(), nn.Parameter(torch.ones(()).double())
            self.eval()

        def forward(self, inputs):
            weights = {name: self.scale * one for name, one in self.net.named_parameters()}
            return torch.func.functional_call(self.net, weights, (inputs,))

    return Called()


def plain_of(model, inputs):
    """A plain net with the weights that a wrapper computes."""
    net = Net()
    with torch.no_grad():
        model(inputs)
        net.body[0].weight.copy_(model.body[0].weight)
        net.head.weight.copy_(model.head.weight)
    return net


SAME = [
    *(Checkpointed, averaged, moving_average, compiled, compiled_in_place, compiled_inside),
    *(parametrised, weight_normed, weight_normed_of_old, pruned),
]
OWN_WEIGHTS = (parametrised, weight_normed, weight_normed_of_old, pruned)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", SAME, ids=lambda make: make.__name__)
def test_wrapped_net_gives_the_values_of_the_net(make, pictures):
    model, own = make(), make in OWN_WEIGHTS
    plain = plain_of(model, pictures) if own else Net()
    # Other weights to unlearn are another baseline: its values are the wrapper's own.
    methods = set(SETTINGS) - ({"uni_blur"} if own else set())
    assert_like_plain(model, plain, pictures, methods, by_hand.METRICS)
    assert by_hand.explain(model, pictures, "uni_blur").isfinite().all()


@pytest.mark.filterwarnings("ignore")
def test_reentrant_checkpoints(pictures):
    refused = ("gradcam", *BY_RULES)
    methods = set(SETTINGS) - set(refused)
    assert_like_plain(Reentrant(), Net(), pictures, methods, by_hand.METRICS)
    for method in refused:
        assert "checkpoint" in by_hand.refusal(Reentrant(), pictures, method)


@pytest.mark.parametrize("make", [spectral_normed_of_old, functional])
def test_computed_weights_by_hand(make, pictures):
    model = make()
    right = by_hand.integrated_gradients(model, pictures)
    torch.testing.assert_close(by_hand.explain(model, pictures, "ig"), right)
    torch.testing.assert_close(
        by_hand.explain(model, pictures, "gradient"), by_hand.gradient(model, pictures)
    )
    assert by_hand.explain(model, pictures, "uni_blur").isfinite().all()


@pytest.mark.filterwarnings("ignore")
def test_exported_program(pictures):
    batch = torch.export.Dim("batch")
    given = (torch.rand(2, 3, 8, 8).double(),)
    program = torch.export.export(Net(), given, dynamic_shapes={"inputs": {0: batch}})
    assert_like_plain(program.module(), Net(), pictures, set(SETTINGS) - {"gradcam"})


@pytest.mark.filterwarnings("ignore")
def test_exported_program_of_one_picture(pictures):
    program = torch.export.export(Net(), (torch.rand(1, 3, 8, 8).double(),))
    methods = set(SETTINGS) - {"gradcam", "deeplift"}
    assert_like_plain(program.module(), Net(), pictures, methods, by_hand.METRICS)


@pytest.mark.filterwarnings("ignore")
def test_quantised_layers_are_named(pictures):
    pictures = pictures.float()
    model = torch.ao.quantization.quantize_dynamic(Net().float(), {nn.Linear})
    one_by_one = OneByOne(model)
    for method in BLACK_BOX:
        found, right = (by_hand.explain(each, pictures, method) for each in (model, one_by_one))
        torch.testing.assert_close(found, right)
    for method in set(SETTINGS) - set(BLACK_BOX):
        line = by_hand.refusal(model, pictures, method)
        assert "quanti" in line, method
        assert "occlusion" in line, method


class OneByOne(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, inputs):
        return torch.cat([self.model(row) for row in inputs.split(1)])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_low_rank_adapters(pictures):
    peft = pytest.importorskip("peft")
    net = Net()
    config = peft.LoraConfig(r=2, target_modules=["head"], init_lora_weights=False)
    torch.manual_seed(2)
    model = peft.get_peft_model(copy.deepcopy(net), config).double().eval()
    right = by_hand.integrated_gradients(model, pictures)
    torch.testing.assert_close(by_hand.explain(model, pictures, "ig"), right)
    merged = copy.deepcopy(model).merge_and_unload().eval()
    assert_like_plain(model, merged, pictures, set(SETTINGS) - {"uni_blur"}, by_hand.METRICS)
    assert by_hand.explain(model, pictures, "uni_blur").isfinite().all()
