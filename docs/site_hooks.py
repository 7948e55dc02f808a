"""For `make docs`: pages that lie at the top of the project are pages of the site as well."""

import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
TOP = ("CONTRIBUTING.md", "CHANGELOG.md")


def on_files(files, config):
    """Adds the pages of the top, whose links to docs/ become links to their neighbours."""
    for name in TOP:
        text = re.sub(r"\]\(docs/", "](", (ROOT / name).read_text())
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links to a page of the top, from wherever they are, lead to the page of the site."""
    up = "../" * page.file.src_uri.count("/")
    return re.sub(rf"\]\((\.\./)+({'|'.join(TOP)})", rf"]({up}\2", markdown)
