"""The README's own lines: every Python block runs as written, in order, in one session."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"(?:<!-- (needs \w+) -->\n)?```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """The names that earlier blocks left, in a folder of their own."""
    folder = tmp_path_factory.mktemp("readme")
    return {"folder": folder, "names": {"__name__": "readme"}}


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block(number, session, monkeypatch):
    monkeypatch.chdir(session["folder"])
    for needs, text in BLOCKS[: number + 1][session.get("done", 0) :]:
        if needs:
            pytest.importorskip(needs.removeprefix("needs "))
        exec(compile(text, str(README), "exec"), session["names"])
        session["done"] = session.get("done", 0) + 1


def test_there_are_blocks_and_lines_for_ci():
    text = README.read_text(encoding="utf-8")
    assert len(BLOCKS) >= 5
    assert "<!-- set-up -->\n```sh\n" in text and "<!-- tests -->\n```sh\n" in text
