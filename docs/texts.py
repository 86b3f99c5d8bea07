"""Measure and draw what docs/text.md says: maps of a real encoder whose head is trained here.

Run:    python docs/texts.py

Needs the extras `hf` and `test`, and a browser for the picture.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from tests.text_models import HELD_OUT, sentiment  # noqa: E402

from unilens._ops.correlation import spearman  # noqa: E402
from unilens.text import TextClassifier, explain_text  # noqa: E402
from unilens.text.render import page  # noqa: E402

SETTINGS = {
    "uni:matching_steps=1": {"method": "uni", "matching_steps": 1},
    "uni:matching_steps=1,budget=0.5": {"method": "uni", "matching_steps": 1, "budget": 0.5},
    "uni:matching_steps=1,budget=1": {"method": "uni", "matching_steps": 1, "budget": 1.0},
    **{
        f"ig:baseline={name}": {"method": "ig", "baseline": name}
        for name in ("zero", "pad", "mask", "image_mean", "blur", "max_entropy")
    },
    "gradient": {},
    "input_x_gradient": {},
    "smoothgrad": {},
    "occlusion:baseline=mask": {"method": "occlusion", "baseline": "mask", "window": 1},
    "random": {},
}
SHOWN = ("uni:matching_steps=1", "ig:baseline=zero", "ig:baseline=mask")


def falls(classifier: TextClassifier, text: str, target: int) -> torch.Tensor:
    """Return how far the probability falls when the mask token hides each word, `(W,)`."""
    encoded = classifier.encode(text)
    hidden = encoded.model.replacement("mask").view(1, -1, 1)
    words = torch.tensor(encoded.tokens.word_of)
    changes = []
    with torch.no_grad():
        before = encoded.model(encoded.embeddings).softmax(-1)[0, target]
        for word in range(int(words.max()) + 1):
            masked = torch.where(words == word, hidden, encoded.embeddings)
            changes.append(before - encoded.model(masked).softmax(-1)[0, target])
    return torch.stack(changes)


def measure(classifier: TextClassifier, name: str) -> str:
    """Return a row of the table: what a method finds in the held-out sentences."""
    settings = {"method": name, **SETTINGS[name]}
    first = second = 0
    ranks, gaps, changes, seconds = [], [], [], []
    for text, word in HELD_OUT:
        if word is None:
            continue
        explanation = explain_text(classifier, text, **settings)
        attribution, values = explanation.attribution, explanation.word_values
        order = [explanation.tokens.words[i] for i in values.argsort(descending=True)]
        first, second = first + (order[0] == word), second + (word in order[:2])
        expected = falls(classifier, text, int(attribution.target))
        ranks.append(float(spearman(values[None], expected[None].to(values))))
        gaps.append(abs(explanation.completeness_gap))
        changes.append(float(attribution.diagnostics.get("confidence_change", torch.nan)))
        seconds.append(attribution.provenance["seconds"])
    cells = [f"`{name}`", f"{first}", f"{second}", *(
        f"{sum(column) / len(column):.{digits}f}"
        for column, digits in ((ranks, 2), (changes, 2), (gaps, 4), (seconds, 1))
    )]  # fmt: skip
    return f"| {' | '.join(cells)} |".replace("nan", "")


def draw(classifier: TextClassifier) -> None:
    """Write the picture: one page as `unilens explain-text` writes it, in a browser."""
    from playwright.sync_api import sync_playwright

    text = "The food was cold and the waiter was rude, but the view was magnificent."
    explanations = {
        name: explain_text(classifier, text, **{"method": name, **SETTINGS[name]}) for name in SHOWN
    }
    with sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        view = browser.new_page(viewport={"width": 820, "height": 100}, device_scale_factor=1.5)
        view.set_content(page(explanations, "text"))
        view.screenshot(path=HERE / "images" / "text.png", full_page=True)
        browser.close()


def main() -> None:
    """Print the table, and draw the picture."""
    classifier = TextClassifier(*sentiment())
    print(f"typical norm {classifier.typical_norm:.3f}")
    with torch.no_grad():
        for text, _ in HELD_OUT:
            encoded = classifier.encode(text)
            positive = float(encoded.model(encoded.embeddings).softmax(-1)[0, 1])
            print(f"{positive:.3f} positive: {text}")
    draw(classifier)
    for name in SETTINGS:
        print(measure(classifier, name), flush=True)


if __name__ == "__main__":
    main()
