"""Every block of code of the README and the pages runs, as it stands, or says why it does not.

A block that cannot run here has the title "Not run by the tests: REASON", which readers see too. A
block whose title is a file's name is written to that file first. What a page needs beside that, and
what its code is asked afterwards, stands in `ABOUT`; there is no other place that runs a page.
"""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy
import pytest
import torch
from PIL import Image

import unilens
from unilens import cli
from unilens.models import samples

from ..conftest import forget_modules_here
from ..match_models import clip_processor, tiny_clip
from ..text_models import tiny_bert, tiny_language_model, tiny_tokenizer

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN = "Not run by the tests: "
FENCE = re.compile(
    r'^```(?:(\w+)(?: title="([^"]+)")?)?[^\S\n]*\n(.*?)^```$', re.MULTILINE | re.DOTALL
)
PLAN = """
methods = ["gradient", "random"]
metrics = ["deletion_auc"]
[data]
source = "photos"
"""


def check_readme(names: Mapping[str, object], printed: str) -> None:
    assert "torch.Size([1, 3, 224, 224])" in printed
    assert names["attribution"].target.tolist() == [285]  # Egyptian cat
    assert names["faithful"].shape == (1,)


def put_text_model(folder: Path) -> None:
    """Save a text classifier where the page says NAME-OR-FOLDER: no hub is asked."""
    place = folder / "NAME-OR-FOLDER"
    tiny_bert().save_pretrained(place)
    tiny_tokenizer().save_pretrained(place)


def check_text(names: Mapping[str, object], printed: str) -> None:
    tokens = names["explanation"].tokens
    assert tokens.words[:2] == ("The", "soup")
    assert tokens.names[:2] == ("the", "[UNK]")  # as the saved tokenizer has it, not an empty one
    assert "soup" in printed
    assert names["fidelity"].shape == (1,)
    assert {path.suffix for path in Path("unilens-out").iterdir()} == {".html", ".json"}


def put_language_model(folder: Path) -> None:
    """Save a language model where the page says NAME-OR-FOLDER."""
    place = folder / "NAME-OR-FOLDER"
    tiny_language_model("GPT2").save_pretrained(place)
    tiny_tokenizer(special=False).save_pretrained(place)


def check_generation(names: Mapping[str, object], printed: str) -> None:
    attribution = names["attribution"]
    assert attribution.prompt.names[:2] == ("the", "film")
    assert len(attribution.continuation.names) == 5
    assert names["contrast"].against == ("bad",)
    assert names["matrix"].columns.labels[:3] == ("the", "film", "was not")
    assert "5 generated tokens" in printed
    assert {path.suffix for path in Path("unilens-out").iterdir()} == {".html", ".json"}


def put_image_text_model(folder: Path) -> None:
    """Save a model of images and texts where the page says NAME-OR-FOLDER: no hub is asked."""
    tiny_clip().float().save_pretrained(folder / "NAME-OR-FOLDER")
    clip_processor().save_pretrained(folder / "NAME-OR-FOLDER")


def check_matching(names: Mapping[str, object], printed: str) -> None:
    assert "torch.Size([1, 3, 32, 32])" in printed
    assert names["match"].text.tokens.words[:2] == ("a", "cat")
    assert names["match"].text.attribution.provenance["method"] == "occlusion"
    assert {path.suffix for path in Path("unilens-out").iterdir()} == {".html", ".json"}


def put_slice(folder: Path) -> None:
    """Save CT numbers as a picture."""
    numbers = numpy.random.default_rng(0).integers(-1000, 1001, (60, 80), dtype=numpy.int32)
    Image.fromarray(numbers).save(folder / "slice.tif")


def check_slice(names: Mapping[str, object], printed: str) -> None:
    expected = ((names["slice_"] + 160) / 400).clip(0, 1) * 255
    assert abs(numpy.asarray(names["soft_tissue"])[..., 0] - expected).max() <= 0.51
    assert names["pixels"].shape == (3, 224, 224)
    assert Path("unilens-out/slice.png").exists()


class About(NamedTuple):
    """What is known of a page beside its text.

    Attributes:
        left_out: how many of its blocks do not run.
        says: how many of its prints are followed by a comment of what they print; if any is, all.
        put: puts what the page speaks of into its folder.
        check: of the names that its Python leaves, and of what it printed.
        ignore: warnings of other libraries.
    """

    left_out: int = 0
    says: int = 0
    put: Callable[[Path], None] = lambda folder: None
    check: Callable[[Mapping[str, object], str], None] = lambda names, printed: None
    ignore: tuple[str, ...] = ()


