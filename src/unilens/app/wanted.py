"""What a page may ask for: every name in it is looked up, none is opened or imported."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr
from pydantic import ValidationError as PydanticError

from ..errors import UnilensError, UnknownNameError, require
from ..explainer import Explainer
from ..methods import methods
from ..models import PixelClassifier, samples
from ..specs import Spec, build_method

SCHEMA = 1
MOST_METHODS = 4
MOST_PASSES = 5000
"""Forward passes per photograph that one method may take on the page: RISE takes 2000."""
LONGEST_NAME = 60
MOST_CELLS = 64
"""A grid of more cells a side takes memory that grows with its square."""
MOST_STATE_BYTES = 40 * 2**20
OUT_OF_REACH = {"bounds", "class_prior", "create_graph", "layer", "manifold", "references", "units"}
"""Settings that are tensors, files or names of layers, or mean nothing to one photograph."""

Model = TypeVar("Model", bound=BaseModel)
Setting = (
    StrictBool
    | StrictInt
    | StrictFloat
    | Annotated[StrictStr, Field(max_length=LONGEST_NAME)]
    | None
)


class Chosen(BaseModel):
    """A method and its settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: Annotated[StrictStr, Field(max_length=LONGEST_NAME)]
    settings: dict[str, Setting] = {}

    def explainer(self, classifier: PixelClassifier) -> Explainer:
        """Build the method; what needs references gets the sample photographs.

        Raises:
            UnilensError: the page does not offer this method, setting or value.
        """
        entry = methods[self.name]
        valid = entry.settings_with(self.settings)
        offered = [name for name in valid if name not in OUT_OF_REACH]
        settings: dict[str, Any] = {}
        for name, value in self.settings.items():
            if name not in offered:
                raise UnknownNameError(f"setting of {self.name}", name, offered)
            settings[name] = _checked(f"{self.name}: {name}", value, valid[name])
        if "references" in valid:
            settings["references"] = list(samples)
        explainer = build_method(Spec(self.name, settings), classifier)
        forward = explainer.passes.forward
        require(
            forward <= MOST_PASSES,
            f"expected at most {MOST_PASSES} passes per photograph on the page, but {self.name} "
            f"would take {forward}; lower n_steps or n_samples, or use the command line",
        )
        return explainer


class Wanted(BaseModel):
    """A photograph is not part of it: which one, and what is asked about it, are two things.

    Attributes:
        model: one of those that the page offers.
        methods: one to four.
        target: the class to be explained; None for the predicted one.
        seed: of everything random.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[StrictStr, Field(max_length=LONGEST_NAME)]
    methods: tuple[Chosen, ...] = (Chosen(name="uni"),)
    target: Annotated[StrictInt, Field(ge=0)] | None = None
    seed: Annotated[StrictInt, Field(ge=0, lt=2**63)] = 0

    def checked(self, offered: Sequence[str]) -> Wanted:
        """Return it; raise unless the model is offered, and one to four methods are known."""
        if self.model not in offered:
            raise UnknownNameError("model", self.model, offered)
        require(
            1 <= len(self.methods) <= MOST_METHODS,
            f"expected one to {MOST_METHODS} methods, got {len(self.methods)}",
        )
        names = [one.name for one in self.methods]
        for name in names:
            methods[name]
        require(len(set(names)) == len(names), f"expected each method once, got {', '.join(names)}")
        return self


class Picture(BaseModel):
    """A photograph as a file's bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[StrictStr, Field(max_length=300)] = "photograph"
    data: StrictStr

    def decoded(self) -> bytes:
        """Return the file's bytes."""
        try:
            return base64.b64decode(self.data, validate=True)
        except (binascii.Error, ValueError):
            raise UnilensError("expected the picture as base64, got something else") from None


class State(BaseModel):
    """All that restores a page: what is asked, and of which photograph."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unilens_page: Annotated[StrictInt, Field(ge=SCHEMA, le=SCHEMA)] = SCHEMA
    wanted: Wanted
    sample: StrictStr | None = None
    picture: Picture | None = None

    def text(self) -> str:
        """Return it as JSON."""
        return self.model_dump_json(exclude_none=True)

    def link(self) -> str:
        """Return it as the value of `?state=`, without the picture."""
        small = self.model_copy(update={"picture": None}).text().encode()
        return base64.urlsafe_b64encode(small).decode().rstrip("=")


def read_state(text: str | bytes) -> State:
    """Return the state that a JSON text describes; raise one line where it is none."""
    require(
        len(text) <= MOST_STATE_BYTES,
        f"expected a page of at most {MOST_STATE_BYTES // 2**20} MB, got {len(text) / 2**20:.0f}",
    )
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise UnilensError(
            "expected a page as “Take it along” writes it (NAME-page.json), got something else"
        ) from None
    return _read(State, found)


def read_link(value: str) -> State:
    """Return the state in a link."""
    try:
        return read_state(base64.b64decode(value + "=" * (-len(value) % 4), b"-_", validate=True))
    except (binascii.Error, ValueError) as error:
        if isinstance(error, UnilensError):
            raise
        raise UnilensError("expected a link that this page has made, got a broken one") from None


def read_wanted(given: Mapping[str, Any]) -> Wanted:
    """Return what plain values ask for; raise one line where they are wrong."""
    return _read(Wanted, given)


def read_asked(model: Any, chosen: Sequence[Any], target: Any, seed: Any) -> Wanted:
    """Return what a form asks for: whole numbers may come as 3.0, and no seed is 0."""
    given = {"model": model, "methods": chosen, "target": _whole(target)}
    return read_wanted({**given, "seed": 0 if seed is None else _whole(seed)})


def _whole(value: Any) -> Any:
    """Return 3 for 3.0; anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _read(kind: type[Model], given: object) -> Model:
    try:
        return kind.model_validate(given)
    except PydanticError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where, said = [str(part)[:60] for part in first["loc"]], first["msg"]
        if "settings" in where[:-1]:  # one of several kinds, each of which has its own complaint
            where = where[: where.index("settings") + 2]
            said = f"a setting is a number, true, false or a name of at most {LONGEST_NAME} letters"
        place = ".".join(where) or "the page"
        raise UnilensError(f"expected another value of {place}: {said}") from None
    except RecursionError:
        raise UnilensError("expected a page, got values nested too deeply") from None


def _checked(name: str, value: Setting, default: object) -> Setting:
    """Return a setting's value; raise where it is of another kind than the default."""
    kinds: dict[type, tuple[tuple[type, ...], str]] = {
        bool: ((bool,), "true or false"),
        int: ((int,), "a whole number"),
        float: ((int, float), "a number"),
        str: ((str,), "one of the names offered"),
    }
    kind, said = kinds.get(type(default), ((int, float, type(None)), "a number"))
    right = isinstance(value, kind) and (isinstance(value, bool) == (kind == (bool,)))
    require(right, f"expected {name} to be {said}, got {value!r}")
    if isinstance(value, int | float):  # before anything of that size is made
        most = MOST_CELLS if name.endswith(": cells") else MOST_PASSES
        require(
            abs(value) <= most,
            f"expected {name} to be at most {most} on the page, got "
            + (f"{value}" if abs(value) < 10**30 else "far more"),
        )
    return value
