"""A plan as the TOML it could have been written in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..plan import Plan


def plan_as_toml(plan: Plan) -> str:
    """Return a plan as TOML, which `unilens benchmark` takes."""
    said = plan.model_dump(mode="json")
    nested = {key: value for key, value in said.items() if isinstance(value, dict)}
    lines = _pairs({key: value for key, value in said.items() if key not in nested})
    for key, value in nested.items():
        lines += ["", f"[{key}]", *_pairs(value)]
    return "\n".join(lines) + "\n"


def _pairs(said: Mapping[str, Any]) -> list[str]:
    return [f"{_text(key)} = {_value(one)}" for key, one in said.items() if one is not None]


def _text(key: str) -> str:
    return key if key.replace("_", "").isalnum() and key.isascii() else json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(_pairs(value))} }}"
    if isinstance(value, list):
        return f"[{', '.join(_value(one) for one in value)}]"
    return json.dumps(value, ensure_ascii=False)
