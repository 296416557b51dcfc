#!/usr/bin/env python3
"""Checks the links between the Markdown files of a directory: each must lead to an existing file, and to an anchor in it.

    .ci/links.py              checks this project, prints each broken link, exits with 1 if there is one
    .ci/links.py --self-test  checks the checker

Anchors are GitHub's anchors for headings, `id` and `name` attributes, and `#L12` for a line of a file that is not Markdown. Links to other
hosts are not followed.
"""
import os
import re
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote

SKIPPED = {".git", "target", "node_modules"}

CODE_BLOCK = re.compile(r"^ {0,3}(`{3,}|~{3,})[^\n]*\n.*?(?:^ {0,3}\1[`~]*[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
# [text](destination "title"), also for images. The text may contain brackets, for example an image in a link.
INLINE = re.compile(r"\]\(\s*(?:<([^>\n]*)>|([^\s()]*(?:\([^\s()]*\)[^\s()]*)*))(?:\s+(?:\"[^\"]*\"|'[^']*'|\([^)]*\)))?\s*\)")
DEFINITION = re.compile(r"^ {0,3}\[([^\]\n]+)\]:[ \t]*<?([^\s>]+)>?", re.MULTILINE)
REFERENCE = re.compile(r"\[([^\[\]]+)\]\[([^\[\]]*)\]")
ATTRIBUTE = re.compile(r"<[a-z][^>]*?\b(?:href|src)=[\"']([^\"']*)[\"']", re.IGNORECASE)
IDENTIFIER = re.compile(r"<[a-z][^>]*?\b(?:id|name)=[\"']([^\"']+)[\"']", re.IGNORECASE)
HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$", re.MULTILINE)
UNDERLINED = re.compile(r"^ {0,3}([^\s#>|`~-][^\n]*)\n {0,3}(?:=+|-+)[ \t]*$", re.MULTILINE)
SCHEME = re.compile(r"^(?:[a-z][a-z0-9+.-]*:|//)", re.IGNORECASE)


def blank(match):
    """The same number of empty lines, to keep line numbers."""
    return "\n" * match[0].count("\n")


def without_blocks(text):
    return COMMENT.sub(blank, CODE_BLOCK.sub(blank, text))


def prose(text):
    """The text without code blocks, code spans and comments."""
    return CODE_SPAN.sub(blank, without_blocks(text))


def slug(heading):
    """GitHub's anchor for a heading."""
    text = re.sub(r"!?\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def anchors(text):
    """All anchors in this Markdown text."""
    text = without_blocks(text)
    headings = sorted([*HEADING.finditer(text), *UNDERLINED.finditer(text)], key=lambda match: match.start())
    found = set(IDENTIFIER.findall(text))
    for heading in headings:
        first = name = slug(heading[1])
        number = 0
        while name in found:
            number += 1
            name = f"{first}-{number}"
        found.add(name)
    return found


def destinations(text):
    """The line and destination of each link. The destination of a reference without a definition is None."""
    text = prose(text)
    defined = {label.lower() for label, _ in DEFINITION.findall(text)}
    found = [(match.start(), match[1] if match[1] is not None else match[2]) for match in INLINE.finditer(text)]
    found += [(match.start(), match[2]) for match in DEFINITION.finditer(text)]
    found += [(match.start(), match[1]) for match in ATTRIBUTE.finditer(text)]
    found += [(match.start(), None) for match in REFERENCE.finditer(text) if (match[2] or match[1]).lower() not in defined]
    return [(text.count("\n", 0, start) + 1, to) for start, to in sorted(found, key=lambda link: link[0])]


def problem(root, file, to):
    """The problem of a link from `file`, or None."""
    if to is None:
        return "a reference without a definition"
    if SCHEME.match(to):
        return None
    path, _, anchor = to.partition("#")
    path = unquote(path.partition("?")[0])
    if not to:
        return "a link without a destination"
    # A leading slash means the root of the repository.
    target = file if not path else (root / path.lstrip("/") if path.startswith("/") else file.parent / path)
    target = Path(os.path.normpath(target))
    if root != target and root not in target.parents:
        return "outside the project"
    if not target.exists():
        return "no such file"
    if not anchor:
        return None
    if target.is_dir():
        return "an anchor in a directory"
    text = target.read_text()
    if target.suffix == ".md":
        return None if unquote(anchor) in anchors(text) else "no such heading"
    lines = re.fullmatch(r"L(\d+)(?:-L(\d+))?", anchor)
    if not lines or int(lines[2] or lines[1]) > text.count("\n") or int(lines[1]) < 1:
        return "no such line"
    return None


def markdown(root):
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in SKIPPED)
        yield from (Path(folder) / name for name in sorted(files) if name.endswith(".md"))


def check(root):
    """Each broken link, as `file:line: destination: problem`, and the number of links checked."""
    broken, count = [], 0
    for file in markdown(root):
        for line, to in destinations(file.read_text()):
            count += 1
            if wrong := problem(root, file, to):
                broken.append(f"{file.relative_to(root)}:{line}: {to or ''}: {wrong}")
    return broken, count


def self_test():
    right = ["[a](b.md)", "[a](docs/c.md)", "[a](./docs)", "[a](#one-two)", "[a](docs/c.md#code-of-it-2-in-x_y)", "[a](b.md#one-two-1)",
             "[a](docs/c.md#under-lined)", "[a](docs/c.md#own)", "[a](https://example.com/no.md)", "[a](mailto:a@example.com)",
             "[a][b]\n\n[b]: b.md", "`[a](no.md)`", "```\n[a](no.md)\n```", "~~~text\n[a](no.md)\n~~~", "<!-- [a](no.md) -->",
             "[![a](docs/i.svg)](b.md)", "<img src=\"docs/i.svg\">", "[a](<b.md> \"title\")", "[a](/docs/c.md)", "[a](docs/i.svg#L1)",
             "[a](b%2emd)", "[\na](b.md 'title')", "``[a](no.md) ` ``", "- [x] done", "[a] [ ] b", "[a](docs/c.md#%C3%BCber)"]
    wrong = ["[a](no.md)", "[a](docs/no.svg)", "[a](#no)", "[a](b.md#no)", "[a](docs/c.md#code)", "[a](b.md#One-two)", "[a](../b.md)",
             "[a](docs/../../x.md)", "[a][no]", "[a][]", "[a]()", "[a]: no.md", "![a](no.svg)", "[![a](no.svg)](b.md)",
             "[![a](docs/i.svg)](no.md)", "<a href='no.md'>a</a>", "[a](docs#one-two)", "[a](docs/i.svg#L2)", "[a](docs/i.svg#x)",
             "[a](docs/c.md#in-a-block)", "[a](<no.md>)", "[a](no.md \"title\")", "text `code` [a](no.md) `code`", "[a](b.md#one-two-2)"]
    failed = []
    for kind, cases in ((0, right), (1, wrong)):
        for case in cases:
            with tempfile.TemporaryDirectory() as folder:
                root = Path(folder).resolve()
                (root / "docs").mkdir()
                (root / "target").mkdir()
                (root / "target" / "skipped.md").write_text("[a](no.md)")
                (root / "b.md").write_text("# One two\n\n## One two\n")
                (root / "docs" / "i.svg").write_text("<svg/>\n")
                (root / "docs" / "c.md").write_text("## `code` of it: [2](../b.md), in `x_y`\n\nUnder lined\n---\n\n"
                                                    "```\n# in a block\n```\n<a id=\"own\"></a>\n\n## Über ##\n")
                (root / "a.md").write_text(f"# One two\n\n{case}\n")
                broken, _ = check(root)
                if len(broken) != kind:
                    failed.append(f"{case!r}: {broken}")
    return failed


def main():
    if sys.argv[1:] == ["--self-test"]:
        broken = self_test()
    else:
        broken, count = check(Path(__file__).resolve().parents[1])
        if count == 0:
            broken = ["no link was found"]
    print("\n".join(broken), end="\n" if broken else "")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
