#!/usr/bin/env bash
# Two image models watch HalfCheetah while six agents run it; is one agent's policy found in what they see?
# Usage: examples/half_cheetah.sh AGENTS OUT, where AGENTS holds <algorithm>_HalfCheetah-v3.zip and what
# lies beside them in the rl-trained-agents of Stable-Baselines3.
set -euo pipefail
agents=$1 out=$2
mirror=${MIRROR:-mirror}

policies=()
for algorithm in tqc sac ppo ars a2c trpo; do
  policies+=(--policy "$agents/${algorithm}_HalfCheetah-v3.zip")
done
"$mirror" episodes gym:HalfCheetah-v5 --camera track --horizon 100 --frames 8 --size 128 \
  --per-task 30 "${policies[@]}" --out "$out/episodes"
for watcher in efficientnet-lite0 efficientnet-lite2; do
  "$mirror" compare "$watcher" "$agents/tqc_HalfCheetah-v3.zip" \
    --episodes "$out/episodes" --out "$out/$watcher-tqc"
done
