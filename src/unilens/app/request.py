"""What the page may request: every name is looked up, none is opened or imported."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr
from pydantic import ValidationError as PydanticError

from ..errors import UnilensError, UnknownNameError, require
from ..explainer import Method
from ..methods import methods
from ..methods.defaults import SHOWN_BY_DEFAULT
from ..models import PixelClassifier, samples
from ..registry import Composed
from ..scores import margin
from ..specs import Spec, build_method

SCHEMA = 1
MAX_METHODS = 4
MAX_PASSES = 5000
"""Forward passes per photograph that one method may take on the page: RISE takes 2000."""
MAX_NAME_LENGTH = 60
MAX_CELLS = 64
"""Cells per side of a grid: the memory it takes grows with their square."""
MAX_STATE_BYTES = 40 * 2**20
HIDDEN_SETTINGS = {
    *("bounds", "class_prior", "create_graph", "layer", "manifold", "references", "units")
}
"""Settings that are tensors, files or names of layers, or mean nothing to one photograph."""

_UNSUPPORTED = {"inner": {"smoothgrad", "squaregrad", "vargrad"}, "matching_target": {"prior"}}
"""Choices that need what the page does not have: a smoothed method inside, a class prior."""

Name = Annotated[StrictStr, Field(max_length=MAX_NAME_LENGTH)]
Setting = StrictBool | StrictInt | StrictFloat | Name | None
Model = TypeVar("Model", bound=BaseModel)


class MethodRequest(BaseModel):
    """A method and its settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: Name
    settings: dict[str, Setting] = {}

    def explainer(self, classifier: PixelClassifier, against: int | None = None) -> Method:
        """Build the method; the sample photographs are its references, if it has any.

        Args:
            classifier: the model.
            against: class whose margin to the target is explained; None to explain the target.

        Raises:
            UnilensError: the page does not offer this method, setting or value.
        """
        defaults = methods[self.name].settings_with(self.settings)
        offered = [name for name in defaults if name not in HIDDEN_SETTINGS]
        settings: dict[str, Any] = {}
        for name, value in self.settings.items():
            if name not in offered:
                raise UnknownNameError(f"setting of {self.name}", name, offered)
            _check_value(f"{self.name}: {name}", value, defaults[name])
            settings[name] = value
        if "references" in defaults:
            settings["references"] = list(samples)
        if against is not None:
            settings["score"] = margin(against=against)
        explainer = build_method(Spec(self.name, settings), classifier)
        forward = explainer.passes.forward
        require(
            forward <= MAX_PASSES,
            f"expected at most {MAX_PASSES} passes per photograph on the page, but {self.name} "
            f"would take {forward}; lower n_steps or n_samples, or use the command line",
        )
        return explainer


class ExplainRequest(BaseModel):
    """What to explain about a photograph, without the photograph.

    Attributes:
        model: one of those that the page offers.
        methods: one to four.
        target: class to explain; None for the predicted one.
        seed: of everything random.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Name
    methods: tuple[MethodRequest, ...] = tuple(
        MethodRequest(name=name) for name in SHOWN_BY_DEFAULT
    )
    target: Annotated[StrictInt, Field(ge=0)] | None = None
    seed: Annotated[StrictInt, Field(ge=0, lt=2**63)] = 0

    def check(self, models: Sequence[str]) -> None:
        """Raise unless the model is among those offered, and the methods are known and few."""
        if self.model not in models:
            raise UnknownNameError("model", self.model, models)
        require(
            1 <= len(self.methods) <= MAX_METHODS,
            f"expected one to {MAX_METHODS} methods, got {len(self.methods)}",
        )
        names = [method.name for method in self.methods]
        for name in names:
            methods[name]
        require(len(set(names)) == len(names), f"expected each method once, got {', '.join(names)}")


@dataclass(frozen=True)
class SettingField:
    """A setting as the page shows it.

    Attributes:
        name: name of the setting.
        default: its default, of the type of the values that the page returns.
        choices: the names that it takes; empty for numbers and switches.
    """

    name: str
    default: bool | int | float | str | None
    choices: tuple[str, ...] = ()


def setting_fields(method: str, chosen: Mapping[str, Any] | None = None) -> list[SettingField]:
    """Return the settings that the page offers for a method and its chosen components.

    Args:
        method: name of the method.
        chosen: settings so far; a chosen baseline or path adds its own settings.
    """
    return [
        SettingField(name, default, _choices(method, name) if isinstance(default, str) else ())
        for name, default in methods[method].settings_with(chosen or {}).items()
        if name not in HIDDEN_SETTINGS and isinstance(default, bool | int | float | str | None)
    ]


def _choices(method: str, name: str) -> tuple[str, ...]:
    """Return the names that a setting of a method or one of its components takes."""
    entries = [methods[method]]
    if name not in entries[0].settings and isinstance(entries[0], Composed):
        entries = [
            entry
            for registry in entries[0].component_registries.values()
            for entry in registry.values()
        ]
    entry = next((entry for entry in entries if name in entry.settings), None)
    choices = () if entry is None else entry.choices(name)
    return tuple(choice for choice in choices if choice not in _UNSUPPORTED.get(name, ()))


class PhotographFile(BaseModel):
    """A photograph as a file's bytes, in base64."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[StrictStr, Field(max_length=300)] = "photograph"
    data: StrictStr

    def decode(self) -> bytes:
        """Return the file's bytes."""
        try:
            return base64.b64decode(self.data, validate=True)
        except (binascii.Error, ValueError):
            raise UnilensError("expected the photograph as base64, got other text") from None


