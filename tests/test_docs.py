"""The pages' Python runs as it stands: a page's blocks in order, in one namespace."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks_of(page: Path) -> list[tuple[int, str]]:
    """Returns the line and the text of each Python block."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(text[: m.start(1)].count("\n"), m.group(1)) for m in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_python_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "page"}
    for line, block in blocks_of(page):
        exec(compile("\n" * line + block, str(page), "exec"), namespace)
    assert namespace


def test_the_lines_of_the_table_of_preprocessing_run() -> None:
    page = ROOT / "docs" / "preprocessing.md"
    namespace: dict[str, object] = {"__name__": "page"}
    exec(blocks_of(page)[0][1], namespace)
    rows = re.findall(r"^\| (`.+?`) \| `(.+?)` \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 50
    for name, line in rows:
        assert exec(line, namespace) is None, name


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
