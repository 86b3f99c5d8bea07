"""Edge controls: similarity of the map with images made without the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ..._ops.luminance import check_pictures, edges, grey
from ..._validation.settings import one_of
from ..comparison import Comparison
from ..context import EvalContext
from ..measurement import Measurement
from ..registry import metrics
from ..similarities import Similarity, Spearman

CONTROLS: dict[str, Callable[[Tensor], Tensor]] = {"edges": edges, "grey": grey}


@dataclass(frozen=True)
class EdgeControl(Comparison):
    """Compare the map with the edges of the picture, or with its grey copy.

    |similarity( A(x), control(x) )|. Low is good, but no proof: a model that looks at edges has
    maps with edges. The absolute value, since a map that is strong where the picture is dark or
    flat is the picture just as well; `breakdown` has the value with its sign. NaN for a picture
    without contrast. Pictures are in pixels; the normalisation belongs inside the model.

    Args:
        similarity: compares two maps; by default rank correlation of absolute values.
        control: "edges", the Sobel magnitude of the luminance, or "grey", the luminance itself.

    References:
        Adebayo et al. 2018, arXiv 1810.03292 (the comparison with an edge detector).
    """

    family = "sanity"
    reference = "Adebayo et al. 2018, arXiv 1810.03292"
    higher_is_better = False
    bounds = (0, 1)
    undefined_where = "the picture has no contrast"

    similarity: Similarity = Spearman("abs")  # noqa: RUF009 - it is frozen
    control: Annotated[str, one_of(CONTROLS)] = "edges"

    def _measure(self, context: EvalContext) -> Measurement:
        check_pictures(
            context.inputs,
            "what has no grey copy and no edges needs another metric of sanity, such as "
            "random_logit",
        )
        picture = CONTROLS[self.control](context.inputs)
        lowest = picture.flatten(1).amin(1).view(-1, 1, 1)
        over_channels = (picture - lowest).unsqueeze(1).expand_as(context.inputs)
        signed = self._similarity(context.values, over_channels)
        return Measurement(signed.abs(), {"signed": signed}, {"picture": picture})


metrics.add_metric(
    "edge_similarity",
    EdgeControl,
    settings={"control": "edges", "reduction": "abs"},
    summary="similarity with the edges of the image, whatever its sign",
)
metrics.add_metric(
    "grey_similarity",
    EdgeControl,
    settings={"control": "grey", "reduction": "abs"},
    summary="similarity with a grey copy of the image, whatever its sign",
)
