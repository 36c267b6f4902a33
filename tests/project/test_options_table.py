import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("options_table", ROOT / "scripts/options_table.py")
options_table = importlib.util.module_from_spec(spec)
spec.loader.exec_module(options_table)


def test_the_document_has_the_table_of_today():
    text = (ROOT / "docs/refersplat.md").read_text(encoding="utf-8")
    assert text.endswith(options_table.MARK + "\n" + options_table.table()), (
        "run: python scripts/options_table.py --write docs/refersplat.md"
    )
