#!/bin/sh
# Makes the recordings again from recordings.toml. Needs espeak-ng, sox and Python 3.11 or newer.
#
# Each sentence: espeak-ng, the telephone's band (200-3600 Hz) at 8 kHz, silence trimmed at both ends to 60 ms,
# loudness (RMS) brought to -20 dBFS and limited (-21 dBFS remain), mu-law WAV.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 - > "$work/list" <<'PY'
import tomllib
for r in tomllib.load(open("recordings.toml", "rb"))["recording"]:
    print(r["id"], r["role"], r["text"], sep="\t")
PY

tab=$(printf '\t')
while IFS="$tab" read -r id role text; do
    case $role in
        caller) voice=fr+f3 pitch=60 speed=170 ;;
        assistant) voice=fr+m3 pitch=38 speed=175 ;;
    esac
    espeak-ng -v "$voice" -p "$pitch" -s "$speed" -w "$work/raw.wav" -- "$text"
    sox -D "$work/raw.wav" -r 8000 -c 1 -b 16 "$work/band.wav" \
        gain -3 sinc 200-3600 \
        silence 1 0.02 0.3% reverse silence 1 0.02 0.3% reverse pad 0.06 0.06
    rms=$(sox "$work/band.wav" -n stats 2>&1 | awk '/^RMS lev dB/ { print $4 }')
    gain=$(awk "BEGIN { print -20 - ($rms) }")
    sox -D "$work/band.wav" -e mu-law -b 8 "$id.wav" gain -l "$gain"
    echo "$id.wav $(soxi -D "$id.wav") s"
done < "$work/list"
