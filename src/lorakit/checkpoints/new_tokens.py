"""Tokens that a vocabulary lacks: read, checked, added, and given rows of the embedding that begin where they were."""

from __future__ import annotations

import copy
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lorakit.errors import LorakitError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class NewTokens:
    """Tokens that a checkpoint's vocabulary lacked, and their rows."""

    tokenizer: PreTrainedTokenizerBase
    """With the new tokens, as ordinary ones."""
    tokens: tuple[str, ...]
    ids: tuple[int, ...]
    """Row of each token in embeddings and output layer."""
    pieces: tuple[tuple[int, ...], ...]
    """What each token was cut into before."""
    stored: int
    """Rows of the embedding in the checkpoint's files."""
    rows: int
    """Rows that are needed: as many, where spare ones are left, else more."""

    def give_rows(self, model: PreTrainedModel) -> None:
        """Enlarge embeddings and output layer as far as needed, and set the rows of the new tokens."""
        import torch

        if self.rows > self.stored:
            # transformers draws new rows at random; the caller's random numbers must not move.
            with torch.random.fork_rng(devices=[]):
                model.resize_token_embeddings(self.rows, mean_resizing=False)
        for tensor in vocabulary_tensors(model).values():
            with torch.no_grad():
                tensor.copy_(self.with_rows(tensor))

    def with_rows(self, stored: Tensor) -> Tensor:
        """Return a tensor that has an entry a token with the entries of the new tokens: the mean of their pieces.

        Args:
            stored: Shape (V, D) or (V,), or (1, V), V the rows as stored or already as needed.

        Returns:
            The same with V as needed, in the dtype of `stored`; the means are taken in float64. Entries of no token
            are zero.
        """
        import torch

        by_token = stored.T if stored.shape[0] == 1 else stored
        extra = torch.zeros((self.rows - len(by_token), *by_token.shape[1:]), dtype=stored.dtype, device=stored.device)
        result = torch.cat([by_token, extra])
        for number, pieces in zip(self.ids, self.pieces, strict=True):
            result[number] = by_token[list(pieces)].double().mean(dim=0).to(stored.dtype)
        return result.T if stored.shape[0] == 1 else result

    def stored_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape in the checkpoint's files of a tensor that has an entry a token."""
        return (1, self.stored) if shape[0] == 1 else (self.stored, *shape[1:])


