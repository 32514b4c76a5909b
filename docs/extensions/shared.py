"""What both languages share stands once, in the folder of the English site."""

import re
import shutil
from pathlib import Path

from sphinx.application import Sphinx

FOLDERS = ("_images", "_downloads", "source")
LINK = re.compile(r'((?:src|href)="(?:\.\./)*)(' + "|".join(FOLDERS) + ")/")


def share(app: Sphinx, error: Exception | None) -> None:
    """Let the pages of another language use the folders of the English site, one level up."""
    out = Path(app.outdir)
    for path in out.rglob("*.map"):  # only for people who debug the theme
        path.unlink()
    if error is None and app.config.language != "en":
        for page in out.rglob("*.html"):
            page.write_text(LINK.sub(r"\1../\2/", page.read_text()))
        for folder in FOLDERS:
            shutil.rmtree(out / folder, ignore_errors=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """Call `share` at the end."""
    app.connect("build-finished", share)
    return {"parallel_read_safe": True}
