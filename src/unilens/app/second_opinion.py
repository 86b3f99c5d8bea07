"""A second opinion: where three methods of different kinds agree, and a control beside them."""

from __future__ import annotations

from ..errors import require
from ..metrics.agreement import Agreement, agreement
from .jobs import Job
from .request import MethodRequest
from .service import ExplainService, Explanation

METHODS = ("uni_blur", "ig", "gradcam")
CONTROL = "edges"
"""The control: it sees the photograph and knows nothing of the model."""
CLEAR_LEAD = 0.1
"""By how much methods that agree overlap more than the control does: a convention of the page."""


def second_opinion(
    service: ExplainService, explanation: Explanation, job: Job
) -> tuple[Explanation, Agreement]:
    """Return the maps of the methods and the control, and how far they agree.

    Args:
        service: explains.
        explanation: whose photograph, model, target and seed are taken.
        job: counts the passes.

    Raises:
        UnilensError: fewer than two of the methods fit the model.
    """
    methods = tuple(MethodRequest(name=name) for name in (*METHODS, CONTROL))
    request = explanation.request.model_copy(update={"methods": methods})
    opinion = service.explain(explanation.photograph, request, job)
    found = [name for name in opinion.attributions if name != CONTROL]
    require(
        len(found) >= 2,
        f"expected two methods that fit the model, got {len(found)}: "
        + "; ".join(opinion.left_out.values()),
    )
    return opinion, agreement(opinion.attributions, controls=(CONTROL,))


def compared(found: Agreement) -> list[str]:
    """Return the names of the methods whose maps can be compared: no constant one can."""
    own = found.overlaps[0].diagonal().isfinite().tolist()
    names = zip(found.names, own, strict=True)
    return [name for name, defined in names if defined and name not in found.controls]


def conclusion(found: Agreement) -> str:
    """Return what the agreement of methods about one photograph says, as the end of a sentence."""
    overlap, control = float(found.overlap[0]), float(found.control_overlap[0])
    has_control = control == control
    lead = overlap - max(found.top, control if has_control else 0.0)
    if lead >= CLEAR_LEAD:
        return f"they agree, and on more than {'edges' if has_control else 'chance'}"
    if lead > 0:
        return "little more than that, so rely on no detail of a single map"
    return "no more than that, so the methods do not support each other"
