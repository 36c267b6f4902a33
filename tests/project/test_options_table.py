import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("options_table", ROOT / "scripts/options_table.py")
options_table = importlib.util.module_from_spec(spec)
spec.loader.exec_module(options_table)


@pytest.mark.parametrize("model", ["refersplat", "detailbase"])
def test_the_document_has_the_table_of_today(model):
    text = (ROOT / f"docs/{model}.md").read_text(encoding="utf-8")
    assert text.endswith(options_table.MARK + "\n" + options_table.table(model)), (
        f"run: python scripts/options_table.py {model} --write docs/{model}.md"
    )
