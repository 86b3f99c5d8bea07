"""What a cost study varies: one factor at a time about a centre."""

from __future__ import annotations

import tomllib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, NamedTuple, cast

from pydantic import BaseModel, Field

from unilens.methods import methods
from unilens.registry import Registry
from unilens.specs import Spec, read_specs

Size = Annotated[int, Field(ge=1)]
Sizes = Annotated[tuple[Size, ...], Field(min_length=1)]
Names = Annotated[tuple[str, ...], Field(min_length=1)]

FORWARD, BOTH = "bare forward", "bare forward and backward"
PREPARED_FORWARD, PREPARED_BOTH = "prepared forward", "prepared forward and backward"
YARDSTICKS = (FORWARD, BOTH, PREPARED_FORWARD, PREPARED_BOTH)
"""Stand in the place of a method where only the model is run: bare, as its library returns it, or
prepared, as `Evaluator` runs it."""

STEP_SETTINGS = ("n_samples", "n_masks", "designs", "classes", "n_steps")
"""The settings that determine how often a method runs the model: the first that a method has counts
as its number of steps."""
EXTENDABLE = ("models", "methods", "resolutions", "n_steps", "batches", "also")
"""The settings that may change when a study is continued."""


class Centre(BaseModel, extra="forbid", frozen=True):
    """The fixed values of the other factors while one is varied.

    Attributes:
        resolution: height and width in pixels.
        n_steps: steps of a path, or the setting that replaces it; see `STEP_SETTINGS`.
        batch: images per call.
    """

    resolution: Size = 224
    n_steps: Size = 4
    batch: Size = 1


class UnitKey(NamedTuple):
    """One measurement: what is run, and at which sizes; `n_steps` is None without steps."""

    model: str
    method: str
    resolution: int
    n_steps: int | None
    batch: int


class CostConfig(BaseModel, extra="forbid", frozen=True):
    """The models and methods whose costs are measured, and at which sizes.

    One factor is varied at a time while the others stay at the centre: the number of measurements
    is the sum, not the product, of the lists' lengths. Interactions of two factors are not
    measured; that costs multiply is an assumption of the projection.

    Attributes:
        models: names as `unilens.load_model` takes them.
        methods: as on the command line, `ig:baseline=blur`.
        settings: applied to every method that has a setting of that name.
        resolutions: height and width in pixels.
        n_steps: steps of a path, or the setting that replaces it; see `STEP_SETTINGS`.
        batches: images per call.
        centre: the fixed values of the other factors while one is varied.
        repeats: calls per measurement, after one warm-up call; fast calls are repeated more often.
        seconds: after which a measurement is not repeated.
        also: models of which only single passes are measured, at the centre and with random
            weights: the costs of maps carry over in multiples of prepared passes.
        device: where models run, such as `cpu` or `cuda`.
        dtype: of the models, `float32` or `float64`.
        threads: of torch.
        random_weights: whether the models are untrained, which needs no download.
        seed: of everything random.
    """

    models: Names = ("efficientnet_lite0",)
    methods: Names = ("uni_blur", "ig")
    settings: dict[str, Any] = {}
    resolutions: Sizes = (112, 160, 224, 320)
    n_steps: Sizes = (2, 4, 8, 16)
    batches: Sizes = (1, 2, 4)
    centre: Centre = Centre()
    repeats: int = Field(default=3, ge=1)
    seconds: float = Field(default=5.0, ge=0)
    also: tuple[str, ...] = ()
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = Field(default=1, ge=1)
    random_weights: bool = False
    seed: int = 0

    @cached_property
    def method_specs(self) -> dict[str, Spec]:
        """The methods with their settings, by name in the configuration."""
        return read_specs(cast(Registry[Any], methods), list(self.methods), self.settings)

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """The resolutions and batches, the centre's first."""
        centre = self.centre
        pairs = [(centre.resolution, centre.batch)]
        pairs += [(resolution, centre.batch) for resolution in self.resolutions]
        pairs += [(centre.resolution, batch) for batch in self.batches]
        return list(dict.fromkeys(pairs))

    def steps_at(self, resolution: int, batch: int) -> list[int]:
        """Return the numbers of steps: several at the centre, the centre's own elsewhere."""
        centre = self.centre
        if (resolution, batch) != (centre.resolution, centre.batch):
            return [centre.n_steps]
        return list(dict.fromkeys([centre.n_steps, *self.n_steps]))

    def step_setting(self, method: str) -> str | None:
        """Return the setting that is a method's number of steps; None where it has none."""
        spec = self.method_specs.get(method)
        if spec is None:
            return None
        return next((name for name in STEP_SETTINGS if name in methods[spec.name].settings), None)

    def usual_steps(self, method: str) -> int | None:
        """Return the number of steps that is asked of a method, or its default."""
        setting = self.step_setting(method)
        if setting is None:
            return None
        spec = self.method_specs[method]
        return int(spec.settings.get(setting, methods[spec.name].settings[setting]))

    def unit_keys(self) -> list[UnitKey]:
        """Return all measurements in the order in which they are made.

        At each resolution and batch the single passes come first, so that the reference is
        measured while the machine is in the same state.
        """
        keys = []
        for model in self.models:
            for resolution, batch in self.shapes:
                keys += [UnitKey(model, name, resolution, None, batch) for name in YARDSTICKS]
                for method in self.methods:
                    has_steps = self.step_setting(method) is not None
                    steps = self.steps_at(resolution, batch) if has_steps else [None]
                    keys += [UnitKey(model, method, resolution, count, batch) for count in steps]
        at = self.centre
        for model in self.also:
            keys += [UnitKey(model, name, at.resolution, None, at.batch) for name in YARDSTICKS]
        return list(dict.fromkeys(keys))


def read_config(path: Path) -> CostConfig:
    """Return the configuration in a TOML file."""
    return CostConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
