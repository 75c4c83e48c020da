#!/bin/sh
# Makes src/sim/clip.ts: eight seconds of H.264 and AAC that src/sim/media/clip.rs repeats without a seam.
#
#     scripts/make-clip.sh [OUTPUT]
#
# Eight seconds are 200 pictures at 25 a second and 375 AAC frames of 1024 samples at 48 kHz: both whole, so
# that the next round begins exactly where this one ends. Needs ffmpeg with libx264; made with ffmpeg 5.1.
set -eu

out=${1:-$(dirname "$0")/../src/sim/clip.ts}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

quiet() { ffmpeg -nostdin -hide_banner -v error -y "$@"; }

# A low hum with a beep at each full second. Both are whole numbers of periods in eight seconds, so that any
# frame equals the one 375 later. The middle is taken: an encoder primes its first frames.
quiet -f lavfi -i "aevalsrc=exprs='0.05*sin(2*PI*200*t)+0.25*sin(2*PI*1000*t)*lt(mod(t\,1)\,0.1)':s=48000:d=24" \
    -ac 2 -c:a aac -profile:a aac_low -b:a 64k "$work/long.aac"
quiet -i "$work/long.aac" -ss 8 -c:a copy -frames:a 375 -f adts "$work/middle.aac"

# Main profile without B pictures: decoding order is display order. Every 25th picture is an IDR with its own
# parameter sets, so that a player can begin at any second. The encoder's SEI text is dropped.
# The PCR comes every 20 ms or with each picture, 100 ms before the picture is due.
quiet -f lavfi -i testsrc2=size=640x360:rate=25:duration=8 -i "$work/middle.aac" \
    -map 0:v -map 1:a \
    -c:v libx264 -preset veryslow -profile:v main -pix_fmt yuv420p -bf 0 -g 25 -keyint_min 25 -sc_threshold 0 \
    -b:v 380k -maxrate 450k -bufsize 450k -flags +cgop -x264-params repeat-headers=1:threads=1 \
    -bsf:v filter_units=remove_types=6 \
    -c:a copy -fflags +bitexact -flags:v +bitexact \
    -metadata service_provider=acerelay -metadata service_name="acerelay test picture" \
    -muxdelay 0.1 -muxpreload 0 -pcr_period 20 -pat_period 0.4 -sdt_period 2 -pes_payload_size 640 \
    -f mpegts "$out"

packets=$(($(wc -c <"$out") / 188))
frames=$(ffprobe -v error -count_packets -show_entries stream=codec_type,nb_read_packets -of csv=p=0 "$out" | sort | uniq | tr '\n' ' ')
echo "$out: $packets packets of 188 bytes; $frames"
