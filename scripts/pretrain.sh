#!/usr/bin/env bash
# Make a built-in checkpoint again: gather the text, draw random weights, pretrain, store in bfloat16.
#   scripts/pretrain.sh tiny-gpt|tiny-bert|tiny-t5 [--resume]   # --resume goes on with one that was stopped
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"

name="${1:-}"
case "$name" in
  tiny-gpt) shape=(gpt2 --vocab-size 4096 --layers 4 --hidden 192 --heads 6) ;;
  tiny-bert) shape=(bert --vocab-size 7680 --layers 4 --hidden 160 --heads 5) ;;
  tiny-t5) shape=(t5 --vocab-size 6144 --layers 3 --hidden 144 --heads 6) ;;
  *) echo "usage: scripts/pretrain.sh tiny-gpt|tiny-bert|tiny-t5 [--resume]" >&2; exit 2 ;;
esac
shift
work="build/$name"

learn() { # RECIPE FOLDER: train, or go on where it was stopped; what is done is not done again
  if [[ -e "$2/manifest.json" ]]; then return; fi
  if [[ -e "$2/checkpoints" ]]; then lorakit train --resume -o "$2"; else lorakit train "$1" -o "$2"; fi
}

if [[ "${1:-}" != --resume ]]; then
  rm -rf "$work"
  mkdir -p "$work"
  python -m scripts.corpus -o "$work/corpus.txt" --evaluation "$work/heldout.txt" --seed 0
  lorakit new "${shape[@]}" --tokenizer-from "$work/corpus.txt" --positions 256 --seed 0 -o "$work/random"
fi
if [[ "$name" == tiny-bert ]]; then
  learn scripts/tiny-bert.yaml "$work/shorter"
  learn scripts/tiny-bert-longer.yaml "$work/run"
else
  learn "scripts/$name.yaml" "$work/run"
fi
lorakit merge "$work/run" -o "src/lorakit/builtin/$name" --dtype bfloat16 --data "$work/heldout.txt" --force
cat "scripts/$name-card.md" >> "src/lorakit/builtin/$name/README.md"
