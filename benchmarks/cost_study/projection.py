"""Projection of measured costs to a large run: hours, memory, rows, and the first bottleneck."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pyarrow import parquet

from unilens.benchmark.runner import WRITE_AT, WRITE_EVERY
from unilens.benchmark.store import Store
from unilens.errors import require
from unilens.metrics import metrics
from unilens.specs import read_specs

from .config import PREPARED_BOTH, PREPARED_FORWARD
from .driver import DriverCost
from .scaling import Study

_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Workload:
    """A run to be projected.

    Attributes:
        images: how many.
        models: by name; None for those whose single passes were measured, or else the study's.
        methods: as in the configuration; None for all of them.
        metrics: as in a plan; empty for maps only.
        devices: that run in parallel, each on its own images.
        speed_up: of a device over the measured one: a core where models ran on a CPU, else the
            device; None for 1.
    """

    images: int = 50_000
    models: tuple[str, ...] | None = None
    methods: tuple[str, ...] | None = None
    metrics: tuple[str, ...] = ()
    devices: int = 1
    speed_up: float | None = None

    def __post_init__(self) -> None:
        for name in ("images", "devices"):
            value = getattr(self, name)
            require(value >= 1, f"expected {name} to be at least 1, got {value}")
        require(
            self.speed_up is None or self.speed_up > 0,
            f"expected speed_up to be above 0, got {self.speed_up}",
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """The available resources; choices, not measurements.

    Attributes:
        hours: for the whole run.
        resume_hours: until a resumed run knows which rows exist.
        driver_bytes: of the process that writes.
        worker_bytes: of each that computes.
        disk_bytes: of the run's folder; None for no limit.
    """

    hours: float
    resume_hours: float
    driver_bytes: float
    worker_bytes: float
    disk_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """A resource that a run needs, and its limit.

    Attributes:
        what: in words.
        need: of the workload.
        limit: available.
        unit: of both.
        images: the number at which the limit is reached; None where it does not depend on them.
        remedy: in words.
    """

    what: str
    need: float
    limit: float
    unit: str
    images: float | None
    remedy: str

    @property
    def share(self) -> float:
        """The need as a fraction of the limit: above 1 the run breaks."""
        return self.need / self.limit


@dataclass(frozen=True, slots=True)
class Projection:
    """The projected costs of a workload.

    Attributes:
        map_hours: of one device like the measured one, by model and method, maps only.
        metric_hours: likewise for all metrics of all maps, by model.
        unknown: models and methods without a measurement; they count as 0.
        hours: of the whole run, on all devices.
        worker_bytes: the largest memory of a measured worker; None where none was measured.
        rows: in all.
        shards: the smallest number of files that they are written to.
        row_bytes: of one row on disk; None without a run.
    """

    map_hours: dict[tuple[str, str], float]
    metric_hours: dict[str, float]
    unknown: list[tuple[str, str]]
    hours: float
    worker_bytes: int | None
    rows: int
    shards: int
    row_bytes: float | None

    @property
    def device_hours(self) -> float:
        """Hours of one device like the measured one."""
        return sum(self.map_hours.values()) + sum(self.metric_hours.values())

    @property
    def disk_bytes(self) -> float | None:
        """Bytes of the run's folder."""
        return None if self.row_bytes is None else self.rows * self.row_bytes

    @property
    def metrics_share(self) -> float:
        """The share of the metrics in all hours."""
        return sum(self.metric_hours.values()) / (self.device_hours or 1.0)

    def share_of(self, method: str) -> float:
        """Return a method's share in the hours of all maps."""
        mine = sum(hours for (_, one), hours in self.map_hours.items() if one == method)
        return mine / (sum(self.map_hours.values()) or 1.0)


def project(study: Study, workload: Workload, run: Store | None = None) -> Projection:
    """Project the costs of a workload from a cost study.

    A map costs its value at the centre, with the configured or default number of steps; under a
    model whose maps were not measured, the same number of prepared passes. The cost of a metric is
    its passes times that of a prepared pass, plus the maps that it computes itself. Loading models
    and starting workers are left out.

    Args:
        study: the measurements.
        workload: the run to project.
        run: a benchmark run, whose rows give the bytes of one on disk.
    """
    models = workload.models or study.config.also or study.config.models
    chosen = workload.methods or study.config.methods
    seconds = {
        (model, method): study.seconds_of_map(model, method)
        for model in models
        for method in chosen
    }
    known = {place: value for place, value in seconds.items() if value is not None}
    in_hours = workload.images / _HOUR
    maps = {place: value * in_hours for place, value in known.items()}
    judging = {
        model: in_hours * _seconds_of_metrics(study, model, workload.metrics, known)
        for model in models
    }
    speed = workload.devices * (workload.speed_up or 1.0)
    hours = (sum(maps.values()) + sum(judging.values())) / speed
    results = workload.images * len(models)
    rows = results * len(chosen) * max(1, len(workload.metrics))
    return Projection(
        maps,
        judging,
        [place for place, value in seconds.items() if value is None],
        hours,
        _worker_bytes(study, models),
        rows,
        _shards(rows, results, hours),
        None if run is None else bytes_per_row(run),
    )


