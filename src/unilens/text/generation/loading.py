"""Language models by name."""

from __future__ import annotations

from typing import Any

import torch

from ..loading import load_text_model
from .language_model import LanguageModel


def load_language_model(name: str, *, device: str | torch.device | None = None) -> LanguageModel:
    """Return a language model by name, in eval mode.

    Args:
        name: `hf:REPO`, a repository or a local folder of a language model and its tokenizer, or
            `py:package.module:function`, whose function returns a `LanguageModel`.
        device: where to put it; the CPU by default.

    Raises:
        UnknownNameError: no such kind of name.
        UnilensError: the model cannot be loaded, or generates no text; the message says why.
    """
    return load_text_model(LanguageModel, name, device, _head)


def _head(config: Any) -> str:
    return "Seq2SeqLM" if getattr(config, "is_encoder_decoder", False) else "CausalLM"
