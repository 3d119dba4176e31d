"""Learn hidden words from both sides; with `nsp`, also whether two pieces of text follow each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from lorakit.data.framing import FramedEncoder, padding_id
from lorakit.data.readers.faults import counted
from lorakit.errors import DataError
from lorakit.objectives.base import IGNORED, Shared, hits, laid, read_by_model, word_loss, word_scores
from lorakit.objectives.frame import Frame
from lorakit.objectives.mask_filling import MaskFilling
from lorakit.objectives.sentence_pairs import Document, Pair, Pairing, check_next_sentence, sentence_ends
from lorakit.objectives.settings import MaskedLMSettings
from lorakit.types import Batch, Example, Head, Job, Row

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass
class MaskedLM(Shared):
    """Masked words and next sentences (Devlin et al. 2019, arXiv:1810.04805, section 3.1), summed over predictions.

    `Example.labels` hold the number of each position's word, IGNORED at control tokens, because masks are drawn only
    when examples are laid side by side; before these numbers, with `nsp`, a 1 where the second piece is random and a 0
    where it follows the first, as in transformers' ``seq_relationship_logits``.
    """

    job: Job
    counted: Counter[str] = field(default_factory=Counter)
    """Documents and pairs, over all calls of `encode`."""

    name = "masked_lm"
    steady = False

    def __post_init__(self) -> None:
        tokenizer = self.job.tokenizer
        self.settings = cast(MaskedLMSettings, self.job.settings)
        if tokenizer.mask_token_id is None:
            raise DataError(
                "the tokenizer has no mask token, so no word can be hidden. Set mask_token in the checkpoint's "
                "tokenizer_config.json, or give another model."
            )
        if self.settings.nsp:
            check_next_sentence(str(self.job.config.get("model_type")))
        self.apart = not self.settings.nsp
        self.encoder = FramedEncoder(tokenizer)
        self.frame = Frame.of(self.encoder, pair=self.settings.nsp)
        self.room = self.job.max_length - len(self.frame)
        """Most tokens of text in an example."""
        if self.room < 2:
            raise DataError(
                f"max_length {self.job.max_length} leaves no room for text: the tokenizer adds {len(self.frame)} "
                "tokens of its own. Raise data.max_length."
            )
        special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        self.special_ids = np.array(sorted(special | set(tokenizer.all_special_ids)))
        self.ordinary_ids = np.setdiff1d(sorted(tokenizer.get_vocab().values()), self.special_ids)
        """What a hidden token may be exchanged for."""

    @classmethod
    def of(cls, job: Job) -> Self:
        """Return the objective for `job`.

        Raises:
            DataError: The tokenizer has no mask token, the model type no next-sentence head, or no text has room.
        """
        return cls(job)

    @property
    def head(self) -> Head:
        """Scores over the vocabulary, with `nsp` of next sentences too."""
        return Head("masked_lm_nsp" if self.settings.nsp else "masked_lm")

    @property
    def notes(self) -> list[str]:
        """Counted lines about documents without text, and how pairs came out."""
        notes = []
        if self.counted["empty"]:
            notes.append(f"{counted(self.counted['empty'], 'document')} without a word that can be hidden: left out")
        if self.counted["pairs"]:
            notes.append(f"{self.counted['true']:,} of {self.counted['pairs']:,} pairs of text follow each other")
        return notes

    def encode(self, rows: Sequence[Row], first: int = 0) -> list[Example]:
        """Cut documents into windows, with `nsp` into pairs, of at most `max_length` tokens, control tokens included.

        Every token lies in exactly one window; short documents stay whole.

        Args:
            rows: Rows of {text}.
            first: Number of the first row in reading order.

        Raises:
            DataError: With `nsp`, fewer than two documents hold text.
        """
        documents = [document for document in self._documents(rows, first) if (document.words >= 0).any()]
        self.counted["empty"] += len(rows) - len(documents)
        if not self.settings.nsp:
            return [window for document in documents for window in self._windows(document)]
        if len(documents) < 2:
            raise DataError(
                f"next sentences (objective.nsp) need two documents at least, and here is {len(documents)}: a false "
                "neighbour is taken from another document. Give each document a row of its own, or set "
                "objective.nsp=false."
            )
        pairing = Pairing(documents, self.room, self.job.seed)
        return [
            self._paired(pair, part)
            for number in range(len(documents))
            for part, pair in enumerate(pairing.pairs(number))
        ]

    def learned(self, example: Example) -> int:
        """Return how many tokens are hidden, of whole words about."""
        return self._hidden(int((self._words(example) != IGNORED).sum()))

    def collate(self, examples: Sequence[Example], packed: bool, epoch: int | None = None) -> Batch:
        """Draw masks and lay examples end to end in one row (`packed`), or one below the other, padded at the right."""
        return self.laid(examples, [self._masked(example, epoch) for example in examples], packed)

    def laid(self, examples: Sequence[Example], drawn: Sequence[tuple[np.ndarray, np.ndarray]], packed: bool) -> Batch:
        """Lay examples side by side.

        Args:
            examples: As they were encoded.
            drawn: Of each its ids with masks in them, shape (T,), and the positions that are predicted.
            packed: Whether they lie end to end in one row.
        """
        import torch

        tokenizer, first_position = self.job.tokenizer, self.job.family.first_position
        inputs, starts = read_by_model([ids for ids, _ in drawn], packed, padding_id(tokenizer), first_position)
        positions = [start + chosen for start, (_, chosen) in zip(starts, drawn, strict=True)]
        targets = {
            "positions_L": np.concatenate(positions),
            "targets_L": np.concatenate([example.ids[at] for example, (_, at) in zip(examples, drawn, strict=True)]),
        }
        if self.settings.nsp:
            targets["labels_B"] = np.array([example.labels[0] for example in examples])
            if self.job.config.get("type_vocab_size", 0) > 1:
                segments = [cast(np.ndarray, example.segments) for example in examples]
                inputs["token_type_ids"] = torch.from_numpy(laid(segments, packed)[0])
        lengths = tuple(len(example) for example in examples)
        return Batch(
            inputs=inputs,
            targets={name: torch.from_numpy(target.astype(np.int64)) for name, target in targets.items()},
            lengths=lengths if packed else (),
            rows=tuple(example.row for example in examples),
            tokens=sum(lengths),
        )

    def counts(self, batch: Batch) -> dict[str, float]:
        """Return the number of hidden tokens, and with `nsp` that of pairs."""
        counts = {"mlm": float(len(batch.targets["targets_L"]))}
        return {**counts, "nsp": float(len(batch.rows))} if self.settings.nsp else counts

    def outputs(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return ``mlm_LV``, scores at hidden tokens, and with `nsp` ``nsp_B2``: follows, is random; float32."""
        from lorakit.fast.pooling import pooler_reads

        with pooler_reads(model, batch.lengths) if self.settings.nsp else nullcontext():
            mlm_LV, output = word_scores(model, batch, self.job.label_logits_only)
        if self.settings.nsp:
            return {"mlm_LV": mlm_LV, "nsp_B2": output.seq_relationship_logits.float()}
        return {"mlm_LV": mlm_LV}

    def losses(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropies in nats, each summed over its own predictions, shape () each, float32."""
        losses = {"mlm": word_loss(outputs["mlm_LV"], batch.targets["targets_L"])}
        if self.settings.nsp:
            losses["nsp"] = word_loss(outputs["nsp_B2"], batch.targets["labels_B"])
        return losses

    def tallies(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, tuple[float, float]]:
        """Return how many hidden tokens, and pairs, get the highest score."""
        tallies = {"mlm_accuracy": hits(outputs["mlm_LV"], batch.targets["targets_L"])}
        if self.settings.nsp:
            tallies["nsp_accuracy"] = hits(outputs["nsp_B2"], batch.targets["labels_B"])
        return tallies

    def predict(self, model: nn.Module, rows: Sequence[Row], top: int = 5, tokens: int = 2048) -> list[dict[str, Any]]:
        """Return the most probable words of each mask, or whether the second of two texts follows the first.

        Args:
            model: In eval mode, with this objective's head.
            rows: {text} with the tokenizer's mask token, or ``[MASK]``, in the place of words; with `nsp` also {text,
                text_pair}.
            top: How many words are listed for each mask.
            tokens: Tokens computed at once, padding included.

        Returns:
            A mapping a row: {text, masks: [{start, end, words: [{word, probability}, ...]}, ...]}, the text with the
            best words in it and begin and end of each mask in characters of the text given; of a pair {is_next,
            probability}, the probability that it follows.

        Raises:
            DataError: A text holds no mask or is too long, or the model has not learned next sentences.
        """
        return MaskFilling(self, rows, top).answers(model, tokens)

    def _documents(self, rows: Sequence[Row], first: int) -> Iterable[Document]:
        texts = [row.fields["text"] for row in rows]
        for number, (row, text, framed) in enumerate(zip(rows, texts, self.encoder.singles(texts), strict=True)):
            ids, words = framed.ids[framed.of_text], framed.words[framed.of_text]
            # A token belongs to the sentence in which its last character stands: its first may be the space before.
            last = framed.offsets[framed.of_text, 1] - 1
            limits = sentence_ends(text) if self.settings.nsp else [len(text)]
            sentence = np.maximum.accumulate(np.searchsorted(limits, last, side="right"))
            ends = np.append(np.flatnonzero(np.diff(sentence) > 0) + 1, len(ids))
            words = np.where(np.isin(ids, self.special_ids), IGNORED, words)
            yield Document(ids, words, ends, first + number, row.where)

    def _windows(self, document: Document) -> Iterable[Example]:
        for part, begin in enumerate(range(0, len(document.ids), self.room)):
            piece = slice(begin, begin + self.room)
            words = self.frame.laid(document.words[piece], control=IGNORED)
            if (words != IGNORED).any():
                ids = self.frame.laid(document.ids[piece])
                yield Example(ids, words, document.row, document.where, part=part)

    def _paired(self, pair: Pair, part: int) -> Example:
        one, two = slice(pair.begin, pair.cut), slice(pair.start, pair.stop)
        # Words of the second piece are numbered on from those of the first.
        shift = pair.first.words.max(initial=0) + 1
        second_words = pair.second.words[two]
        words = self.frame.laid(
            pair.first.words[one],
            np.where(second_words == IGNORED, IGNORED, second_words + shift),
            control=IGNORED,
        )
        self.counted["pairs"] += 1
        self.counted["true"] += not pair.is_random
        return Example(
            ids=self.frame.laid(pair.first.ids[one], pair.second.ids[two]),
            labels=np.concatenate(([pair.is_random], words)).astype(np.int32),
            row=pair.first.row,
            where=pair.first.where,
            segments=self.frame.segments(pair.cut - pair.begin, pair.stop - pair.start),
            part=part,
        )

    def _words(self, example: Example) -> np.ndarray:
        return example.labels[-len(example.ids) :]

    def _hidden(self, candidates: int) -> int:
        """Return how many of so many tokens are hidden."""
        return max(min(1, candidates), round(self.settings.probability * candidates))

    def _masked(self, example: Example, epoch: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids with masks in them, and the positions that are predicted, rising.

        Of the chosen tokens 80 % become the mask, 10 % a random one, and 10 % stay (section 3.1, appendix A.1).
        """
        drawn_epoch = 0 if epoch is None else epoch + 1
        draw = np.random.default_rng((self.job.seed, drawn_epoch, example.row, example.part))
        chosen = self._chosen(self._words(example), draw)
        fate = draw.random(len(chosen))
        exchanged = self.ordinary_ids[draw.integers(len(self.ordinary_ids), size=len(chosen))]
        ids_T = example.ids.copy()
        kept = np.where(fate < 0.9, exchanged, ids_T[chosen])
        ids_T[chosen] = np.where(fate < 0.8, self.job.tokenizer.mask_token_id, kept)
        return ids_T, chosen

    def _chosen(self, words: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        candidates = np.flatnonzero(words != IGNORED)
        count = self._hidden(len(candidates))
        if not self.settings.whole_words or not count:
            return np.sort(draw.permutation(candidates)[:count])
        numbers, sizes = np.unique(words[candidates], return_counts=True)
        order = draw.permutation(len(numbers))
        chosen: list[int] = []
        left = count
        for place in order:
            # A word that would be too much is passed over, as in the authors' code.
            if sizes[place] <= left:
                chosen.append(numbers[place])
                left -= sizes[place]
            if not left:
                break
        # Where all are too long the shortest is hidden: something has to be learned.
        return np.flatnonzero(np.isin(words, chosen or [numbers[sizes.argmin()]]))
