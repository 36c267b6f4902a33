"""The table that eval.py prints."""

from __future__ import annotations

from typing import Any

from detailbase.descriptions.datasets import find_dataset
from detailbase.inference.metrics import METRICS

REMARK = "published, on real ScanNet; not comparable with other data"


def table(results: dict[str, Any]) -> str:
    """Formats the scores, and behind them those of the papers."""
    rows = [("all", results["metrics"]), *results["kinds"].items()]
    published = find_dataset(results["dataset"]).published.get(results["split"], ())
    title = f"{results['dataset']} {results['split']}"
    if results["shuffled_words"]:
        title += ", shuffled words"
    width = max(len(name) for name in [title, *(name for name, _ in (*rows, *published))])
    columns = (*METRICS, "smIoU")
    head = " ".join(f"{name:>8}" for name in columns)
    lines = [f"{title:<{width}}  {head}  phrases"]
    for name, scores in rows:
        cells = " ".join(f"{scores[column]:8.3f}" for column in columns)
        lines.append(f"{name:<{width}}  {cells}  {scores['phrases']:7d}")
    lines += [f"{name:<{width}}  {miou:8.3f}  {REMARK}" for name, miou in published]
    return "\n".join(lines)
