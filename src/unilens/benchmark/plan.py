"""The plan of a benchmark: a TOML file, checked before anything runs."""

from __future__ import annotations

import errno
import reprlib
import stat
import tomllib
from collections import Counter
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from .._validation.imports import CODE
from ..errors import UnilensError, UnknownNameError, require
from ..explainer import Method
from ..methods import methods
from ..metrics import Metric, MetricCard, metrics
from ..models import DEFAULT_MODEL, check_model_name
from ..output.text import one_line
from ..registry import Registry
from ..specs import Spec, read_specs
from .code import texts_in
from .data import has_truth, is_named
from .data.imagenet_c import check_corruption

_ALL = "all"
_MOST_BYTES = 4 * 2**20
"""Of a plan."""
_MAX_MESSAGE = 1000
"""Characters that a message says of a plan."""
_OF_THE_TRUTH = {"mask", "without_parts"}
"""Needs of a metric that data of known truth alone have."""
Names = Annotated[tuple[str, ...], Field(min_length=1)]
Setting = bool | int | float | str | list[Any]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CorruptionConfig(_Section):
    """A corruption of ImageNet-C that is applied to all images, at severity 1 to 5."""

    name: str
    severity: int = Field(ge=1, le=5)

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        check_corruption(name)
        return name


class _DataConfig(_Section):
    """The images.

    Attributes:
        source: a folder, an image, `samples`, an fsspec URL, `torchvision:NAME`, `hf:REPO` or
            `truth:NAME`.
        labels: a CSV of labels, where they are not the names of sub-folders.
        split: of a data set by name.
        limit: of the images; None for all.
        clean: whether the uncorrupted images are taken as well.
        corruptions: each adds a corrupted copy of every image.
    """

    source: str = Field(default="samples", min_length=1)
    labels: str | None = None
    split: str | None = None
    limit: int | None = Field(default=None, ge=1)
    clean: bool = True
    corruptions: tuple[CorruptionConfig, ...] = ()

    @field_validator("source", "labels")
    @classmethod
    def _absolute_path(cls, path: str | None) -> str | None:
        """Make paths absolute, so that a run can continue from another folder."""
        return path if path is None or is_named(path) else str(Path(path).resolve())

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.clean and not self.corruptions:
            raise ValueError("expected corruptions where clean = false, got none")
        return self

    @property
    def conditions(self) -> list[CorruptionConfig | None]:
        """The corruptions of each image; None for the uncorrupted image."""
        return [None] * self.clean + list(self.corruptions)


class EngineConfig(_Section):
    """Where rows are computed; they do not depend on it.

    Attributes:
        name: `local` (this machine) or `ray`.
        address: of a Ray cluster; None starts one on this machine.
        workers: units computed at once, each in a process of its own; None for one unit after the
            other in this process, and with Ray for as many as the cluster has room for.
        cpus: per worker.
        gpus: per worker; fractions are allowed.
    """

    name: Literal["local", "ray"] = "local"
    address: str | None = None
    workers: int | None = Field(default=None, ge=1, le=100_000)
    cpus: int = Field(default=1, ge=1, le=10_000)
    gpus: float = Field(default=0, ge=0, le=10_000)

    @model_validator(mode="after")
    def _used(self) -> Self:
        if self.name == "ray":
            return self
        remedies = dict.fromkeys(("address", "gpus"), "name = 'ray' (--engine ray)")
        if self.workers is None:
            remedies["cpus"] = "workers"
        for key, remedy in remedies.items():
            unused = getattr(self, key) != type(self).model_fields[key].default
            require(not unused, f"{key} has no effect without {remedy}")
        return self


