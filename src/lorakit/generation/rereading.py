"""Answers that stand already, read again: two passes show which tokens greedy decoding would have taken."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lorakit.generation.constraints import Constraints
from lorakit.generation.context import Context
from lorakit.generation.decoding import checked_log_probabilities, longest_answer
from lorakit.generation.encoded import EncodedContext, context_of
from lorakit.generation.settings import DecodingSettings


@torch.inference_mode()
def missed(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    settings: DecodingSettings,
    eos_ids: Collection[int],
) -> list[Tensor]:
    """Return by how much each token of `answers` misses the best score of its place: 0 where it is the greedy choice.

    An answer of which no token misses anything is what greedy decoding writes, as each of its tokens is chosen after
    those before it; so `decode` is proved right in two passes in place of one a token.

    Args:
        model: A causal language model or an encoder-decoder in eval mode, on its device.
        prompts: Ids of each prompt, or of each source, at least one each.
        answers: Ids of each answer, at least one each; U in number.
        settings: `max_new_tokens` of what wrote them.
        eos_ids: Ids that end an answer.

    Returns:
        Differences of logits of each answer, shape (U,), float32, at least 0; infinite for a token that is forbidden.

    Raises:
        LorakitError: A prompt is empty or too long, or the logits are not finite.
    """
    context = context_of(model, prompts)
    longest = max(map(len, answers))
    # What stands behind an end is read, and nobody asks for its scores.
    answers_BU = torch.tensor([[*answer, *[answer[-1]] * (longest - len(answer))] for answer in answers])
    answers_BU = answers_BU.to(model.device)
    scores_BUV = _scores(context, answers_BU)
    checked_log_probabilities(scores_BUV.flatten(0, 1), step=1)
    constraints = Constraints(model, longest_answer(settings, context.limit, context.before[0]), eos_ids)
    missed_BU = torch.empty(answers_BU.shape)
    for place in range(longest):
        read = [[*before, *ids_U[:place]] for before, ids_U in zip(context.before, answers_BU.tolist(), strict=True)]
        scores_BV = constraints.apply(scores_BUV[:, place], read)
        taken_B1 = scores_BV.gather(1, answers_BU[:, place, None])
        missed_BU[:, place] = scores_BV.amax(dim=1) - taken_B1.squeeze(1)
    return [missed_U[: len(answer)] for missed_U, answer in zip(missed_BU, answers, strict=True)]


def _scores(context: Context | EncodedContext, answers_BU: Tensor) -> Tensor:
    """Return the logits by which each token of the answers is chosen, shape (B, U, V), float32."""
    first_B1V = context.read_prompts()[:, None]
    if answers_BU.shape[1] == 1:
        return first_B1V
    return torch.cat((first_B1V, context.read(answers_BU[:, :-1])), dim=1)
