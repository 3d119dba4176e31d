"""Tell English prose from everything else that stands in documentation, and drop what was seen before."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator

_FUNCTION_WORDS = (
    "a an and any are as at be been but by can cannot do does each for from had has have how if in into is it its "
    "may more most must no not of on one only or other over should so some such than that the their them then "
    "there these they this to two under use used uses using was we what when where whether which while who will "
    "with would you your all also because before after between both during e.g. given"
)
_COMMON = frozenset(_FUNCTION_WORDS.split())
_MARKUP = (
    (re.compile(r"!\[[^\]]*\]\([^)]*\)"), ""),  # images
    (re.compile(r"\[([^\]]+)\]\([^)]*\)"), r"\1"),  # Markdown links
    (re.compile(r":[a-zA-Z:+-]+:`([^`<]+?)\s*<[^`>]*>`"), r"\1"),  # roles with a title
    (re.compile(r":[a-zA-Z:+-]+:`[~!.]?(?:[\w.]+\.)?([^`]+)`"), r"\1"),  # roles
    (re.compile(r"`([^`<]+?)\s*<[^`>]*>`__?"), r"\1"),  # links
    (re.compile(r"\[[\w#*]+\]_"), ""),  # footnotes
    (re.compile(r"\(see: ?\[?[^)]*\)"), ""),
    (re.compile(r"`+([^`]+)`+_{0,2}"), r"\1"),
    (re.compile(r"\*\*([^*]+)\*\*"), r"\1"),
    (re.compile(r"(?<!\w)\*([^*\s][^*]*)\*(?!\w)"), r"\1"),
    (re.compile(r"<[^<>]{1,80}>"), ""),  # HTML tags
    (re.compile(r"[‘’]"), "'"),
    (re.compile(r"[“”]"), '"'),
    (re.compile(r" ?[–—] ?|(?<=\w)--(?=\w)"), " - "),
    (re.compile(r"\s+"), " "),
    (re.compile(r" ([.,;:])(?= |$)"), r"\1"),
)
_ITEM = re.compile(r"\s*(?:[-*+•] |\d+[.)] )")
_ARGUMENT = re.compile(r"\s*[`*\w, .\[\]-]{1,60}?\s*(?:\([^)]*\))?\s*(?:--|:| - )\s+(?=[A-Z])")
_DIRECTIVE = re.compile(r"\s*\.\. ?[\w:|-]+")
_PROSE_DIRECTIVE = re.compile(r"\s*\.\. (?:note|warning|tip|important|seealso|versionadded|versionchanged)::[\d. ]*")
_CODE_WORD = re.compile(r"[_=(){}\[\]<>/\\|#@$%^&*~+]|\w\.\w|[a-z][A-Z]|::|\d[a-zA-Z]")
_LEGAL = re.compile(r"copyright|license[ds]?\b|licence|warrant|liabilit|all rights reserved|merchantab", re.IGNORECASE)
_LABEL = re.compile(r"\s*(?:[A-Z]\w*(?: \w+)?:|[*\w, ]{1,60} : .*)$")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]? +(?=[\"'(]?[A-Z])")
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|cf|vs|Fig|Eq|No|Dr|Mr|al|[A-Z])\.$")


def blocks(text: str) -> Iterator[str]:
    """Yield the runs of prose lines of a text, joined to one line each; code blocks, fences and tables are left out."""
    fenced, last_indent = False, 0
    code_indent: int | None = None
    lines: list[str] = []
    for line in [*text.expandtabs(4).splitlines(), ""]:
        indent = len(line) - len(line.lstrip())
        stripped = line.strip()
        if stripped.startswith(("```", "~~~")):
            fenced = not fenced
            stripped = ""
        if code_indent is not None and stripped and indent <= code_indent:
            code_indent = None
        if fenced or code_indent is not None:
            stripped = ""
        prose_start = _PROSE_DIRECTIVE.match(line)
        if stripped.endswith("::") or (_DIRECTIVE.match(line) and not prose_start):
            # What is indented below is code, or belongs to a directive that is not prose.
            code_indent = indent
            stripped = stripped.removesuffix("::") + ":" if not _DIRECTIVE.match(line) else ""
        elif prose_start:
            stripped = stripped[len(prose_start.group().strip()) :].strip()
        separator = not re.search(r"[A-Za-z]", stripped) or bool(_LABEL.match(line))
        opening = _ITEM.match(line) or _ARGUMENT.match(line)
        # A lone short line with a deeper one below it is a heading: the type of a result, say.
        heading = len(lines) == 1 and len(lines[0]) < 40 and indent > last_indent and stripped[:1].isupper()
        if lines and (separator or opening or heading):
            if not heading:
                yield " ".join(lines)
            lines = []
        if not separator and not stripped.startswith((">>>", "|", "$ ", "# ")):
            lines.append(line[opening.end() :].strip() if opening else stripped)
        last_indent = indent


def sentences(block: str) -> list[str]:
    """Cut a block into sentences, not after abbreviations."""
    found: list[str] = []
    for piece in _SENTENCE_END.split(block):
        if found and _ABBREVIATION.search(found[-1]):
            found[-1] += " " + piece
        else:
            found.append(piece)
    return found


def is_prose(sentence: str) -> bool:
    """Whether a sentence reads as English: whole, mostly plain words, some of them function words, no code, no law."""
    words = sentence.split()
    whole = re.match(r"[\"'(]?[A-Z]", sentence) and re.search(r"[.!?:][\"')]?$", sentence)
    heading = " ".join(words[:2]).isupper()
    if len(words) < 4 or len(sentence) > 700 or not whole or heading:
        return False
    if "http" in sentence or "www." in sentence or _LEGAL.search(sentence):
        return False
    letters = sum(character.isalpha() or character == " " for character in sentence)
    foreign = sum(ord(character) > 127 for character in sentence)
    code = sum(bool(_CODE_WORD.search(word.strip("\"'(),.;:!?"))) for word in words)
    common = sum(word.lower().strip("\"'(),.;:") in _COMMON for word in words)
    return (
        letters >= 0.9 * len(sentence)
        and foreign <= 2
        and code <= 0.12 * len(words)
        and common >= 0.2 * len(words)
        and sentence.count("(") == sentence.count(")")
        and sentence.count('"') % 2 == 0
    )


def paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs of a text that are mostly prose, markup taken off, each on one line."""
    for block in blocks(text):
        for pattern, replacement in _MARKUP:
            block = pattern.sub(replacement, block)
        found = sentences(block.strip())
        kept = [sentence for sentence in found if is_prose(sentence)]
        if sum(map(len, kept)) >= 0.6 * len(block) and kept:
            yield " ".join(kept)


class Sieve:
    """Remembers what passed: a paragraph whose word sequences mostly passed before is held back.

    Two paragraphs are near equal when more than half of their runs of six words, case and punctuation aside, agree;
    a shorter paragraph is compared as a whole.
    """

    def __init__(self, run: int = 6) -> None:
        self._run = run
        self._runs: set[int] = set()

    def keep(self, candidates: Iterable[str]) -> Iterator[str]:
        """Yield the candidates that are new, and remember them."""
        for candidate in candidates:
            words = re.findall(r"[a-z]+", candidate.lower())
            ends = range(max(1, len(words) - self._run + 1))
            runs = [zlib.crc32(" ".join(words[start : start + self._run]).encode()) for start in ends]
            if sum(run in self._runs for run in runs) <= 0.5 * len(runs):
                yield candidate
            self._runs.update(runs)
