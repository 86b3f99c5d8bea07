"""Models that lean on their memory layout, and models whose copy could write elsewhere."""

import copy
import functools
import threading
import types
import weakref

import pytest
import torch
from torch import nn

import unilens

from . import by_hand
from .by_hand import SETTINGS, assert_like_plain

# Kind A: every net computes what `Flattened` computes, in a way that leans on the layout.


class Flattened(nn.Module):
    """A convolution, a batch norm, and a linear head of the flattened channels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.act, self.head = nn.ReLU(), nn.Linear(144, 3)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)
        self.double().eval()

    def features(self, inputs):
        return self.act(self.norm(self.conv(inputs)))

    def flat(self, features):
        return features.reshape(len(features), -1)

    def forward(self, inputs):
        return self.head(self.flat(self.features(inputs)))


class Viewed(Flattened):
    def flat(self, features):
        return features.view(len(features), 4 * 6, 6).view(len(features), -1)


class ViewedAfterPermutes(Flattened):
    def flat(self, features):
        return features.permute(0, 2, 3, 1).permute(0, 3, 1, 2).view(-1, 144)


class AsStrided(Flattened):
    def flat(self, features):  # gives other numbers in another layout, and no error
        return features.as_strided((len(features), 144), (144, 1))


class Unflattened(Flattened):
    def __init__(self):
        super().__init__()
        self.unflatten = nn.Unflatten(1, (2, 2)).eval()

    def flat(self, features):
        return self.unflatten(features).view(len(features), -1)


class AsComplex(Flattened):
    def flat(self, features):
        pairs = torch.view_as_complex(features.view(len(features), -1, 2))
        return torch.view_as_real(pairs).view(len(features), -1)


class RefusesOtherLayouts(Flattened):
    def flat(self, features):
        if not features.is_contiguous():
            raise RuntimeError("call .contiguous() first")
        return super().flat(features)


class ReadsStrides(Flattened):
    def flat(self, features):
        sign = 1 if features.stride(1) == 36 else -1  # of a channel, where they lie one by one
        return sign * super().flat(features)


class ViewsItsWeights(Flattened):
    def features(self, inputs):
        weights = self.conv.weight.view(4, -1).view(4, 3, 3, 3)
        found = nn.functional.conv2d(inputs, weights)
        return self.act(self.norm(found))


class ChannelsLastOfItsOwn(Flattened):
    def flat(self, features):
        last = features.contiguous(memory_format=torch.channels_last)
        rows = last.permute(0, 2, 3, 1).view(len(features), 36, 4)
        return rows.transpose(1, 2).reshape(len(features), -1)


class OnePictureInItsCode(Flattened):
    def flat(self, features):
        return features.view(1, -1)


class OnePictureAsserted(Flattened):
    def flat(self, features):
        assert features.shape[0] == 1
        return features.view(-1)[None]


class OnePictureScaled(Flattened):
    def flat(self, features):  # silent: shrinks what it gives where several share a pass
        return super().flat(features) / len(features)


class ChannelsAsPictures(Flattened):
    """Convolves each channel by itself, as pictures of one channel, with one picture in mind."""

    def features(self, inputs):
        kernels = self.conv.weight
        each = nn.functional.conv2d(
            inputs.reshape(3, 1, 8, 8), kernels.transpose(0, 1).reshape(12, 1, 3, 3)
        )
        each = each.view(3, 3, 4, 6, 6)
        return self.act(self.norm(torch.stack([each[k, k] for k in range(3)]).sum(0)[None]))


LAYOUTS = [
    *(Viewed, ViewedAfterPermutes, AsStrided, Unflattened, AsComplex, RefusesOtherLayouts),
    *(ReadsStrides, ViewsItsWeights, ChannelsLastOfItsOwn, OnePictureInItsCode),
    *(OnePictureAsserted, OnePictureScaled, ChannelsAsPictures),
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", LAYOUTS, ids=lambda kind: kind.__name__)
def test_layout_of_the_model_is_kept(kind, pictures):
    refused = set()
    if kind in (AsStrided, AsComplex) or kind.__name__.startswith(("OneP", "ChannelsAs")):
        refused = {"deeplift"}  # no rule for what they call, or two rows in one pass
    methods = set(SETTINGS) - refused
    assert_like_plain(kind(), Flattened(), pictures, methods, by_hand.METRICS)
    for method in refused:
        assert "use method=" in by_hand.refusal(kind(), pictures, method)


def test_layout_of_volumes_and_of_pictures_without_channels():
    class Volume(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.head = nn.Conv3d(1, 2, 2), nn.Linear(54, 3)
            self.double().eval()

        def forward(self, inputs):
            return self.head(self.conv(inputs.unsqueeze(1)).relu().view(len(inputs), -1))

    inputs, model = torch.rand(2, 4, 4, 4).double(), Volume()
    right = by_hand.integrated_gradients(model, inputs)
    torch.testing.assert_close(by_hand.explain(model, inputs, "ig", channels="none"), right)


# Kind B: every net computes what `TwoHeads` computes, and keeps something aside on the way.


class TwoHeads(nn.Module):
    """Two convolutions, each with a head of its own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.act, self.last = nn.ReLU(), nn.ReLU()
        self.late, self.early = nn.Linear(4, 3), nn.Linear(4, 3)
        self.double().eval()

    def heads(self, middle, end):
        return self.late(end.mean((2, 3))) + 5 * self.early(middle.mean((2, 3)))

    def forward(self, inputs):
        middle = self.act(self.first(inputs))
        return self.heads(middle, self.last(self.second(middle)))


