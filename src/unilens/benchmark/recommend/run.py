"""`unilens.recommend`: a race of the methods that fit a model, within some minutes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from torch import Tensor, nn

from ..._validation.inputs import check_seed
from ...errors import UnilensError, require
from ...provenance import describe
from ..plan import Plan
from ..store import Store, folder_lock
from ..work import Workbench, as_json
from .commands import Commands
from .measured import EarlierRun, Measured
from .purposes import candidates, check_methods
from .race import ProgressCallback, Race
from .recommendation import Recommendation, recommendation_of
from .source import source_of

_RESERVE, _RESERVED_SHARE = 2.0, 0.02
"""Seconds, and share of the budget, for the verdicts at the end."""


def recommend(
    model: str | nn.Module,
    images: str | Path | Tensor,
    *,
    minutes: float = 5.0,
    methods: Sequence[str] | None = None,
    folder: str | Path | Callable[[Plan], Path] | None = None,
    earlier: Sequence[str | Path] = (),
    seed: int = 0,
    device: str = "cpu",
    random_weights: bool = False,
    on_progress: ProgressCallback = lambda share, current: None,
) -> Recommendation:
    """Race the methods that fit a model, and say which to use for which purpose.

    All methods explain a few photographs, the better half of them some more, and the finalists and
    two controls, which do not depend on the model, as many as the time allows. Purposes: find the
    region (insertion minus deletion, of cells, blurred), rank pixels (MuFidelity), stay stable
    (under noise), be cheap. Photographs that choose finalists do not test them.

    Args:
        model: a name, as `unilens.load_model` takes it; or a module from `(B, C, H, W)` to logits
            `(B, K)`, in eval mode, which is not changed.
        images: a folder of photographs, or another source of `unilens benchmark`; or a tensor
            `(B, C, H, W)` as the model takes it. Of a module, a folder needs a `PixelClassifier`.
        minutes: of wall time, loading included.
        methods: that race, as on the command line; None for all that fit. The controls `random`
            and `edges` always race.
        folder: keeps the rows, and goes on where an earlier call with the same arguments stopped;
            None keeps none. A function gets the plan and returns the folder. It takes names and
            folders, not modules and tensors.
        earlier: folders of other runs of the same model, whose rows of the same photographs and
            settings are taken.
        seed: of everything random.
        device: where a model given by name runs.
        random_weights: whether a model given by name is untrained.
        on_progress: called with the share of the time that is spent, and what is being done.

    Returns:
        The verdicts by purpose, with their tests, and a table of all methods.

    Raises:
        UnilensError: no method fits the model, no photograph can be read, the folder holds another
            run, or an argument does not fit.

    Example:
        >>> import torch, unilens
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3)).eval()
        >>> images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> unilens.recommend(model, images, methods=["ig"], minutes=1).best("region") is None
        True
    """
    began = time.monotonic()
    check_seed(seed)
    require(
        isinstance(minutes, (int, float)) and 0 < minutes < 1e6,
        f"expected minutes above 0, got {minutes!r}",
    )
    source = source_of(model, images, device, random_weights, keeps=folder is not None)
    chosen = candidates(source.side) if methods is None else check_methods(list(methods))
    require(bool(chosen), "expected methods that are no controls, which race anyway; got none")
    plan = source.plan(chosen, seed, device)
    place = folder(plan) if callable(folder) else None if folder is None else Path(folder)
    with nullcontext() if place is None else folder_lock(place):
        store = None if place is None else Store.create(place, plan, len(source.items))
        if store is not None:
            store.clean()
            store.index()  # sets broken files aside
        measured = Measured(store)
        workbench = Workbench(plan, {source.name: source.classifier})
        race = Race(
            workbench,
            source.name,
            source.items,
            chosen,
            began + 60 * minutes * (1 - _RESERVED_SHARE) - _RESERVE,
            measured,
            _earlier_runs(earlier, plan, workbench),
            on_progress,
            began,
        )
        race.run()
    commands = Commands(source, minutes, seed, methods)
    return recommendation_of(
        race,
        commands.of,
        model=source.shown,
        data=source.data,
        known=measured.known,
        minutes=float(minutes),
        seconds=time.monotonic() - began,
        seed=seed,
    )


def _earlier_runs(
    folders: Sequence[str | Path], plan: Plan, workbench: Workbench
) -> list[EarlierRun]:
    """Return other runs, whose rows are found by the settings of method and metric."""
    if not folders:
        return []
    (model,) = plan.models
    explainers = workbench.load(model).explainers
    methods = {
        as_json(describe(explainer)): name
        for name, explainer in explainers.items()
        if not isinstance(explainer, UnilensError)
    }
    metrics = {settings: name for name, settings in workbench.metric_settings.items()}
    return [
        EarlierRun(
            Path(folder),
            model=model,
            seed=plan.seed,
            dtype=plan.dtype,
            random_weights=plan.random_weights,
            methods=methods,
            metrics=metrics,
        )
        for folder in folders
    ]
