"""Methods of unilens as classes of captum, and methods of captum in unilens.

The classes here are captum's `Attribution`, so that its `NoiseTunnel`, `infidelity` and
`sensitivity_max` work on them; `CaptumMethod` makes any method of captum one of unilens.
"""

try:
    import captum.attr  # noqa: F401
except ImportError as error:
    raise ImportError(
        "expected captum 0.9 or newer, which is not installed; run pip install 'unilens[compare]'"
    ) from error

from .classes import (
    AGI,
    IDG,
    IDGI,
    IG,
    IG2,
    MFABA,
    SIG,
    UNI,
    BlurIG,
    FRInGeB,
    GuidedIG,
    UNIBlur,
    UnilensAttribution,
    UNIPaper,
)
from .method import CaptumMethod

__all__ = [
    "AGI",
    "IDG",
    "IDGI",
    "IG",
    "IG2",
    "MFABA",
    "SIG",
    "UNI",
    "BlurIG",
    "CaptumMethod",
    "FRInGeB",
    "GuidedIG",
    "UNIBlur",
    "UNIPaper",
    "UnilensAttribution",
]
