import doctest
import pkgutil
from importlib import import_module

import pytest

import unilens


@pytest.mark.slow
def test_examples_in_docstrings():
    attempted = 0
    for module in pkgutil.walk_packages(unilens.__path__, "unilens."):
        result = doctest.testmod(import_module(module.name))
        assert result.failed == 0, module.name
        attempted += result.attempted
    assert attempted >= 10
