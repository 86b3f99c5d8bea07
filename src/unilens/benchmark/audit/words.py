"""The findings of an audit in sentences for people who do not code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...models import PixelClassifier
from .findings import FEWEST, Estimate, Findings, Suspect, Trust
from .regions import BACKGROUND
from .run import Audit

METHOD_NAMES = {
    "uni": "UNI",
    "ig:baseline=blur,n_steps=20": "Integrated gradients",
    "gradcam": "Grad-CAM",
}
"""For readers."""
TRUST_SENTENCES = {
    "": "Yes: covering what it marks matters more than covering outlines or random places.",
    "caution": "In part: it beats one of outlines and random places, not both.",
    "problem": "Not shown: covering outlines or random places matters as much.",
}
"""By the level of a method's trust."""


class Sentence(NamedTuple):
    """A finding.

    Attributes:
        level: one of the levels of warnings; empty for good news.
        title: in bold.
        text: after it.
    """

    level: str
    title: str
    text: str


def in_short(audit: Audit, findings: Findings) -> list[Sentence]:
    """Return the findings, the most important first."""
    sentences = [_about_suspect(suspect, len(audit.facts)) for suspect in findings.named]
    if audit.photographs.same_layout:
        sentences.append(Sentence("info", "All alike", _SAME_LAYOUT))
    if len(audit.facts) < FEWEST:
        text = f"Fewer than {FEWEST} photographs show nothing about shortcuts or about trust."
        sentences.append(Sentence("caution", "Too few photographs", text))
    else:
        if not findings.named:
            sentences.append(Sentence("", "No shortcut found", _NOTHING))
        sentences += [_about_trust(findings.trust), _about_agreement(findings)]
    if audit.random_weights:
        text = "The model has random weights: it has learned nothing, and this page is a trial."
        sentences.insert(0, Sentence("problem", "Untrained model", text))
    return sentences


_SAME_LAYOUT = (
    "The photographs have the same layout over most of their area. A small mark that only some of "
    "them have cannot be found by comparing them."
)
_NOTHING = (
    "No corner, border or text-like part gets more attention than chance explains, and the "
    "photographs share no mark. Shortcuts of other kinds, such as a typical background, can "
    "still be there."
)


def accuracy(findings: Findings) -> str:
    """Return how often the model was right, where that is known."""
    if not findings.labelled:
        return "The right answers are not known."
    return f"The model was right on {findings.right} of {findings.labelled} photographs."


def caption(audit: Audit, number: int) -> str:
    """Return the answer of a photograph with its confidence, and the right one if it differs."""
    facts, classifier = audit.facts[number], audit.photographs.classifier
    text = f"{label_of(classifier, facts['predicted'])}, {percent(facts['confidence'])} sure"
    label = facts["label"]
    if label is None or label == facts["predicted"]:
        return text
    return f"{text} (it is: {label_of(classifier, label)})"


def label_of(classifier: PixelClassifier, index: int) -> str:
    """Return the first name of a class."""
    return classifier.label(index).partition(",")[0]


def percent(share: float) -> str:
    """Return a share in percent, in words at both ends."""
    if 0.995 <= share < 1:
        return "over 99 %"
    return "under 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def interval(estimate: Estimate) -> str:
    """Return a share with its interval, in percent with one decimal."""
    low, high = 100 * estimate.low, 100 * estimate.high
    return f"{100 * estimate.mean:.1f} % ({low:.1f} to {high:.1f})".replace("-", "\u2212")


def points(estimate: Estimate) -> str:
    """Return a difference of confidence with its interval, in percentage points."""
    mean, low, high = (100 * value for value in (estimate.mean, estimate.low, estimate.high))
    return f"{mean:.1f} percentage points ({low:.1f} to {high:.1f})".replace("-", "\u2212")


def _about_suspect(suspect: Suspect, total: int) -> Sentence:
    if not suspect.is_mark:
        return Sentence(suspect.level, f"Suspicious: {suspect.place}", _attention(suspect))
    shared = f"{suspect.n} of {total} photographs have the same mark in {suspect.place}."
    where = suspect.place.removeprefix("the ")
    if not suspect.seen:
        text = f"{shared} This model does not see it: it lies outside of the part that it is shown."
        return Sentence("info", f"A shared mark, {where}", text)
    parts = [shared, *_reasons(suspect)]
    title = {
        "problem": "Shortcut",
        "caution": "Possible shortcut",
        "info": "A shared mark",
    }[suspect.level]
    return Sentence(suspect.level, f"{title}, {where}", " ".join(parts))


def _reasons(suspect: Suspect) -> list[str]:
    """Return what the mark does to the answers, to the attention, and with which answer it goes."""
    parts = []
    if suspect.depends:
        parts.append(f"The answers depend on it. {_covering(suspect)}")
    if suspect.looks:
        parts.append(f"The model looks at it. {_attention(suspect)}")
    if known := suspect.association:
        parts.append(
            f"The answer “{known.label.partition(',')[0]}” goes with it: {known.with_mark} of "
            f"{known.of_marked} photographs with the mark get it, and {known.without_mark} of "
            f"{known.of_others} without."
        )
    if not suspect.depends:
        if not parts:
            unsure = "Whether this model uses it cannot be told from these photographs."
            parts.append("This model does not seem to use it." if suspect.cleared else unsure)
        parts.append(_covering(suspect))
    return parts


def _covering(suspect: Suspect) -> str:
    if suspect.fall is None or not suspect.fall.n:
        return ""
    cost = f"{points(suspect.fall)} more than covering a place without it"
    return f"Covering the mark costs {cost}; {suspect.changed} of {suspect.fall.n} answers change."


def _attention(suspect: Suspect) -> str:
    if suspect.name == BACKGROUND:
        what = "The background outside of the boxes"
    else:
        what = suspect.place[0].upper() + suspect.place[1:]
    verb = "get" if suspect.place.endswith("parts") else "gets"
    chance = max(suspect.references.values())
    text = f"{what} {verb} {interval(suspect.share)} of the attention; chance explains "
    text += f"{100 * chance:.1f} %."
    if suspect.depends and not suspect.is_mark and suspect.fall is not None:
        text += f" Covered, it costs {points(suspect.fall)} of confidence more than other places."
    return text


def _about_trust(trusts: Sequence[Trust]) -> Sentence:
    good = [METHOD_NAMES[trust.method] for trust in trusts if not trust.level]
    if len(good) == len(trusts):
        text = (
            "All methods point to what this model needs, better than chance and than outlines do."
        )
        return Sentence("", "The pictures can be trusted", text)
    if good:
        weak = [METHOD_NAMES[trust.method] for trust in trusts if trust.level]
        text = f"{_listed(good)} passed the covering test on this model; {_listed(weak)} did not."
        return Sentence("info", "Some of the pictures can be trusted", text)
    text = "No method was shown to point to what this model needs, better than outlines do."
    return Sentence("caution", "Take the pictures with care", text)


def _about_agreement(findings: Findings) -> Sentence:
    own, control = findings.overlap, findings.control_overlap
    text = (
        f"Of the tenth that a method marks most strongly, another one marks {percent(own.mean)} "
        f"too. Pictures that know nothing of the model would share {percent(control.mean)}."
    )
    agreeing = own.low > control.high
    title = "The methods agree more than by chance" if agreeing else "The methods hardly agree"
    return Sentence("" if agreeing else "caution", title, text)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
