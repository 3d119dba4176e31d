#!/usr/bin/env bash
# The commands behind every published figure, one section each.
#   benchmarks/figures.sh [quickstart|e2e|stories|startup]...     # none named: all, in this order
# DATA names the folder with the public data sets that e2e and stories read; the other sections need nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
DATA=${DATA:-../shared/data}
OUT=${OUT:-runs/figures}

# Built-in model, shipped rows: train, merge, ask base, adapter and merged model, compare.
quickstart() {
  make quickstart
}

# E2E NLG, the task of the LoRA paper (Hu et al. 2021, section 5.4): facts of a restaurant -> a sentence.
e2e() {
  lorakit train --model tiny-gpt --data "$DATA/e2e_nlg/rebuilt_train/trainset_rebuilt.csv.gz" -o "$OUT/e2e" --force \
    --set data.columns.prompt=mr --set data.columns.completion=ref --set data.rows=5000 \
    --set data.eval="$DATA/e2e_nlg/official_csv/devset.csv" \
    --method lora --set method.rank=8 --epochs 3 --lr 2e-3 --seed 0 --set train.evaluate_every=60
  python -m benchmarks.e2e_prompts "$DATA/e2e_nlg/official_csv/devset.csv" --count 200 > "$OUT/e2e-prompts.jsonl"
  lorakit generate "$OUT/e2e" --input "$OUT/e2e-prompts.jsonl" --output "$OUT/e2e-answers.jsonl" --force
  python -m benchmarks.share_ended "$OUT/e2e" "$OUT/e2e-answers.jsonl"
}

# A real pretrained Llama of 260 k weights: greedy text from nothing, beside the sample its author published.
stories() {
  mkdir -p "$OUT"
  lorakit generate "$DATA/pretrained_stories260K/hf" "" --max-new-tokens 256 > "$OUT/story.txt"
  python -m benchmarks.same_story "$OUT/story.txt" "$DATA/pretrained_stories260K/stories260K.md"
}

# Median of five starts, in seconds; the first start of a day reads from disk and is the slowest.
startup() {
  python -m benchmarks.startup --help
  python -m benchmarks.startup --version
}

for section in "${@:-quickstart e2e stories startup}"; do
  for name in $section; do
    echo "== $name" >&2
    "$name"
  done
done
