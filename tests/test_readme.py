"""The README's own lines: every Python block runs as written, in order, in one session."""

import importlib.util
import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"(?:<!-- (needs [\w ]+) -->\n)?```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """The names that earlier blocks left, in a folder of their own."""
    folder = tmp_path_factory.mktemp("readme")
    return {"folder": folder, "names": {"__name__": "readme"}}


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block(number, session, monkeypatch):
    """Blocks before it run first; one that needs a package which is not there is skipped, and those behind it go on."""
    monkeypatch.chdir(session["folder"])
    for index in range(session.get("done", 0), number + 1):
        needs, text = BLOCKS[index]
        session["done"] = index + 1
        missing = [name for name in needs.split()[1:] if importlib.util.find_spec(name) is None]
        if not missing:
            exec(compile(text, str(README), "exec"), session["names"])
        elif index == number:
            pytest.skip(f"{', '.join(missing)} not installed")


def test_there_are_blocks_and_lines_for_ci():
    text = README.read_text(encoding="utf-8")
    assert len(BLOCKS) >= 5
    assert "<!-- set-up -->\n```sh\n" in text and "<!-- tests -->\n```sh\n" in text
