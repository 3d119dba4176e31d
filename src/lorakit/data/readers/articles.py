"""Articles with paragraphs and questions, as SQuAD files nest them, brought to a row a question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lorakit.errors import DataError


def is_article(fields: Mapping[str, Any]) -> bool:
    """Return whether an object holds paragraphs, each with questions of its own."""
    paragraphs = fields.get("paragraphs")
    return isinstance(paragraphs, list) and all(isinstance(one, Mapping) and "qas" in one for one in paragraphs)


def questions(article: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield ``title``, ``context`` and the fields of each question (Rajpurkar et al. 2016, arXiv:1606.05250).

    Raises:
        DataError: A paragraph or a question is no object of that kind; says which, from 1.
    """
    title = {"title": article["title"]} if "title" in article else {}
    for number, paragraph in enumerate(article["paragraphs"], start=1):
        asked = paragraph["qas"]
        if not isinstance(asked, list):
            raise DataError(f"paragraph {number}: 'qas' is no list of questions")
        for place, question in enumerate(asked, start=1):
            if not isinstance(question, Mapping):
                raise DataError(f"paragraph {number}: question {place} is no object")
            context = {"context": paragraph["context"]} if "context" in paragraph else {}
            yield {**title, **context, **question}
