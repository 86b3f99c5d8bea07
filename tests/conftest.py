"""Small models and inputs that every test can compute by hand or slowly."""

import os
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from unilens import cli

TESTS = Path(__file__).parent


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep the tests of the page on one process: two browsers at once lose clicks."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return "app" if "tests/app/" in nodeid else super()._split_scope(nodeid)

    return ByFile(config, log)


SLOW_FOLDERS = {"app", "benchmarks", "docs", "packaging"}
"""Every test in them needs a browser, a page of code, a script or an environment."""


def pytest_collection_modifyitems(items):
    """Mark the tests of slow folders."""
    for item in items:
        if SLOW_FOLDERS & set(item.path.parts[len(TESTS.parts) : -1]):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Spell out what is no UTF-8 in what a test has printed: it is sent between processes."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report


def pytest_configure(config):
    """Give each of several processes one thread: together they have no more cores."""
    if hasattr(config, "workerinput"):
        torch.set_num_threads(1)
        os.environ["OMP_NUM_THREADS"] = "1"


class SmallNet(nn.Module):
    """Two convolutions with batch norms whose statistics are not trivial, and a linear head."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 12, 3, groups=4)
        self.bn2 = nn.BatchNorm2d(12)
        self.head = nn.Linear(12, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.tanh(self.bn1(self.conv1(inputs)))
        hidden = torch.relu(self.bn2(self.conv2(hidden)))
        return self.head(4 * hidden.mean((2, 3)))


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every weight and statistic a random value, and return the model in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if not value.is_floating_point():
                continue
            drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            value.copy_(0.5 + drawn.abs() if "var" in name else 0.4 * drawn)
    return model.eval()


@pytest.fixture(autouse=True)
def _same_numbers():
    """Draw the same numbers in every run: a test that fails for one draw in many fails here."""
    torch.manual_seed(0)


torch.manual_seed(0)  # for what modules draw when they are loaded


@pytest.fixture
def small_net() -> nn.Module:
    return randomise(SmallNet().double())


@pytest.fixture
def images() -> Tensor:
    return torch.rand(8, 3, 13, 11, generator=torch.Generator().manual_seed(1)).double()


@pytest.fixture
def linear() -> nn.Module:
    """Logits W x + b of flattened inputs (B, 2, 3)."""
    return randomise(nn.Sequential(nn.Flatten(), nn.Linear(6, 4)).double(), seed=3)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def forget_modules_here():
    """Have a command import what stands in the current folder, not a namesake of before."""
    for path in Path().glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def command(monkeypatch, capsys):
    """Run the command line in this process: what it ends with, prints and complains of."""
    monkeypatch.setenv("COLUMNS", "300")

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["unilens", *map(str, arguments)])
        forget_modules_here()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return command


@pytest.fixture
def run(command, monkeypatch, tmp_path):
    """Run the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return command