def _seconds_of_metrics(
    study: Study,
    model: str,
    names: Sequence[str],
    maps: dict[tuple[str, str], float],
) -> float:
    """Return the seconds of all metrics of all maps of one image under a model."""
    forward = study.pass_seconds(model, PREPARED_FORWARD)
    both = study.pass_seconds(model, PREPARED_BOTH)
    own = [value for (one, _), value in maps.items() if one == model]
    if not own or forward is None or both is None:
        return 0.0
    total = 0.0
    for spec in read_specs(metrics, list(names)).values():
        measure = metrics[spec.name](**spec.settings)
        alone = max(0, measure.passes.forward - measure.passes.backward)
        each = alone * forward + measure.passes.backward * both
        total += each * len(own) + measure.explanations * sum(own)
    return total


def _worker_bytes(study: Study, models: Sequence[str]) -> int | None:
    """Return the largest memory of a process under the models, or under the study's own."""
    models_of_workload = {*models, *study.config.models}
    found = [
        row["before_bytes"] + row["memory_bytes"]
        for row in study.rows
        if row["model"] in models_of_workload
        and row.get("memory_bytes") is not None
        and row["resolution"] == study.config.centre.resolution
    ]
    return max(found, default=None)


def _shards(rows: int, results: int, hours: float) -> int:
    """Return the number of files: full ones, or one per write interval."""
    by_time = min(results, hours * _HOUR / WRITE_EVERY)
    return math.ceil(max(rows / WRITE_AT, by_time))


def bytes_per_row(run: Store) -> float:
    """Return the mean bytes on disk of a run's row, without its picture.

    The number of pictures does not grow with the run.
    """
    rows, taken = 0, 0
    for path in run.shards:
        shard = parquet.read_metadata(path)
        rows += shard.num_rows
        taken += path.stat().st_size - _bytes_of_pictures(shard)
    require(rows > 0, f"expected rows in {run.folder}, got none yet")
    return taken / rows


def _bytes_of_pictures(shard: parquet.FileMetaData) -> int:
    groups = [shard.row_group(number) for number in range(shard.num_row_groups)]
    columns = [group.column(k) for group in groups for k in range(group.num_columns)]
    return sum(one.total_compressed_size for one in columns if one.path_in_schema == "picture")


def bottlenecks(
    projection: Projection, workload: Workload, driver: DriverCost, limits: Limits
) -> list[Bottleneck]:
    """Return the resources that a workload needs, by share of their limit, largest first."""
    rows, shards = projection.rows, projection.shards
    reading = (rows * driver.key_seconds + shards * driver.shard_seconds) / _HOUR
    dearest = max(
        {method for _, method in projection.map_hours}, key=projection.share_of, default="nothing"
    )
    share = projection.share_of(dearest)
    needs = [
        (
            f"time: metrics are {projection.metrics_share:.0%} of it, {dearest} is {share:.0%} of "
            "the maps'",
            *(projection.hours, limits.hours, "hours"),
            f"more devices; metrics that make maps anew, and {dearest}, on a part of the images; "
            f"fewer steps of {dearest}",
        ),
        (
            "memory of the driver: the keys of all rows, when a run is resumed",
            *(rows * driver.key_bytes, limits.driver_bytes, "bytes"),
            "one run per model or per part of the images",
        ),
        (
            "memory of the driver: the digest of all rows",
            *(rows * driver.digest_bytes, limits.driver_bytes, "bytes"),
            "one run per model or per part of the images",
        ),
        (
            "time to resume: all shards are opened and their keys read",
            *(reading, limits.resume_hours, "hours"),
            "one run per model or per part of the images; or shards written together now and then",
        ),
    ]
    if projection.disk_bytes is not None and limits.disk_bytes is not None:
        needs.append(
            (
                "disk",
                *(projection.disk_bytes, limits.disk_bytes, "bytes"),
                "a larger disk, or fewer pictures and curves",
            )
        )
    found = [
        Bottleneck(
            what, need, limit, unit, workload.images * limit / need if need else None, remedy
        )
        for what, need, limit, unit, remedy in needs
    ]
    if projection.worker_bytes is not None:
        found.append(
            Bottleneck(
                "memory of a worker, of those that were measured",
                projection.worker_bytes,
                limits.worker_bytes,
                "bytes",
                None,
                "fewer workers per machine",
            )
        )
    return sorted(found, key=lambda need: -need.share)
