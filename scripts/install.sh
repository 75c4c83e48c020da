#!/bin/sh
# Installs acerelay and its systemd service. May be run again, for an update: what is configured is kept.
#
#   cargo build --release && sudo scripts/install.sh
#
# For a look at what it would put where:  DESTDIR=/tmp/look scripts/install.sh
set -eu

usage() {
    cat <<'END'
Usage: [DESTDIR=DIR] install.sh [--prefix DIR] [--binary FILE]

  --prefix DIR   the program goes to DIR/bin (default: /usr/local)
  --binary FILE  the program to install (default: target/release/acerelay)
  DESTDIR        everything goes below this directory, and no service is started
END
}

here=$(cd "$(dirname "$0")/.." && pwd)
prefix=/usr/local
binary=$here/target/release/acerelay
while [ $# -gt 0 ]; do
    case $1 in
        --prefix) prefix=${2:?--prefix needs a directory}; shift 2 ;;
        --prefix=*) prefix=${1#*=}; shift ;;
        --binary) binary=${2:?--binary needs a file}; shift 2 ;;
        --binary=*) binary=${1#*=}; shift ;;
        -h | --help) usage; exit 0 ;;
        *) printf 'install.sh: there is no option %s\n' "$1" >&2; usage >&2; exit 2 ;;
    esac
done
DESTDIR=${DESTDIR:-}

die() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

case $prefix in
    /*) ;;
    *) die "--prefix needs an absolute path, not $prefix" ;;
esac
[ -x "$binary" ] || die "there is no program at $binary; first: cargo build --release"
[ -n "$DESTDIR" ] || [ "$(id -u)" -eq 0 ] || die 'this changes the system; run it as root, or set DESTDIR for a look'

# put MODE FILE TARGET: the target is replaced in one step, also while it runs.
put() {
    target=$DESTDIR$3
    mkdir -p "$(dirname "$target")"
    if cmp -s "$2" "$target"; then
        printf 'unchanged  %s\n' "$target"
        return
    fi
    cp "$2" "$target.new"
    chmod "$1" "$target.new"
    mv -f "$target.new" "$target"
    printf 'installed  %s\n' "$target"
}

put 755 "$binary" "$prefix/bin/acerelay"

config=/etc/acerelay/config.toml
if [ -e "$DESTDIR$config" ]; then
    printf 'kept       %s\n' "$DESTDIR$config"
else
    put 644 "$here/config.toml" "$config"
fi

unit=$(mktemp)
trap 'rm -f "$unit"' EXIT
sed "s|^ExecStart=.*|ExecStart=$prefix/bin/acerelay|; s|file:///usr/share|file://$prefix/share|" \
    "$here/scripts/acerelay.service" >"$unit"
put 644 "$unit" /etc/systemd/system/acerelay.service
put 644 "$here/scripts/acerelay.logrotate" /etc/logrotate.d/acerelay
put 644 "$here/README.md" "$prefix/share/doc/acerelay/README.md"

if [ -n "$DESTDIR" ]; then
    printf 'not started: this is a look at %s\n' "$DESTDIR"
    exit 0
fi
"$prefix/bin/acerelay" --check-config --config "$config"
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl enable acerelay.service
    systemctl restart acerelay.service
    systemctl --no-pager --lines=0 status acerelay.service
    printf 'Log: journalctl -u acerelay. Page: http://THIS-MACHINE:8000/ (or where "listen" in %s says).\n' "$config"
else
    printf 'no systemd here; start it with: %s/bin/acerelay\n' "$prefix"
fi