class Kept(TwoHeads):
    """Reads the middle from where a hook has put it."""

    def middle(self):
        raise NotImplementedError

    def forward(self, inputs):
        end = self.last(self.second(self.act(self.first(inputs))))
        return self.heads(self.middle(), end)


class InAList(Kept):
    def __init__(self):
        super().__init__()
        self.kept = kept = []
        self.act.register_forward_hook(lambda module, given, output: kept.append(output))

    def middle(self):
        return self.kept[-1]


class InADictionaryOfDictionaries(Kept):
    def __init__(self):
        super().__init__()
        self.kept = {"middle": {}}
        self.act.register_forward_hook(functools.partial(self.note, self.kept["middle"]))

    @staticmethod
    def note(kept, module, given, output):
        kept["it"] = output

    def middle(self):
        return self.kept["middle"]["it"]


class Recorder:
    def __init__(self):
        self.seen = None

    def note(self, module, given, output):
        self.seen = output


class InAnObject(Kept):
    def __init__(self):
        super().__init__()
        self.recorder = Recorder()
        self.act.register_forward_hook(self.recorder.note)

    def middle(self):
        return self.recorder.seen


class InAnObjectWithSlots(Kept):
    class Slots:
        __slots__ = ("seen",)

        def note(self, module, given, output):
            self.seen = output

    def __init__(self):
        super().__init__()
        self.slots = self.Slots()
        self.act.register_forward_hook(self.slots.note)

    def middle(self):
        return self.slots.seen


class InTheParent(Kept):
    def __init__(self):
        super().__init__()
        parent = weakref.ref(self)
        self.act.register_forward_hook(lambda module, given, out: setattr(parent(), "kept", out))

    def middle(self):
        return self.kept


class ByAWeakReferenceInAPartial(Kept):
    def __init__(self):
        super().__init__()
        self.act.register_forward_hook(functools.partial(self.note, weakref.ref(self)))

    @staticmethod
    def note(parent, module, given, output):
        parent().kept = output

    def middle(self):
        return self.kept


GLOBAL = {}


class InAGlobal(Kept):
    def __init__(self):
        super().__init__()
        self.act.register_forward_hook(lambda module, given, out: GLOBAL.update(it=out))

    def middle(self):
        return GLOBAL["it"]


class InItsClass(Kept):
    kept = types.SimpleNamespace()

    def __init__(self):
        super().__init__()
        self.act.register_forward_hook(lambda module, given, out: setattr(self.kept, "it", out))

    def middle(self):
        return self.kept.it


class AsAttributeOfItsClass(Kept):
    seen = None

    def __init__(self):
        super().__init__()
        self.act.register_forward_hook(lambda module, given, out: setattr(type(self), "seen", out))

    def middle(self):
        return type(self).seen


class InAVariable(Kept):
    def __init__(self):
        super().__init__()
        seen = None

        def note(module, given, output):
            nonlocal seen
            seen = output

        self.act.register_forward_hook(note)
        self.middle = lambda: seen


LAST = None


class InAGlobalVariable(Kept):
    def __init__(self):
        super().__init__()

        def note(module, given, output):
            global LAST
            LAST = output

        self.act.register_forward_hook(note)

    def middle(self):
        return LAST


class InItsModule(Kept):
    def __init__(self):
        super().__init__()
        self.act.register_forward_hook(lambda module, given, out: vars(module).update(out=out))

    def middle(self):
        return self.act.out


class OverASibling(TwoHeads):
    def __init__(self):
        super().__init__()
        early = self.early
        self.read = lambda middle: 5 * early(middle.mean((2, 3)))

    def heads(self, middle, end):
        return self.late(end.mean((2, 3))) + self.read(middle)


class ForwardReplaced(TwoHeads):
    def __init__(self):
        super().__init__()
        scale, plain = nn.Parameter(torch.tensor(5.0).double()), self.early.forward
        self.early.scale = scale
        self.early.forward = lambda given: self.early.scale * plain(given)

    def heads(self, middle, end):
        return self.late(end.mean((2, 3))) + self.early(middle.mean((2, 3)))


class FunctionsInAList(TwoHeads):
    def __init__(self):
        super().__init__()
        self.steps = [self.first, self.act.forward, lambda x: (x, self.last(self.second(x)))]

    def forward(self, inputs):
        for step in self.steps:
            inputs = step(inputs)
        return self.heads(*inputs)


class ItselfInAContainer(TwoHeads):
    def __init__(self):
        super().__init__()
        self.root = [self]

    def forward(self, inputs):
        root = self.root[0]
        middle = root.act(root.first(inputs))
        return root.heads(middle, root.last(root.second(middle)))


