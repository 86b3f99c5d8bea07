"""The benchmark of volumes measures every method that it names."""

import pytest

import volumes


@pytest.mark.parametrize("method", volumes.METHODS)
def test_measure_gives_memory_and_the_ratio_to_bare_passes(method):
    found = volumes.measure(method, side=16, threads=1)
    assert found["peak"] > 0.1
    assert found["seconds"] > 0
    assert 0 < found["ratio"] < 1000
