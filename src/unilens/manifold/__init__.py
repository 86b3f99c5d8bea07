"""Data manifolds: their tangent spaces, and the part of a map that lies within them."""

from .autoencoder import ConvAutoencoder
from .decoder import Coder, Decoder, jacobians
from .files import load_manifold, save_manifold
from .local import LocalPCA
from .naming import as_manifold, check_manifold_name
from .pca import PCA
from .tangent import Manifold, TangentSpace, check_manifold
from .transformations import Transformations

__all__ = [
    "PCA",
    "Coder",
    "ConvAutoencoder",
    "Decoder",
    "LocalPCA",
    "Manifold",
    "TangentSpace",
    "Transformations",
    "as_manifold",
    "check_manifold",
    "check_manifold_name",
    "jacobians",
    "load_manifold",
    "save_manifold",
]
