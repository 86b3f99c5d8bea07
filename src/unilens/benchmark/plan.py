"""What a benchmark is to do: a TOML file, checked before anything runs."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..errors import UnilensError, UnknownNameError, require
from ..explainer import Explainer
from ..methods import methods
from ..metrics import Metric, MetricCard, metrics
from ..models import DEFAULT_MODEL, check_model_name
from ..registry import Registry
from ..specs import Spec, read_specs
from .data import is_named
from .data.imagenet_c import check_corruption

_ALL = "all"
Names = Annotated[tuple[str, ...], Field(min_length=1)]
Setting = bool | int | float | str | list[Any]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Changed(_Part):
    """A corruption of ImageNet-C that all images go through.

    Attributes:
        name: of a corruption.
        severity: 1 to 5; 0 is the image as it is.
    """

    name: str
    severity: int = Field(ge=1, le=5)

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        check_corruption(name)
        return name


class Data(_Part):
    """The images.

    Attributes:
        source: a folder, an image, `samples`, an fsspec URL, `torchvision:NAME` or `hf:REPO`.
        labels: a CSV of labels, where they are not the names of sub-folders.
        split: of a data set by name.
        limit: how many images, at the most.
        clean: whether the images are taken as they are, beside the corruptions.
        corruptions: each makes a further image of every image.
    """

    source: str = Field(default="samples", min_length=1)
    labels: str | None = None
    split: str | None = None
    limit: int | None = Field(default=None, ge=1)
    clean: bool = True
    corruptions: tuple[Changed, ...] = ()

    @field_validator("source", "labels")
    @classmethod
    def _whole_path(cls, place: str | None) -> str | None:
        """A path means the same wherever the run goes on."""
        return place if place is None or is_named(place) else str(Path(place).resolve())

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.clean and not self.corruptions:
            raise ValueError("expected corruptions where clean = false, got none")
        return self

    @property
    def changes(self) -> list[Changed | None]:
        """What each image goes through; None for nothing."""
        return [None] * self.clean + list(self.corruptions)


class Engine(_Part):
    """Where the work is done; what comes out does not depend on it.

    Attributes:
        name: `local` (this process) or `ray`.
        address: of a Ray cluster; None starts one on this machine.
        workers: how many units of work are in hand at once, with Ray; None for what the cluster
            has room for.
        cpus: for each worker.
        gpus: for each worker; parts of one are allowed.
    """

    name: Literal["local", "ray"] = "local"
    address: str | None = None
    workers: int | None = Field(default=None, ge=1)
    cpus: int = Field(default=1, ge=1)
    gpus: float = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _of_use(self) -> Self:
        for key in ("address", "workers", "gpus") if self.name == "local" else ():
            unused = getattr(self, key) != type(self).model_fields[key].default
            require(not unused, f"{key} is of no use without name = 'ray' (--engine ray)")
        return self


class Plan(_Part):
    """Every method on every image and model, judged by every metric.

    Attributes:
        models: names as `unilens.load_model` takes them.
        methods: as on the command line, `ig:baseline=blur`; `all` for every method.
        metrics: likewise.
        settings: for every method that has a setting of that name.
        target: what is explained: the class that each model predicts, or the image's label.
        seed: of everything random; what is drawn for an image depends on it and the image alone.
        device: where models run, such as `cpu` or `cuda`.
        dtype: of the models.
        random_weights: whether the models are untrained: no download.
        pictures: of how many images a small picture of each map is kept, for the report.
        rank_by: the metric by which the report chooses the best and worst maps; the first one
            where it is None.
        data: the images.
        engine: where the work is done.
    """

    models: Names = (DEFAULT_MODEL,)
    methods: Names = ("uni", "ig")
    metrics: Names = ("mu_fidelity", "insertion_auc", "deletion_auc")
    settings: dict[str, Setting] = {}
    target: Literal["predicted", "label"] = "predicted"
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: str = "cpu"
    dtype: Literal["float32", "float64"] = "float32"
    random_weights: bool = False
    pictures: int = Field(default=100, ge=0)
    rank_by: str | None = None
    data: Data = Data()
    engine: Engine = Engine()

    @field_validator("methods", "metrics")
    @classmethod
    def _expand(cls, names: tuple[str, ...], info: Any) -> tuple[str, ...]:
        if _ALL not in names:
            return names
        known = list(methods) if info.field_name == "methods" else _without_mask()
        return tuple(dict.fromkeys([*known, *(one for one in names if one != _ALL)]))

    @field_validator("models", "methods", "metrics")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({one for one in names if names.count(one) > 1})
        require(not twice, f"expected each name once, got {', '.join(twice)} more than once")
        return names

    @field_validator("models")
    @classmethod
    def _models_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            check_model_name(name)
        return names

    @model_validator(mode="after")
    def _buildable(self) -> Self:
        for name, spec in self.method_specs.items():
            _check_buildable(methods, name, spec)
        for name, measure in self.measures.items():
            require(
                "mask" not in measure.needs,
                f"metrics: {name} needs to know where the object is, which no data set here says; "
                "leave it out, or use unilens evaluate --mask",
            )
        if self.rank_by is not None and self.rank_by not in self.metrics:
            raise UnknownNameError("metric of this plan in rank_by", self.rank_by, self.metrics)
        return self

    @property
    def method_specs(self) -> dict[str, Spec]:
        """The methods with their settings, by name in the plan."""
        return read_specs(cast(Registry[Any], methods), list(self.methods), self.settings)

    @property
    def metric_specs(self) -> dict[str, Spec]:
        """The metrics with their settings, by name in the plan."""
        return read_specs(cast(Registry[Any], metrics), list(self.metrics))

    @property
    def measures(self) -> dict[str, Metric]:
        """The metrics, built, by name in the plan."""
        return {text: metrics[one.name](**one.settings) for text, one in self.metric_specs.items()}

    def card(self, metric: str) -> MetricCard:
        """Return the card of a metric of this plan."""
        return cast(MetricCard, metrics[self.metric_specs[metric].name].card)


def _without_mask() -> list[str]:
    return [name for name, entry in metrics.items() if "mask" not in entry().needs]


def _check_buildable(registry: Registry[Explainer], name: str, spec: Spec) -> None:
    """Raise where settings are wrong; references are images, which are read later."""
    settings = {key: value for key, value in spec.settings.items() if key != "references"}
    entry = registry[spec.name]
    if "references" not in entry.settings_with(spec.settings):
        entry(**settings)


def presets() -> dict[str, str]:
    """Return the plans that come with the package, as TOML, by name."""
    folder = resources.files(__package__) / "presets"
    found = sorted(folder.iterdir(), key=lambda one: one.name)
    return {one.name.removesuffix(".toml"): one.read_text(encoding="utf-8") for one in found}


def read_plan(text: str, given: Mapping[str, Any] | None = None, origin: str = "the plan") -> Plan:
    """Return a plan.

    Args:
        text: TOML.
        given: what takes the place of what the text says; tables by key.
        origin: what the text is called in messages.

    Raises:
        UnilensError: the text is no TOML, or a key of it is unknown or has a wrong value; the
            message names the key.
    """
    try:
        said = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UnilensError(f"expected {origin} to be TOML: {error}") from error
    return make_plan(_merged(said, given or {}), origin)


def make_plan(said: Mapping[str, Any], origin: str = "the plan") -> Plan:
    """Return a plan from plain data; raise `UnilensError`, naming the key that is wrong."""
    try:
        return Plan.model_validate(said)
    except ValidationError as error:
        raise UnilensError(f"{origin}: {_first(error)}") from error


def read_plan_file(path: Path, given: Mapping[str, Any] | None = None) -> Plan:
    """Return the plan in a TOML file; see `read_plan`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UnilensError(f"could not read the plan {path}: {reason}") from error
    return read_plan(text, given, str(path))


