"""The page on several inputs and other libraries: its code runs and prints what it says."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "interop.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_the_code_of_the_page_runs_and_prints_what_it_says(capsys):
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    for block in blocks:
        exec(compile(block, "interop.md", "exec"), names)
    printed = capsys.readouterr().out
    said = re.findall(r"^(?:print.*  )?# (.*)$", "\n".join(blocks), re.MULTILINE)
    for line in said:
        assert re.split(r", over both|: the fall|, \.\.\.", line)[0] in printed
    assert len(said) == 11
