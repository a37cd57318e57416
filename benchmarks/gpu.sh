#!/usr/bin/env bash
# Everything that is measured on a GPU, in under twelve minutes; results are written as they come.
#
#     bash benchmarks/gpu.sh FOLDER training --meld $MERHAN_CORPORA/meld     eight minutes at most
#     bash benchmarks/gpu.sh FOLDER launch --meld $MERHAN_CORPORA/meld       four minutes at most
#     bash benchmarks/gpu.sh FOLDER all --meld $MERHAN_CORPORA/meld          both
#     bash benchmarks/gpu.sh FOLDER all --trial                              in small, on any machine
#
# FOLDER gets training.jsonl and launch.jsonl, which `gpu_training.py --recorded` and `gpu_launch.py --recorded` turn into
# the sections of RESULTS.md.
set -uo pipefail
case "${2:-}" in
    training | launch | all) ;;
    *) echo "usage: bash benchmarks/gpu.sh FOLDER training|launch|all [options]" >&2; exit 2 ;;
esac
results="$(mkdir -p "$1" && cd "$1" && pwd)"
part="$2"
shift 2
cd "$(dirname "$0")/.."
status=0

# Each has some seconds more than it gives itself, and what it has written stays if they are over.
if [ "$part" != launch ]; then
    timeout 480 "${PYTHON:-python}" benchmarks/gpu_training.py --seconds 400 --results "$results/training.jsonl" "$@" || status=1
fi
if [ "$part" != training ]; then
    timeout 240 "${PYTHON:-python}" benchmarks/gpu_launch.py --timeout 180 --utterances 300 --steps 24 \
        --results "$results/launch.jsonl" "$@" || status=1
fi
exit "$status"
