#!/bin/sh
# Teach a model forty things that it has never seen, and measure what it learns and what it forgets.
#
#     sh examples/new_words.sh runs/new-words
#     PAIRS=300 OPTIONS="--lr 5e-4 --new-factor 1 --epochs 24 --freeze towers" sh examples/new_words.sh runs/few
#
# Needs `bt`, and the Python that has it. MODEL is what learns, PAIRS how many pairs of new things there are, OPTIONS how
# it learns. The same command goes on where it was stopped.
set -eu
folder=${1:?"name a folder for pictures and models: sh examples/new_words.sh runs/new-words"}
model=${MODEL:-demo} pairs=${PAIRS:-1000} options=${OPTIONS:---lr 5e-4 --new-factor 1 --epochs 12}
root=$(CDPATH='' cd "$(dirname "$0")/.." && pwd)
mkdir -p "$folder"

draw() {  # NAME OPTIONS...: a folder of pictures with captions.jsonl, complete once it is there
    name=$1
    shift
    [ -d "$folder/$name" ] && return
    rm -rf "$folder/unfinished"
    python3 "$root/examples/scenes/draw.py" --out "$folder/unfinished" "$@"
    mv "$folder/unfinished" "$folder/$name"
}

measure() {  # MODEL WORDS...: R@1 of both stages for each of the two sets that no training has seen
    measured=$1
    shift
    for set in new-fresh old-fresh; do
        echo "$*, $set"
        bt eval "$folder/$set/captions.jsonl" --model "$measured" --depth 20 2>"$folder/messages" || {
            cat "$folder/messages" >&2
            exit 1
        }
    done
}

teach() {  # NAME OPTIONS...
    name=$1
    shift
    # shellcheck disable=SC2086  # several words
    bt train "$folder/new-$pairs/captions.jsonl" --init "$model" --out "$folder/$name" --val-share 0 $options "$@"
}

draw "new-$pairs" --new --count "$pairs" --seed 3
draw new-fresh --new --held-out --count 200 --seed 4
draw old --count 3000 --seed 5
draw old-fresh --held-out --count 500 --seed 6

measure "$model" before
teach replayed --replay "$folder/old/captions.jsonl"
measure "$folder/replayed" "after, with replay"
teach forgetful
measure "$folder/forgetful" "after, without replay"