ABOUT = {
    "README.md": About(left_out=2, check=check_readme),
    "agents.md": About(says=9),
    "app.md": About(left_out=3),
    "audit.md": About(left_out=1),
    "benchmark.md": About(left_out=1),
    "beyond.md": About(left_out=2),
    "citing.md": About(says=1),
    "controls.md": About(left_out=1),
    "manifold.md": About(left_out=1),
    "interop.md": About(says=11, ignore=("ignore::UserWarning", "ignore::DeprecationWarning")),
    "generation.md": About(put=put_language_model, check=check_generation),
    "matching.md": About(put=put_image_text_model, check=check_matching),
    "recommend.md": About(left_out=1),
    "reproduce.md": About(left_out=1),
    "photographs.md": About(put=put_slice, check=check_slice),
    "start.md": About(left_out=1),
    "text.md": About(put=put_text_model, check=check_text),
    "truth.md": About(left_out=1),
}
"""The pages of which there is something to know."""
SAID = re.compile(r"\bprint\(.*\)(?:  |\n)# (.*)$", re.MULTILINE)


class Block(NamedTuple):
    language: str
    title: str
    code: str


def blocks_of(page: Path) -> list[Block]:
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [Block(*fence) for fence in found]


def about(page: Path) -> About:
    return ABOUT.get(page.name, About())


def run_blocks(page: Path) -> list[Block]:
    return [block for block in blocks_of(page) if not block.title.startswith(NOT_RUN)]


@pytest.fixture(scope="module")
def model():
    return unilens.load_model()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder with what the pages speak of: photographs, a plan, an environment."""
    (tmp_path / "photos").mkdir()
    for place in ("photo.jpg", "cat.jpg", "photos/cat.jpg"):
        samples["chelsea"]().save(tmp_path / place)
    (tmp_path / "PLAN.toml").write_text(PLAN, encoding="utf-8")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines_of(code: str) -> list[str]:
    """Return the commands of a block, one each."""
    return code.replace("\\\n", " ").splitlines()


def shell(code: str) -> None:
    """Run a block of commands; the first that fails ends it.

    Those of unilens run in this process, without another start; the README's, which name the
    environment, as a reader runs them.
    """
    if all(line.startswith("unilens ") for line in lines_of(code)):
        for line in lines_of(code):
            command(shlex.split(line))
    else:
        in_bash(code)


def command(words: list[str]) -> None:
    """Run a command of unilens in this process."""
    forget_modules_here()
    printed = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")
        patch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert not ended.value.code, f"{words}\n{printed.getvalue()}"


def in_bash(code: str) -> None:
    path = f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
    )
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


def run(block: Block, names: dict[str, object], page: Path) -> None:
    if block.language == "python":
        exec(compile(block.code, page.name, "exec"), names)
    elif block.language in ("sh", "bash"):
        shell(block.code)
    elif block.language == "toml":  # a plan of the benchmark
        Path("page.toml").write_text(block.code, encoding="utf-8")
        shell("unilens benchmark page.toml --dry-run")


def with_marks(page: Path) -> object:
    marks = [pytest.mark.filterwarnings(rule) for rule in about(page).ignore]
    return pytest.param(page, marks=marks, id=page.name)


@pytest.mark.parametrize("page", [with_marks(page) for page in PAGES])
def test_the_blocks_of_a_page_run_one_after_the_other(page, model, folder):
    blocks = run_blocks(page)
    images = torch.stack([model.preprocess(samples["chelsea"]())])
    names = {"torch": torch, "unilens": unilens, "model": model, "images": images}
    about(page).put(folder)
    printed = io.StringIO()
    with registries_as_they_were(), contextlib.redirect_stdout(printed):
        for block in blocks:
            if re.fullmatch(r"[\w-]+\.\w+", block.title):
                (folder / block.title).write_text(block.code, encoding="utf-8")
            run(block, names, page)
    about(page).check(names, printed.getvalue())
    said = [line for block in blocks if about(page).says for line in SAID.findall(block.code)]
    assert len(said) == about(page).says
    assert [line for line in said if line.removesuffix("...") not in printed.getvalue()] == []


@contextlib.contextmanager
def registries_as_they_were():
    """Take away again what a page has registered."""
    from unilens.methods import methods
    from unilens.metrics import metrics
    from unilens.paths import paths
    from unilens.weightings import weightings

    registries = (methods, metrics, paths, weightings)
    before = [(registry, dict(registry._entries)) for registry in registries]
    try:
        yield
    finally:
        for registry, entries in before:
            registry._entries = entries


def test_nothing_is_known_of_pages_that_are_not_there():
    assert set(ABOUT) <= {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_does_not_run_is_counted_and_says_why(page):
    text = page.read_text(encoding="utf-8")
    blocks = blocks_of(page)
    assert len(re.findall(r"^ *(```|~~~)", text, re.MULTILINE)) == 2 * len(blocks)
    assert all(block.language in ("python", "sh", "bash", "toml", "bibtex") for block in blocks)
    left_out = [block for block in blocks if block.title.startswith(NOT_RUN)]
    assert len(left_out) == about(page).left_out
    assert all(len(block.title.removeprefix(NOT_RUN)) > 20 for block in left_out)


def test_bash_is_there():
    assert shutil.which("bash")