def _merged(said: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(said)
    for key, value in given.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if nested else value
    return merged


def _first(error: ValidationError) -> str:
    """Return the first thing that is wrong, by the key it stands under."""
    (first, *others) = error.errors(include_url=False)
    key = ".".join(str(one) for one in first["loc"])
    cause = first.get("ctx", {}).get("error")
    if first["type"] == "extra_forbidden":
        owner = _owner(first["loc"])
        words = str(UnknownNameError("key", first["loc"][-1], owner))
    elif cause is not None:
        words = str(cause)
    else:
        words = f"{first['msg']}, got {json.dumps(first['input'], default=str)}"
    more = f" (and {len(others)} more)" if others else ""
    return f"{key}: {words}{more}" if key else f"{words}{more}"


def _owner(loc: tuple[int | str, ...]) -> list[str]:
    kinds: dict[str, type[BaseModel]] = {
        "data": Data,
        "engine": Engine,
        "corruptions": Changed,
    }
    named = [one for one in loc[:-1] if isinstance(one, str)]
    return list((kinds[named[-1]] if named else Plan).model_fields)


GROWING = ("models", "methods", "metrics")
"""What a run can be resumed with more of."""


def check_resumable(before: Plan, now: Plan) -> None:
    """Raise unless a plan asks for all that an earlier one asked for: only then can it go on.

    Models, methods, metrics, corruptions and images may be added; the engine and the pictures may
    change.
    """
    for key in GROWING:
        gone = [one for one in getattr(before, key) if one not in getattr(now, key)]
        _refuse(key, f"{', '.join(gone)} left out", bool(gone))
    for key in ("settings", "target", "seed", "device", "dtype", "random_weights"):
        was, wanted = getattr(before, key), getattr(now, key)
        _refuse(key, f"was {was!r}, now {wanted!r}", was != wanted)
    for key in ("source", "labels", "split"):
        was, wanted = getattr(before.data, key), getattr(now.data, key)
        _refuse(f"data.{key}", f"was {was!r}, now {wanted!r}", was != wanted)
    gone = [change for change in before.data.changes if change not in now.data.changes]
    _refuse("data.corruptions", "some left out", bool(gone))
    was, wanted = before.data.limit, now.data.limit
    fewer = wanted is not None and (was is None or wanted < was)
    _refuse("data.limit", f"was {was}, now {wanted}", fewer)


def _refuse(key: str, difference: str, different: bool) -> None:
    require(
        not different,
        f"this run was made by another plan: {key}: {difference}; choose another folder with --out",
    )
