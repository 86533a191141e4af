#!/bin/sh
# The main job on the arrays of this folder: look, fit, apply, undo. Run by `make demo`.
set -eu
mkdir -p "${1:-demo-output}"
out=$(cd "${1:-demo-output}" && pwd)
rm -rf "$out"
mkdir -p "$out"
cd "$(dirname "$0")/.."
run() {
    printf '\n$ normcli'
    for word in "$@"; do printf ' %s' "$word"; done
    printf '\n'
    normcli "$@"
}

run inspect sample_data/co2.h5
run fit sample_data/patches.zarr -o "$out/patches.json"
run apply sample_data/patches.zarr -o "$out/patches.zarr" --stats "$out/patches.json"
run apply sample_data/patches.zarr -o "$out/patches.h5" --mode instance
run apply sample_data/co2.h5/co2/weekly -o "$out/co2.h5" --layout T
run apply sample_data/digits.npy -o "$out/digits.npy" --layout NHW --mode layer --aggregate HW
run apply "$out/digits.npy" -o "$out/digits-back.npy" --inverse --stats "$out/digits.npy.stats.json"
run inspect "$out/patches.json"