class PageState(BaseModel):
    """All that restores a page: the request, and the photograph or the name of a sample."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unilens_page: Annotated[StrictInt, Field(ge=SCHEMA, le=SCHEMA)] = SCHEMA
    request: ExplainRequest
    sample: StrictStr | None = None
    photograph: PhotographFile | None = None

    def text(self) -> str:
        """Return the state as JSON."""
        return self.model_dump_json(exclude_none=True)

    def link(self) -> str:
        """Return the state as the value of `?state=`, without the photograph."""
        small = self.model_copy(update={"photograph": None}).text().encode()
        return base64.urlsafe_b64encode(small).decode().rstrip("=")


def read_state(text: str | bytes) -> PageState:
    """Return the state in a JSON text; raise `UnilensError` if it holds none."""
    require(
        len(text) <= MAX_STATE_BYTES,
        f"expected a page of at most {MAX_STATE_BYTES // 2**20} MB, got {len(text) / 2**20:.0f}",
    )
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise UnilensError(
            "expected a downloaded page (NAME-page.json), got another file"
        ) from None
    made = values.get("unilens_page") if isinstance(values, dict) else None
    require(
        not isinstance(made, int) or made == SCHEMA,
        f"expected a link or page of version {SCHEMA}, got one of another version of unilens; make "
        "it again here",
    )
    return validated(PageState, values)


def read_link(value: str) -> PageState:
    """Return the state in a link."""
    try:
        return read_state(base64.b64decode(value + "=" * (-len(value) % 4), b"-_", validate=True))
    except (binascii.Error, ValueError) as error:
        if isinstance(error, UnilensError):
            raise
        raise UnilensError("expected a link that this page has made, got a broken one") from None


def read_request(values: Mapping[str, Any]) -> ExplainRequest:
    """Return the request in plain values; raise `UnilensError` if they hold none."""
    return validated(ExplainRequest, values)


def read_form(model: Any, chosen: Sequence[Any], target: Any, seed: Any) -> ExplainRequest:
    """Return the request in a form: whole numbers may come as 3.0, and no seed is 0."""
    values = {"model": model, "methods": chosen, "target": whole(target)}
    return read_request({**values, "seed": 0 if seed is None else whole(seed)})


def whole(value: Any) -> Any:
    """Return 3 for 3.0; anything else unchanged."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def validated(kind: type[Model], values: object) -> Model:
    """Return plain values as a model; raise `UnilensError` in one line if they do not fit."""
    try:
        return kind.model_validate(values)
    except PydanticError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        location, message = [str(key)[:60] for key in first["loc"]], first["msg"]
        if "settings" in location[:-1]:  # each type of the union reports an error of its own
            location = location[: location.index("settings") + 2]
            message = f"a setting is a number, true, false or a name of at most {MAX_NAME_LENGTH} "
            message += "letters"
        field = ".".join(location) or "the page"
        raise UnilensError(f"expected another value of {field}: {message}") from None
    except RecursionError:
        raise UnilensError("expected a page, got values nested too deeply") from None


def _check_value(name: str, value: Setting, default: object) -> None:
    """Raise if a setting's value is not of its default's type, or too large for the page."""
    expected: dict[type, tuple[tuple[type, ...], str]] = {
        bool: ((bool,), "true or false"),
        int: ((int,), "a whole number"),
        float: ((int, float), "a number"),
        str: ((str,), "one of the names offered"),
    }
    types, noun = expected.get(type(default), ((int, float, type(None)), "a number"))
    fits = isinstance(value, types) and (isinstance(value, bool) == (types == (bool,)))
    require(fits, f"expected {name} to be {noun}, got {value!r}")
    if isinstance(value, int | float):  # before anything of that size is allocated
        limit = MAX_CELLS if name.endswith(": cells") else MAX_PASSES
        require(
            abs(value) <= limit,
            f"expected {name} to be at most {limit} on the page, got "
            + (f"{value}" if abs(value) < 10**30 else "far more"),
        )
