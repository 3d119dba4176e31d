#!/usr/bin/env bash
# Make the built-in checkpoint again: gather the text, draw random weights, pretrain, store in bfloat16.
#   scripts/pretrain.sh [--resume]      # --resume goes on with a pretraining that was stopped
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
work=build/tiny-gpt

if [[ "${1:-}" != --resume ]]; then
  python -m scripts.corpus -o "$work/corpus.txt" --evaluation "$work/heldout.txt" --seed 0
  lorakit new gpt2 --tokenizer-from "$work/corpus.txt" --vocab-size 4096 \
    --layers 4 --hidden 192 --heads 6 --positions 256 --seed 0 -o "$work/random" --force
fi
lorakit train scripts/tiny-gpt.yaml -o "$work/run" "$@"
lorakit merge "$work/run" -o src/lorakit/builtin/tiny-gpt --dtype bfloat16 --data "$work/heldout.txt" --force
cat scripts/tiny-gpt-card.md >> src/lorakit/builtin/tiny-gpt/README.md
