"""The table that eval.py prints."""

from __future__ import annotations

from typing import Any

PUBLISHED: dict[tuple[str, str], tuple[tuple[str, float], ...]] = {
    ("detailrefer", "val"): (("DetailBase", 0.568),),
    ("detailrefer", "test"): (("DetailBase", 0.557),),
    ("scanrefer", "val"): (
        *(("TGNN", 0.288), ("3D-STMN", 0.395), ("SegPoint", 0.417), ("RG-SAN", 0.446)),
        *(("MDIN", 0.483), ("IPDN", 0.502), ("HCF-RES", 0.505), ("BQNet", 0.514)),
    ),
}
"""mIoU in the papers."""
COLUMNS = ("mIoU", "acc@0.25", "acc@0.5", "smIoU", "oracle")
NOT_OURS = "published, on real ScanNet; not comparable with other data"


def table(results: dict[str, Any]) -> str:
    """The scores for people, those of the papers behind."""
    rows = [("all", results["metrics"]), *results["kinds"].items()]
    published = PUBLISHED.get((results["dataset"], results["split"]), ())
    title = f"{results['dataset']} {results['split']}"
    if results["shuffled_words"]:
        title += ", shuffled words"
    width = max(len(name) for name in [title, *(name for name, _ in (*rows, *published))])
    head = " ".join(f"{name:>8}" for name in COLUMNS)
    lines = [f"{title:<{width}}  {head}  phrases"]
    for name, scores in rows:
        cells = " ".join(f"{scores[column]:8.3f}" for column in COLUMNS)
        lines.append(f"{name:<{width}}  {cells}  {scores['phrases']:7d}")
    lines += [f"{name:<{width}}  {miou:8.3f}  {NOT_OURS}" for name, miou in published]
    return "\n".join(lines)
