"""The table of differences from a reference method, from the rows of a report."""

from vision_transformers import table

NAMES = ("corruption", "model", "metric", "higher_is_better", "method", "mean", "interval_low")
SUMMARY = [
    dict(zip((*NAMES, "interval_high", "map_seconds"), values, strict=True))
    for values in (
        ("", "m", "deletion_auc", "false", "gradcam", "0.25", "0.125", "0.5", "0.6"),
        ("", "m", "deletion_auc", "false", "ig", "0.75", "0.5", "1.0", "4.35"),
        ("", "m", "deletion_auc", "false", "random", "", "", "", ""),
    )
]
PAIR = ("metric", "first", "second", "mean_difference", "interval_low", "interval_high")
PAIRS = [
    dict(zip(PAIR, ("deletion_auc", "gradcam", "ig", "-0.5", "-0.6", "-0.4"), strict=True)),
    dict(zip(PAIR, ("deletion_auc", "ig", "random", "", "", ""), strict=True)),
]


def test_table_of_differences():
    assert table(SUMMARY, PAIRS, "ig") == [
        "| method | seconds | `deletion_auc` ↓ |",
        "| --- | ---: | ---: |",
        "| `gradcam` | 0.60 | 0.250 (0.125 to 0.500)<br>**Δ -0.500 (-0.600 to -0.400)** |",
        "| `ig` | 4.35 | 0.750 (0.500 to 1.000) |",
        "| `random` | – | – |",
    ]
    swapped = table(SUMMARY, PAIRS, "gradcam")
    assert swapped[3].endswith("<br>**Δ +0.500 (0.400 to 0.600)** |")
