import pytest

from .by_hand import PICTURES


@pytest.fixture
def pictures():
    return PICTURES.double()
