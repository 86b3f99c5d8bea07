"""Draw the picture of docs/generation.md: a model of known truth, in which each token is a copy.

Run:    python docs/generation.py

Needs the extras `hf` and `test`, and a browser; the model is trained in a minute
(`benchmarks/induction.py`).
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "benchmarks"))

import induction  # noqa: E402
import unilens.text  # noqa: E402
from unilens.text.generation.render import page  # noqa: E402

LAG = 12
METHOD, SETTINGS = "ig", {"baseline": "mask", "n_steps": 20}


def main() -> None:
    """Train the model, explain one continuation, and write the picture."""
    from playwright.sync_api import sync_playwright

    torch.set_num_threads(1)
    model, accuracy = induction.train(lag=LAG)
    tokenizer = induction.tokenizer()
    tokens = induction.sequences(1, LAG, torch.Generator().manual_seed(3))[0, :LAG].tolist()
    prompt = tokenizer.decode(tokens)
    made = unilens.text.generate(model, tokenizer, prompt, METHOD, max_new_tokens=LAG, **SETTINGS)
    print(f"answers right: {accuracy:.1%}; {prompt} |{made.continuation.text}")
    print(made.values[:, :LAG].abs().argmax(1).tolist())
    with sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        view = browser.new_page(viewport={"width": 1400, "height": 100}, device_scale_factor=1.2)
        view.set_content(page({METHOD: made}, "generated text"))
        view.locator("span[data-row='4']").click()
        view.screenshot(path=HERE / "images" / "generation.png", full_page=True)
        browser.close()


if __name__ == "__main__":
    main()
