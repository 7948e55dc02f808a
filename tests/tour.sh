#!/usr/bin/env bash
# A new user's tour, word by word as the docs have it: own images, own recipe, own network, fine-tuning,
# evaluation, predictions, export, and Keras' fit. Usage: tests/tour.sh [RANKS]
#
# It runs in a folder of its own, which is kept where something fails.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
RANKS=${1:-2}
FOLDER=$(mktemp -d "${TMPDIR:-/tmp}/ba_dist-tour.XXXXXX")
export PATH="$ROOT/.venv/bin:$PATH"
cd "$FOLDER"

ranks() { "$ROOT/launch/mpirun.sh" -n "$RANKS" -- "$@"; }

step() { printf '\n== %s\n' "$*"; }

# Says what was expected of the last command. Usage: expect PATTERN FILE
expect() {
  grep -Eq -- "$1" "$2" || {
    printf 'no line of %s is like %s:\n' "$FOLDER/$2" "$1" >&2
    cat "$2" >&2
    exit 1
  }
}

step "a folder of images, one folder a class"
python - <<'END'
from pathlib import Path
from PIL import Image
from sklearn.datasets import load_digits

digits = load_digits()
for i, (pixels, label) in enumerate(zip(digits.images, digits.target)):
    if label < 4:
        split = "val" if i % 5 == 0 else "train"
        folder = Path("images", split, ("zero", "one", "two", "three")[label])
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray((pixels * 15.9).astype("uint8")).convert("RGB")
        image.resize((20, 24)).save(folder / f"{i}.png")
END
ba-dist data prepare pictures --data-dir images | tee prepared.txt
expect "^pictures: ready" prepared.txt

step "a recipe of my own, on it"
cat >my_recipes.py <<'END'
from ba_dist.config import Augment, Batch, Config, Data, Model, Optimizer, Run


def digits():
    """Four digits in files."""
    return Config(
        recipe="digits",
        batch=Batch(batch_size=32, multiplicity=2, ghost_batch_size=16),
        data=Data(dataset="pictures", data_dir="images", image_size=16),
        augment=Augment(crop="random-resized", crop_area=0.5, resize=16),
        model=Model(model="resnet8"),
        optimizer=Optimizer(lr=((0, 0.1),)),
        run=Run(epochs=3),
    )
END
ba-dist train my_recipes.py:digits --dry-run -n "$RANKS" | tee dry.txt
expect "$RANKS ranks = " dry.txt
ranks train my_recipes.py:digits --run-dir first --trace --keep-best --ema 0.9 | tee trained.txt
expect "validation accuracy +[0-9.]+%" trained.txt

step "how good it is, and whether it trained as it should"
ranks eval first --per-class | tee eval.txt
expect "val_top1" eval.txt
ba-dist audit first | tee audit.txt
expect "^clean: " audit.txt
ba-dist plot first --output curves.png
ba-dist plot curves first | tee errors.txt
expect "error at the end" errors.txt
ba-dist compare first | tee compared.txt
expect "first +[0-9.]+%" compared.txt
ba-dist report first
ba-dist plot confusion first --output confusion.png

step "fine-tuned on two of the classes, with AdamW"
mkdir -p two/train two/val
cp -r images/train/zero images/train/one two/train/
cp -r images/val/zero images/val/one two/val/
ranks train my_recipes.py:digits --data-dir two --init-from first --lr 0.001 --optimizer adamw \
  --epochs 1 --run-dir second | tee tuned.txt
expect "starting from " tuned.txt

step "what it says of images"
ba-dist predict second two/val/one --top 2 | tee answers.txt
expect "one" answers.txt

step "export, and use without ba_dist"
ba-dist export second --output digits.keras
ba-dist export second --output digits.npz
python - <<'END'
import sys

sys.modules["ba_dist"] = None  # as where it is not installed
import keras
import numpy as np

logits = keras.models.load_model("digits.keras")(np.zeros((1, 16, 16, 3), "uint8"))
assert logits.shape == (1, 2), logits.shape
END

step "my own script, with Keras' fit"
cp "$ROOT/docs/examples/fit.py" fit.py
ranks python fit.py | tee fit.txt
expect "val_accuracy: 0\.9" fit.txt

step "mistakes"
for words in "train quickstart --bach-size 32" "train my_recipes.py:nothing" "eval nowhere" \
  "train my_recipes.py:digits --data-dir nowhere --run-dir third"; do
  # shellcheck disable=SC2086  # words
  if ranks $words >mistake.txt 2>&1; then
    echo "not refused: $words" >&2 && exit 1
  fi
  cat mistake.txt
  if grep -q Traceback mistake.txt; then exit 1; fi
  [ ! -e third ] || exit 1
done
cd / && rm -rf "$FOLDER"
printf '\nthe tour is over\n'
