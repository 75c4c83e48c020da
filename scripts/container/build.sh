#!/usr/bin/env bash
# Makes the image, by podman, docker or buildah, whichever is there: scripts/container/build.sh [ARCHITECTURE]...
# (amd64, arm64, arm; by default this machine's). Needs Rust with the target, as the README's "By hand" says.
#
#   --run   also runs the image of this machine's architecture before its simulated engine, and asks whether it is well
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

fail() {
    printf 'build.sh: %s\n' "$*" >&2
    exit 1
}

case $(uname -m) in
    x86_64) here=amd64 ;;
    aarch64) here=arm64 ;;
    arm*) here=arm ;;
    *) fail "no image for $(uname -m)" ;;
esac

run=
architectures=()
for argument in "$@"; do
    case $argument in
        --run) run=yes ;;
        amd64 | arm64 | arm) architectures+=("$argument") ;;
        *) fail "what is $argument? usage: scripts/container/build.sh [--run] [amd64] [arm64] [arm]" ;;
    esac
done
((${#architectures[@]})) || architectures=("$here")

builder=
for candidate in podman docker buildah; do
    if command -v "$candidate" >/dev/null && "$candidate" info >/dev/null 2>&1; then
        builder=$candidate
        break
    fi
done
[[ -n $builder ]] || fail 'none of podman, docker and buildah is here and works'

version=$(sed -n 's/^version = "\(.*\)"$/\1/p;T;q' Cargo.toml)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

for architecture in "${architectures[@]}"; do
    case $architecture in
        amd64) target=x86_64-unknown-linux-musl platform=linux/amd64 ;;
        arm64) target=aarch64-unknown-linux-musl platform=linux/arm64 ;;
        arm) target=armv7-unknown-linux-musleabihf platform=linux/arm/v7 ;;
    esac
    # Only another architecture needs another linker, and Rust brings one.
    if [[ $architecture != "$here" ]]; then
        name=${target^^}
        export "CARGO_TARGET_${name//-/_}_LINKER=rust-lld"
    fi
    # TLS, for lists from https addresses, needs a C compiler for the target; without one they are left out.
    features=(--no-default-features)
    if command -v "${target/-unknown/}-gcc" >/dev/null || { [[ $architecture == "$here" ]] && command -v musl-gcc >/dev/null; }; then
        features=()
    else
        printf '!! no C compiler for %s: built without https (musl-tools brings one for this machine) !!\n' "$target"
    fi
    cargo build --release "${features[@]}" --target "$target"

    context=$scratch/$architecture
    mkdir -p "$context/state"
    # A directory without a file is left out by some builders.
    : >"$context/state/.keep"
    install -m 755 "${CARGO_TARGET_DIR:-target}/$target/release/acerelay" "$context/acerelay"
    cp scripts/container/Containerfile "$context/Containerfile"

    tags=(--tag "acerelay:$version-$architecture")
    if [[ $architecture == "$here" ]]; then
        tags+=(--tag "acerelay:$version" --tag acerelay:latest)
    fi
    case $builder in
        # Only an image in Docker's format has a health check.
        buildah | podman) options=(--format docker) ;;
        docker) options=() ;;
    esac
    "$builder" build "${options[@]}" --platform "$platform" "${tags[@]}" -f "$context/Containerfile" "$context"
    printf '%s: %s\n' "acerelay:$version-$architecture" "$(stat -c %s "$context/acerelay") bytes of program"
done

[[ -n $run ]] || exit 0

# What is run here, as the user of the image: is it well, by its own health check; does it play; does it end when it is told
# to? The network is this machine's, and only the loopback interface.
image=localhost/acerelay:$version
[[ $builder == docker ]] && image=acerelay:$version
address=127.0.0.1:18765
url=http://$address
program=(--demo --listen "$address")

check() {
    local tries=50 bytes
    until "$@" /acerelay --health "$url" >/dev/null 2>&1; do
        ((tries--)) || fail 'it is not well'
        sleep 0.2
    done
    bytes=$(curl -s --max-time 5 "$url/ace/getstream?id=1111111111111111111111111111111111111111" | wc -c || true)
    ((bytes > 100000)) || fail "it does not play: $bytes bytes in 5 s"
    printf 'it is well, and played %s bytes in 5 s\n' "$bytes"
}

if [[ $builder != buildah ]]; then
    # The limits are those of compose.yaml; a machine that has less cannot give more.
    container=$("$builder" run --detach --no-healthcheck --network host --read-only --cap-drop ALL \
        --ulimit nofile=8192:8192 --ulimit nproc=4096:4096 "$image" "${program[@]}")
    trap '"$builder" rm --force "$container" >/dev/null 2>&1 || true; rm -rf "$scratch"' EXIT
    check "$builder" exec "$container"
    began=$SECONDS
    "$builder" stop --time 10 "$container" >/dev/null
    status=$("$builder" inspect --format '{{.State.ExitCode}}' "$container")
    ((status == 0 && SECONDS - began < 8)) || fail "it ended with $status after $((SECONDS - began)) s"
else
    # buildah alone runs what it has built in a changed root, without limits and capabilities of its own.
    container=$(buildah from "$image")
    trap 'buildah rm "$container" >/dev/null 2>&1 || true; rm -rf "$scratch"' EXIT
    buildah run --isolation chroot "$container" -- /acerelay "${program[@]}" >"$scratch/out" 2>&1 &
    check buildah run --isolation chroot "$container" --
    # buildah does not hand a signal on.
    kill -TERM "$(pgrep -f "^/acerelay ${program[*]}")"
    wait $! || fail "it ended with $?"
fi
printf 'it ended when it was told to\n'