def vocabulary_tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return every tensor of a model that has an entry a token, by name, one of several names each.

    These are the embeddings, the output layer with its bias, and the constant that BART and Marian add to scores.
    """
    output = model.get_output_embeddings()
    meant = [model.get_input_embeddings().weight, getattr(model, "final_logits_bias", None)]
    if output is not None:
        meant += [output.weight, getattr(output, "bias", None)]
    chosen = {id(tensor) for tensor in meant if tensor is not None}
    named = model.state_dict(keep_vars=True)
    return {name: tensor for name, tensor in reversed(named.items()) if id(tensor) in chosen}


def read(setting: str | Sequence[str]) -> list[str]:
    """Return the tokens of a recipe: a list, or the lines of a file.

    Raises:
        LorakitError: The file cannot be read, or a token is empty, doubled, or no plain text; says which line.
    """
    if not isinstance(setting, str):
        return _checked([(f"model.add_tokens, entry {number}", token) for number, token in enumerate(setting, 1)])
    file = Path(setting).expanduser()
    try:
        lines = file.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as problem:
        raise LorakitError(f"{file} is not UTF-8 text (byte {problem.start}): save it as UTF-8.") from None
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise LorakitError(
            f"model.add_tokens: {file} cannot be read: {reason}. Name a file with one token a line, or write a list: "
            f"[token, token]."
        ) from None
    if lines[-1] == "":
        lines.pop()
    return _checked([(f"{file} line {number}", line.removesuffix("\r")) for number, line in enumerate(lines, 1)])


def _checked(places: Iterable[tuple[str, str]]) -> list[str]:
    seen: dict[str, str] = {}
    for where, token in places:
        if not token.strip():
            raise LorakitError(f"{where} is empty: give one token, or remove it.")
        if token != token.strip():
            raise LorakitError(f"{where}: {token!r} has white space at an end. Remove it.")
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in token):
            raise LorakitError(f"{where}: {token!r} holds a control character, which is no part of a word. Remove it.")
        if token in seen:
            raise LorakitError(f"{where}: {token!r} is there already ({seen[token]}). Remove one of the two.")
        seen[token] = where
    if not seen:
        raise LorakitError("model.add_tokens names no token: give at least one, or leave it out.")
    return list(seen)


def add(
    tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str], stored: int, earlier: NewTokens | None = None
) -> tuple[NewTokens | None, list[str]]:
    """Add tokens to a copy of a tokenizer.

    Args:
        tokenizer: Of the checkpoint; stays as it is.
        tokens: As `read` gives them.
        stored: Rows of the checkpoint's embedding.
        earlier: Tokens that an adapter on this checkpoint has added; then no others can be.

    Returns:
        What is new, None where nothing is, and what is to be told about it.

    Raises:
        LorakitError: A control token, two tokens that the tokenizer reads as one, a token it could not write back, or
            new ones beside those of an adapter.
    """
    control = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    control |= set(tokenizer.all_special_tokens)
    refused = next((token for token in tokens if token in control), None)
    if refused is not None:
        raise LorakitError(f"model.add_tokens: {refused!r} is a control token of this model, no word. Remove it.")
    cut = {token: _pieces(tokenizer, token) for token in tokens}
    known = {token for token in tokens if _is_known(tokenizer, token, cut[token])}
    notes = [f"{_counted(known)} to be added {_is(known)} in the vocabulary already: {_listed(known)}"] if known else []
    lacked = {token: pieces for token, pieces in cut.items() if token not in known}
    if not lacked:
        return earlier, notes
    if earlier is not None:
        raise LorakitError(
            f"model.add_tokens: {_listed(lacked)} cannot be added beside the {len(earlier.tokens)} tokens that the "
            f"adapter has added. Merge it first (lorakit merge) and train on the merged model."
        )
    _check_apart(tokenizer, lacked)
    larger = copy.deepcopy(tokenizer)
    larger.add_tokens(list(lacked))
    ids = tuple(int(larger.convert_tokens_to_ids(token)) for token in lacked)
    _check_written_back(larger, lacked, ids)
    unknown = {token for token, pieces in lacked.items() if set(pieces) == {tokenizer.unk_token_id}}
    if unknown:
        notes.append(
            f"{_counted(unknown)} begin{'s' * (len(unknown) == 1)} as {tokenizer.unk_token}: no piece is known"
        )
    rows = max(stored, max(ids) + 1)
    return NewTokens(larger, tuple(lacked), ids, tuple(map(tuple, lacked.values())), stored, rows), notes


def _pieces(tokenizer: PreTrainedTokenizerBase, token: str) -> list[int]:
    return list(tokenizer(token, add_special_tokens=False, split_special_tokens=True, verbose=False).input_ids)


def _is_known(tokenizer: PreTrainedTokenizerBase, token: str, pieces: Sequence[int]) -> bool:
    alone = len(pieces) == 1 and pieces[0] != tokenizer.unk_token_id
    return alone or token in tokenizer.get_vocab()


def _check_apart(tokenizer: PreTrainedTokenizerBase, lacked: Mapping[str, Sequence[int]]) -> None:
    """Raise LorakitError for tokens of which the tokenizer's normalising leaves nothing, or the same text twice."""
    seen: dict[str, str] = {}
    for token, pieces in lacked.items():
        plain = _normalised(tokenizer, token)
        if not plain.strip() or not pieces:
            raise LorakitError(f"model.add_tokens: this tokenizer reads nothing in {token!r}. Remove it.")
        if plain in seen:
            raise LorakitError(
                f"model.add_tokens: this tokenizer reads {seen[plain]!r} and {token!r} as one ({plain!r}). Keep one."
            )
        seen[plain] = token


def _check_written_back(larger: PreTrainedTokenizerBase, tokens: Iterable[str], ids: Sequence[int]) -> None:
    for token, number in zip(tokens, ids, strict=True):
        found = _pieces(larger, token)
        # A mark of a word's start may stand before it.
        if number not in found:
            raise LorakitError(
                f"model.add_tokens: this tokenizer does not find {token!r} as a token of its own. Remove it."
            )
        written = larger.decode([number]).strip()
        if _normalised(larger, written) != _normalised(larger, token):
            raise LorakitError(
                f"model.add_tokens: this tokenizer would write {token!r} back as {written!r}: it takes such letters "
                f"for bytes. Remove it."
            )


def _normalised(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """Return a text as the tokenizer sees it: without capitals, or with Hangul taken apart."""
    normalizer = tokenizer.backend_tokenizer.normalizer if tokenizer.is_fast else None
    return str(normalizer.normalize_str(text)).strip() if normalizer is not None else text


def _counted(tokens: Sequence[str] | set[str]) -> str:
    return f"{len(tokens):,} token{'s' * (len(tokens) != 1)}"


def _is(tokens: set[str]) -> str:
    return "is" if len(tokens) == 1 else "are"


def _listed(tokens: Iterable[str], most: int = 6) -> str:
    listed = list(tokens)
    return ", ".join(map(repr, listed[:most])) + (f", … ({len(listed)} in all)" if len(listed) > most else "")