SHARED = [InAGlobal, InAGlobalVariable, InItsClass, AsAttributeOfItsClass]
"""These keep it where every copy would write."""
ON_A_COPY = ("uni_blur", "gradcam", "deeplift")
COPIES = [
    *(InAList, InADictionaryOfDictionaries, InAnObject, InAnObjectWithSlots, InTheParent),
    *(ByAWeakReferenceInAPartial, InItsModule, InAVariable),
    *(OverASibling, ForwardReplaced, FunctionsInAList, ItselfInAContainer),
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", COPIES, ids=lambda kind: kind.__name__)
def test_copy_is_the_model(kind, pictures):
    assert_like_plain(kind(), TwoHeads(), pictures, metrics=by_hand.METRICS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHARED, ids=lambda kind: kind.__name__)
def test_model_that_copies_would_share_is_run_itself(kind, pictures):
    model, methods = kind(), set(SETTINGS) - set(ON_A_COPY)
    assert_like_plain(model, TwoHeads(), pictures, methods, by_hand.METRICS)
    for method in ON_A_COPY:
        assert "copy" in by_hand.refusal(model, pictures, method)


KEEPS = [kind for kind in COPIES + SHARED if issubclass(kind, Kept)]


@pytest.mark.parametrize("kind", KEEPS, ids=lambda kind: kind.__name__)
def test_copy_leaves_what_the_user_keeps(kind, pictures):
    model = kind()
    model(pictures[:1])
    before = model.middle()
    values = before.detach().clone()
    for method in ("ig", "gradient", "occlusion", "rise"):
        by_hand.explain(model, pictures, method)
        assert model.middle() is before, method
    assert torch.equal(before, values)
    if kind is InAList:
        assert len(model.kept) == 1


def test_copy_may_be_the_thing_itself(pictures):
    class Itself(nn.Conv2d):
        def __deepcopy__(self, cache):
            return self

    model = TwoHeads()
    model.second = Itself(4, 4, 3).double().eval()
    model.second.load_state_dict(TwoHeads().second.state_dict())
    parent = model.second.parent = weakref.ref(model)
    assert_like_plain(model, TwoHeads(), pictures, set(SETTINGS) - set(ON_A_COPY))
    assert "__deepcopy__" in by_hand.refusal(model, pictures, "uni_blur")
    assert model.second.parent is parent


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lock", "python generator", "random generator", "open file"])
def test_model_holds_what_cannot_be_copied(kind, pictures, tmp_path):
    model = TwoHeads()
    with (tmp_path / "log").open("w") as file:
        held = {
            "lock": threading.Lock(),
            "python generator": (number for number in range(3)),
            "random generator": torch.Generator(),
            "open file": file,
        }
        model.held = [held[kind]]
        copied = kind in ("lock", "random generator")
        methods = set(SETTINGS) - set(() if copied else ON_A_COPY)
        assert_like_plain(model, TwoHeads(), pictures, methods, by_hand.METRICS)
        if not copied:
            assert "deepcopy" in by_hand.refusal(model, pictures, "uni_blur")
        assert model.held == [held[kind]]


class Remembers(nn.Module):
    """A recurrent cell that goes on from the state that its last call left."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.head = nn.RNNCell(5, 4), nn.Linear(4, 3)
        self.state = None
        self.double().eval()

    def forward(self, inputs):
        self.state = self.cell(inputs, self.state)
        return self.head(self.state)


class RemembersInABuffer(Remembers):
    def __init__(self):
        super().__init__()
        del self.state
        self.register_buffer("state", torch.zeros(1, 4).double())


class RemembersInPlace(RemembersInABuffer):
    def forward(self, inputs):
        new = self.cell(inputs, self.state.clone())
        self.state.copy_(new.detach())
        return self.head(new)


class FromItsState(nn.Module):
    """What a model gives where each call begins with the state that it has now."""

    def __init__(self, model):
        super().__init__()
        self.model = [copy.deepcopy(model)]

    def forward(self, inputs):
        return torch.cat([copy.deepcopy(self.model[0])(row) for row in inputs.split(1)])


@pytest.mark.parametrize("kind", [Remembers, RemembersInABuffer, RemembersInPlace])
def test_every_point_starts_from_the_state_that_the_user_left(kind):
    model, rows = kind(), torch.rand(3, 2, 5, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        model(rows[0, :1])
    model.state = model.state.detach()
    state, plain = model.state, FromItsState(model)
    values = state.clone()
    right = torch.cat([by_hand.integrated_gradients(plain, row) for row in rows[1].split(1)])
    torch.testing.assert_close(by_hand.explain(model, rows[1], "ig"), right)
    right = by_hand.gradient(plain, rows[1])
    torch.testing.assert_close(by_hand.explain(model, rows[1], "gradient"), right)
    found = unilens.explain(model, rows[1], "occlusion", 0)
    torch.testing.assert_close(found.outputs, plain(rows[1]))
    assert model.state is state
    assert torch.equal(state, values)
