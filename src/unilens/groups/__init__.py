"""Groups of input values that belong together: columns, patches, superpixels.

`unilens.explain(groups=...)` and `unilens.evaluate(groups=...)` take integers, one for each value
of an input; these functions make some.
"""

from .make import columns, patches, superpixels

__all__ = ["columns", "patches", "superpixels"]
