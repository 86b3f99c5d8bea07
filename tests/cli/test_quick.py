"""What answers before torch is loaded: help, lists, the version and bad arguments."""

import io
import re
import subprocess
import sys

import pytest
import typer
from rich.console import Console
from rich.text import Text

import unilens
from unilens.cli import output
from unilens.cli.app import app
from unilens.cli.listing import KINDS

RUN = (
    "import sys\n"
    "from unilens.cli import main\n"
    "try:\n    main()\n"
    "except SystemExit as ended:\n    code = ended.code or 0\n"
    "loaded = [name for name in ('torch', 'numpy', 'PIL', 'matplotlib') if name in sys.modules]\n"
    "print(' '.join(loaded))\n"
    "sys.exit(code)"
)
COMMANDS = (
    *("explain", "explain-text", "explain-table", "explain-match", "evaluate", "benchmark"),
    *("audit", "recommend", "reproduce", "report", "query", "app", "list", "doctor", "manifold"),
)
SAMPLE = ("explain", "--sample", "chelsea")
BAD = {
    "option": ((*SAMPLE, "--colour", "red"), "No such option: --colour"),
    "sample": (
        ("explain", "--sample", "chelsae"),
        "unknown sample 'chelsae'; did you mean chel",
    ),
    "file": (("explain", "nowhere.png"), "no such image: nowhere.png"),
    "method": ((*SAMPLE, "--method", "uno"), "unknown method 'uno'; did you mean uni?"),
    "setting": (
        (*SAMPLE, "--method", "uni:budgt=3"),
        "unknown setting of uni 'budgt'; did",
    ),
    "setting of a baseline": (
        (*SAMPLE, "--method", "ig:baseline=blur,sigm=3"),
        "unknown setting of ig 'sigm'; did you mean sigma",
    ),
    "shared setting": ((*SAMPLE, "--set", "nsteps=3"), "'nsteps'; did you mean n_steps"),
    "baseline": (
        (*SAMPLE, "--method", "ig:baseline=blurr"),
        "unknown baseline 'blurr'; did you mean blur",
    ),
    "model": (
        (*SAMPLE, "--model", "resnet50"),
        "unknown model 'resnet50'; did you mean timm:resnet50 or torchvision:resnet50?",
    ),
    "metric": (
        ("evaluate", "--sample", "chelsea", "--metric", "mufidelity"),
        "unknown metric 'mufidelity'; did you mean mu_fidelity",
    ),
    "metric's setting": (
        ("evaluate", "--sample", "chelsea", "--metric", "mu_fidelity:cell=3"),
        "unknown setting of mu_fidelity 'cell'; did you mean cells",
    ),
    "style": ((*SAMPLE, "--style", "red"), "unknown style 'red'. Valid: signed, unsigned, green."),
    "score": ((*SAMPLE, "--score", "logits"), "unknown score 'logits'; did you mean logit"),
    "outputs": ((*SAMPLE, "--outputs", "logit"), "unknown outputs 'logit'; did you mean logits"),
    "range": ((*SAMPLE, "--range", "5,1"), "expected --range LOW,HIGH, two numbers, the smaller"),
    "unit": (
        ("explain-text", "words", "--model", "hf:x", "--by", "sentence"),
        "unknown unit 'sentence'. Valid: word, token.",
    ),
    "unit of a generated text": (
        ("explain-text", "words", "--model", "hf:x", "--generate", "2", "--by", "letter"),
        "unknown unit of a generated text 'letter'. Valid: token, word, sentence.",
    ),
    "mask": (
        ("evaluate", "--sample", "chelsea", "--metric", "pointing_game"),
        "pointing_game needs to know where the object is; pass --mask",
    ),
    "benchmark's method": (("benchmark", "--method", "uno"), "unknown method 'uno'"),
    "benchmark's model": (("benchmark", "--model", "lite0,resnet50"), "unknown model 'lite0'"),
    "method of texts": (
        ("explain-text", "words", "--model", "hf:x", "--method", "gradcam"),
        "unknown method 'gradcam'",
    ),
    "table": (
        ("explain-table", "py:a:b", "nowhere.csv"),
        "could not read nowhere.csv: no such file",
    ),
    "photograph to match": (
        ("explain-match", "nowhere.png", "words", "--model", "hf:x"),
        "no such image: nowhere.png",
    ),
    "table of the paper": (
        ("reproduce", "--table", "8", "--data", "photographs"),
        "expected --table 1 to 7, got 8",
    ),
    "kind": (("list", "method"), "unknown kind 'method'; did you mean methods"),
    "name": (("list", "methods", "uno"), "unknown method 'uno'; did you mean uni?"),
}


def quick(*arguments):
    done = subprocess.run([sys.executable, "-c", RUN, *arguments], capture_output=True, text=True)
    *printed, loaded = done.stdout.splitlines()
    assert loaded == ""
    return done.returncode, "\n".join(printed), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        *((command, "--help") for command in COMMANDS),
        ("list",),
        ("list", "methods"),
        ("list", "metrics"),
        ("list", "methods", "uni"),
        ("list", "samples"),
    ],
)
def test_help_and_lists_load_no_torch(arguments):
    code, out, err = quick(*arguments)
    assert (code, err) == (0, "")
    assert len(out) > 100


@pytest.mark.slow
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_whole_at_80_columns_and_names_no_types(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = quick(*[command] * bool(command), "--help")
    assert max(map(len, out.splitlines())) <= 80
    assert not re.search(r"<\w", out)
    assert not re.search(r"[a-z]\.\.\.", out), "a summary is cut"
    assert all(option.metavar or option.is_flag for option in options_of(command))


def options_of(command):
    of_all = typer.main.get_command(app)
    parameters = of_all.commands[command].params if command else of_all.params
    return [option for option in parameters if option.param_type_name == "option"]


@pytest.mark.slow
def test_help_prints_brackets_and_names_every_kind():
    assert "mu_fidelity:imputer=[black,blur]." in quick("evaluate", "--help")[1]
    words = set(re.findall(r"\w+", quick("list", "--help")[1]))
    assert set(KINDS) <= words


def test_text_is_broken_at_words_on_a_terminal_and_not_in_a_pipe(monkeypatch):
    sentence = Text("The confidence falls back on the way to the input, " * 3)
    for terminal in (True, False):
        file = io.StringIO()
        console = Console(file=file, force_terminal=terminal, width=80)
        monkeypatch.setattr(output, "_out", console)
        output.show_renderable(sentence)
        lines = file.getvalue().splitlines()
        words = [word for line in lines for word in line.split()]
        assert words == sentence.plain.split()
        assert (max(map(len, lines)) <= 80) is terminal


def test_the_version():
    assert quick("--version") == (0, unilens.__version__, "")


@pytest.mark.slow
@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_refused_before_torch_is_loaded(case):
    arguments, message = BAD[case]
    code, out, err = quick(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
