"""Writes strategies/pages: `python -m tests.pages`. Read what changed before you keep it."""

from tests.pages.page import FOLDER, pages

FOLDER.mkdir(exist_ok=True)
found = pages()
for path in set(FOLDER.iterdir()) - set(found):
    path.unlink()
for path, text in found.items():
    path.write_text(text, encoding="utf-8")
