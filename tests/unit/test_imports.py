import subprocess
import sys

HEAVY = ("matplotlib", "torchvision", "timm", "PIL", "skimage", "rich", "typer", "captum")


def test_the_core_loads_nothing_that_it_does_not_need():
    code = (
        "import sys, unilens, unilens.diagnostics; "
        f"came = [name for name in {HEAVY} if name in sys.modules]; "
        "sys.exit(', '.join(came) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
