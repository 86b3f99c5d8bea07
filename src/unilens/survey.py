"""What a model calls in a pass, and which of it is known to be linear."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class Call(NamedTuple):
    """A torch function that ran on something that depends on the inputs, outside every rule.

    Attributes:
        function: its name, such as "gelu".
        place: the innermost module that called it, by name and type.
        module: the type of that module.
        linear: whether its result is linear, up to a constant, in what depends on the inputs.
    """

    function: str
    place: str
    module: type[nn.Module]
    linear: bool


class Survey(TorchFunctionMode):
    """Notes, while a model runs, what is called where, and how often its rules run.

    Args:
        places: of the model's modules, to be told to a reader.
        rules: those of them whose inner calls do not matter.
    """

    def __init__(self, places: Mapping[nn.Module, str], rules: Collection[nn.Module]) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.runs: dict[nn.Module, int] = {}
        self._places, self._rules = places, rules
        self._inside: list[nn.Module] = []

    def __enter__(self) -> Survey:
        self._handles = [
            handle
            for part in self._places
            for handle in (
                part.register_forward_pre_hook(self._enter, prepend=True),
                part.register_forward_hook(self._leave, always_call=True),
            )
        ]
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for handle in self._handles:
            handle.remove()

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        given = [_depends(one) for one in (*args, *kwargs.values())]
        result = func(*args, **kwargs)
        inside = self._inside[-1] if self._inside else None
        if any(given) and _has_tensor(result) and inside not in self._rules:
            place, kind = "the model", nn.Module
            if inside is not None:
                place, kind = self._places[inside], type(inside)
            name = _name(func)
            self.calls.append(Call(name, place, kind, _is_linear(name, given, args, kwargs)))
        return result

    def _enter(self, part: nn.Module, given: object) -> None:
        if part in self._rules:
            self.runs[part] = self.runs.get(part, 0) + 1
        self._inside.append(part)

    def _leave(self, part: nn.Module, given: object, result: object) -> None:
        self._inside.pop()


def _depends(value: object) -> bool:
    """Return whether a value depends on the inputs: all else in the copy is frozen."""
    if isinstance(value, (tuple, list)):
        return any(_depends(one) for one in value)
    return isinstance(value, Tensor) and value.requires_grad


def _has_tensor(value: object) -> bool:
    if isinstance(value, (tuple, list)):
        return any(_has_tensor(one) for one in value)
    return isinstance(value, Tensor)


def _name(function: Any) -> str:
    """Return a function's name: that of `mul` for `__rmul__`, of the property for its getter."""
    name = str(function.__name__)
    if name == "__get__":
        name = str(function.__self__.__name__)
    return name.removeprefix("__").removesuffix("__")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SUMS = _words(
    "add add_ radd iadd sub sub_ subtract rsub isub neg cat concat concatenate stack split "
    "tensor_split chunk unbind view view_as reshape reshape_as flatten unflatten squeeze unsqueeze "
    "permute transpose swapaxes movedim t T mT contiguous clone to float double type type_as "
    "expand expand_as repeat tile mean sum cumsum getitem select narrow index_select gather pad "
    "roll flip unfold fold adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d avg_pool1d "
    "avg_pool2d avg_pool3d interpolate upsample pixel_shuffle pixel_unshuffle channel_shuffle "
    "requires_grad_ identity"
)
_PRODUCTS = _words(
    "mul mul_ multiply rmul imul matmul rmatmul mm bmm linear addmm conv1d conv2d conv3d "
    "conv_transpose1d conv_transpose2d conv_transpose3d einsum"
)
_QUOTIENTS = _words("div div_ divide truediv itruediv")
_TRAINING = {"batch_norm": 5, "dropout": 2, "dropout1d": 2, "dropout2d": 2, "dropout3d": 2}


def _is_linear(
    name: str, given: Sequence[bool], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> bool:
    """Return whether a function is known to be linear in those of its values that depend."""
    if name in _TRAINING:
        place = _TRAINING[name]
        training = args[place] if len(args) > place else kwargs.get("training", False)
        return sum(given) == 1 and not training
    if name == "einsum":
        return sum(map(_depends, _flat(args))) == 1
    return (
        name in _SUMS
        or (name in _PRODUCTS and sum(given) == 1)
        or (name in _QUOTIENTS and sum(given) == 1 and _depends(args[0]))
    )


def _flat(values: object) -> list[object]:
    if isinstance(values, (tuple, list)):
        return [one for value in values for one in _flat(value)]
    return [values]
