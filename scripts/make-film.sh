#!/bin/sh
# Makes src/sim/film.mp4: three minutes of H.264 and AAC for the film of the simulated engine.
#
#     scripts/make-film.sh [OUTPUT]
#
# A test picture that shows its own time, with a beep every ten seconds: small and slow, since it is compiled into the program,
# but a real film, with an index of its own and a picture to begin from every five seconds. Needs ffmpeg with libx264; made
# with ffmpeg 5.1.
set -eu

out=${1:-$(dirname "$0")/../src/sim/film.mp4}
length=180

ffmpeg -nostdin -hide_banner -v error -y \
    -f lavfi -i "testsrc=size=192x108:rate=5:duration=$length" \
    -f lavfi -i "aevalsrc=exprs='0.3*sin(2*PI*500*t)*lt(mod(t\,10)\,0.2)':s=8000:d=$length" \
    -map 0:v -map 1:a \
    -c:v libx264 -preset veryslow -profile:v main -pix_fmt yuv420p -crf 36 -g 25 -keyint_min 25 -sc_threshold 0 \
    -x264-params threads=1 -bsf:v filter_units=remove_types=6 \
    -c:a aac -ac 1 -b:a 8k \
    -fflags +bitexact -flags:v +bitexact -flags:a +bitexact -movflags +faststart \
    -f mp4 "$out"

echo "$out: $(wc -c <"$out") bytes, $length s"