class Plan(_Section):
    """Every method on every image and model, evaluated by every metric.

    Attributes:
        models: names as `unilens.load_model` takes them.
        methods: as on the command line, `ig:baseline=blur`; `all` for every method.
        metrics: likewise.
        settings: applied to every method that has a setting of that name.
        target: the class that is explained: the predicted one; "label", the image's own; or a label
            or an index of the models' classes, for all images.
        seed: of everything random; random numbers depend on it and the image's content only.
        device: where models run, such as `cpu` or `cuda`.
        dtype: of the models.
        random_weights: whether the models are untrained, which needs no download.
        pictures: the number of images for which thumbnails of the maps are kept for the report.
        rank_by: the metric by which the report chooses the best and worst maps; None for the
            first.
        data: the images.
        engine: where rows are computed.
    """

    models: Names = (DEFAULT_MODEL,)
    methods: Names = ("uni_blur", "uni", "ig")
    metrics: Names = ("mu_fidelity", "insertion_auc", "deletion_auc")
    settings: dict[str, Setting] = {}
    target: str = Field(default="predicted", min_length=1)
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: str = "cpu"
    dtype: Literal["float32", "float64"] = "float32"
    random_weights: bool = False
    pictures: int = Field(default=100, ge=0)
    rank_by: str | None = None
    data: _DataConfig = _DataConfig()
    engine: EngineConfig = EngineConfig()

    @field_validator("methods", "metrics")
    @classmethod
    def _expand(cls, names: tuple[str, ...], info: Any) -> tuple[str, ...]:
        if _ALL not in names:
            return names
        known = list(methods)
        if info.field_name == "metrics":
            known = [
                name for name, entry in metrics.items() if _OF_THE_TRUTH.isdisjoint(entry().needs)
            ]
        return tuple(dict.fromkeys([*known, *(name for name in names if name != _ALL)]))

    @field_validator("models", "methods", "metrics")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
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
        for name, metric in self.built_metrics.items():
            require(
                _OF_THE_TRUTH.isdisjoint(metric.needs) or has_truth(self.data.source),
                f"metrics: {name} needs a mask of the object, or its parts, which "
                f"{self.data.source} does not have; leave it out, or take data of known truth, "
                "such as truth:texture",
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
    def built_metrics(self) -> dict[str, Metric]:
        """The metrics, built, by name in the plan."""
        return {
            text: metrics[spec.name](**spec.settings) for text, spec in self.metric_specs.items()
        }

    @property
    def code(self) -> tuple[str, ...]:
        """What running this plan imports: the `py:` names in it."""
        specs = (*self.method_specs.values(), *self.metric_specs.values())
        named = (*self.models, *texts_in([spec.settings for spec in specs]))
        return tuple(dict.fromkeys(name for name in named if name.startswith(CODE)))

    @property
    def manifolds(self) -> tuple[str, ...]:
        """The names and files of all manifolds."""
        specs = (*self.method_specs.values(), *self.metric_specs.values())
        named = [spec.settings["manifold"] for spec in specs if "manifold" in spec.settings]
        return tuple(dict.fromkeys(named))

    def card(self, metric: str) -> MetricCard:
        """Return the card of a metric of this plan."""
        return cast(MetricCard, metrics[self.metric_specs[metric].name].card)


def _check_buildable(registry: Registry[Method], name: str, spec: Spec) -> None:
    """Raise where settings are invalid; references are images, which are read later."""
    settings = {key: value for key, value in spec.settings.items() if key != "references"}
    entry = registry[spec.name]
    if "references" not in entry.settings_with(spec.settings):
        entry(**settings)


def presets() -> dict[str, str]:
    """Return the plans of the package as TOML, by name."""
    folder = resources.files(__package__) / "presets"
    files = sorted(folder.iterdir(), key=lambda file: file.name)
    return {file.name.removesuffix(".toml"): file.read_text(encoding="utf-8") for file in files}


def read_plan(
    text: str, overrides: Mapping[str, Any] | None = None, origin: str = "the plan"
) -> Plan:
    """Return a plan.

    Args:
        text: TOML.
        overrides: values that replace those of the text; tables are merged.
        origin: the name of the text in messages.

    Raises:
        UnilensError: the text is not TOML, or a key is unknown or has an invalid value; the
            message names the key.
    """
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnilensError(_shortened(f"expected {origin} to be TOML: {error}")) from error
    return make_plan(_merged(values, overrides or {}), origin)


def make_plan(values: Mapping[str, Any], origin: str = "the plan") -> Plan:
    """Return a plan from plain data; raise `UnilensError`, naming the invalid key."""
    try:
        return Plan.model_validate(values)
    except ValidationError as error:
        raise UnilensError(_shortened(f"{origin}: {_first(error)}")) from error
    except (RecursionError, OverflowError) as error:
        raise UnilensError(
            f"{origin}: expected plain values, got ones that are nested too deeply or too large"
        ) from error


def _shortened(message: str) -> str:
    """Return a message in one line, without the middle of a very long one."""
    line = one_line(message)
    half = _MAX_MESSAGE // 2
    return line if len(line) <= _MAX_MESSAGE else f"{line[:half]} … {line[-half:]}"


def read_plan_file(path: Path, overrides: Mapping[str, Any] | None = None) -> Plan:
    """Return the plan in a TOML file; see `read_plan`."""
    try:
        text = _read(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise UnilensError(f"could not read the plan {path}: {reason}") from error
    return read_plan(text, overrides, str(path))


def _read(path: Path) -> str:
    """Return the text of a regular file that is not larger than any plan."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
        raise OSError(errno.EINVAL, f"it is no file, or larger than {_MOST_BYTES // 2**20} MB")
    return path.read_text(encoding="utf-8")


def _merged(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, value in overrides.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if nested else value
    return merged


def _first(error: ValidationError) -> str:
    """Return the first error with its key."""
    (first, *others) = error.errors(include_url=False)
    key = ".".join(str(part) for part in first["loc"])
    cause = first.get("ctx", {}).get("error")
    if first["type"] == "extra_forbidden":
        owner = _owner(first["loc"])
        words = str(UnknownNameError("key", first["loc"][-1], owner))
    elif cause is not None:
        words = str(cause)
    else:
        words = f"{first['msg']}, got {reprlib.repr(first['input'])}"
    more = f" (and {len(others)} more)" if others else ""
    return f"{key}: {words}{more}" if key else f"{words}{more}"


def _owner(loc: tuple[int | str, ...]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {
        "data": _DataConfig,
        "engine": EngineConfig,
        "corruptions": CorruptionConfig,
    }
    tables = [part for part in loc[:-1] if isinstance(part, str)]
    return list((sections[tables[-1]] if tables else Plan).model_fields)


GROWING = ("models", "methods", "metrics")
"""The lists that may grow when a run is resumed."""


def check_resumable(before: Plan, now: Plan) -> None:
    """Raise unless a plan includes everything of an earlier one, so that its run can continue.

    Models, methods, metrics, corruptions and images may be added; the engine and the pictures may
    change.
    """
    for key in GROWING:
        gone = [name for name in getattr(before, key) if name not in getattr(now, key)]
        _refuse(key, f"{', '.join(gone)} left out", bool(gone))
    for key in ("settings", "target", "seed", "device", "dtype", "random_weights"):
        was, new = getattr(before, key), getattr(now, key)
        _refuse(key, f"was {was!r}, now {new!r}", was != new)
    for key in ("source", "labels", "split"):
        was, new = getattr(before.data, key), getattr(now.data, key)
        _refuse(f"data.{key}", f"was {was!r}, now {new!r}", was != new)
    gone = [
        condition for condition in before.data.conditions if condition not in now.data.conditions
    ]
    _refuse("data.corruptions", "some left out", bool(gone))
    was, new = before.data.limit, now.data.limit
    fewer = new is not None and (was is None or new < was)
    _refuse("data.limit", f"was {was}, now {new}", fewer)


def _refuse(key: str, difference: str, different: bool) -> None:
    require(
        not different,
        f"this run was made by another plan: {key}: {difference}; choose another folder with --out",
    )
