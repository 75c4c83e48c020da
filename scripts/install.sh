#!/bin/sh
# Installs acerelay and its systemd service. May be run again, for an update: what is configured is kept.
#
#   cargo build --release && sudo scripts/install.sh
#
# For a look at what it would put where:  DESTDIR=/tmp/look scripts/install.sh
# scripts/uninstall.sh calls it with --uninstall, so that what was put in place and what is taken away is one list.
set -eu

usage() {
    cat <<'END'
Usage: [DESTDIR=DIR] install.sh [--prefix DIR] [--binary FILE]
       [DESTDIR=DIR] uninstall.sh [--prefix DIR] [--purge]

  --prefix DIR   the program goes to DIR/bin (default: /usr/local)
  --binary FILE  the program to install (default: target/release/acerelay)
  --purge        the configuration in /etc/acerelay and what the service wrote go too
  DESTDIR        everything happens below this directory, and to no service
END
}

die() {
    printf '%s: %s\n' "$name" "$*" >&2
    exit 1
}

here=$(cd "$(dirname "$0")/.." && pwd)
name=install.sh
prefix=/usr/local
binary=$here/target/release/acerelay
purge=no
while [ $# -gt 0 ]; do
    case $1 in
        --uninstall) name=uninstall.sh; shift ;;
        --prefix) prefix=${2:?--prefix needs a directory}; shift 2 ;;
        --prefix=*) prefix=${1#*=}; shift ;;
        --binary) binary=${2:?--binary needs a file}; shift 2 ;;
        --binary=*) binary=${1#*=}; shift ;;
        --purge) purge=yes; shift ;;
        -h | --help) usage; exit 0 ;;
        *) printf '%s: there is no option %s\n' "$name" "$1" >&2; usage >&2; exit 2 ;;
    esac
done
DESTDIR=${DESTDIR:-}
config=/etc/acerelay/config.toml
unit=/etc/systemd/system/acerelay.service
# Put there by hand, by those who want it.
socket=/etc/systemd/system/acerelay.socket
share=$prefix/share

case $prefix in
    /*) ;;
    *) die "--prefix needs an absolute path, not $prefix" ;;
esac
[ -n "$DESTDIR" ] || [ "$(id -u)" -eq 0 ] || die 'this changes the system; run it as root, or set DESTDIR for a look'

# Asks systemd to do something, if it runs here at all.
has_systemd=no
if [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; then
    has_systemd=yes
fi
systemd() {
    systemctl "$@" || die "\"systemctl $*\" failed; all files are as they should be, so look why and do that by hand"
}

# Calls "$1 MODE FILE TARGET" for everything but the configuration.
each_file() {
    "$1" 755 "$binary" "$prefix/bin/acerelay"
    "$1" 644 "$scratch" "$unit"
    "$1" 644 "$here/scripts/acerelay.logrotate" /etc/logrotate.d/acerelay
    "$1" 644 "$here/scripts/acerelay.1" "$share/man/man1/acerelay.1"
    "$1" 644 "$here/scripts/completions/acerelay.bash" "$share/bash-completion/completions/acerelay"
    "$1" 644 "$here/scripts/completions/_acerelay" "$share/zsh/site-functions/_acerelay"
    "$1" 644 "$here/scripts/completions/acerelay.fish" "$share/fish/vendor_completions.d/acerelay.fish"
    "$1" 644 "$here/README.md" "$share/doc/acerelay/README.md"
    "$1" 644 "$here/scripts/acerelay.socket" "$share/doc/acerelay/acerelay.socket"
}

# The target is replaced in one step, also while it runs.
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

remove() {
    if [ -e "$DESTDIR$1" ] || [ -L "$DESTDIR$1" ]; then
        rm -rf -- "$DESTDIR$1"
        printf 'removed    %s\n' "$DESTDIR$1"
    fi
}

take() {
    remove "$3"
}

do_install() {
    [ -x "$binary" ] || die "there is no program at $binary; first: cargo build --release"
    scratch=$(mktemp)
    trap 'rm -f "$scratch"' EXIT
    sed "s|^ExecStart=.*|ExecStart=$prefix/bin/acerelay|; s|file:///usr/share|file://$share|" \
        "$here/scripts/acerelay.service" >"$scratch"
    each_file put
    if [ -e "$DESTDIR$config" ]; then
        printf 'kept       %s\n' "$DESTDIR$config"
    else
        put 644 "$here/config.toml" "$config"
    fi
    if [ -n "$DESTDIR" ]; then
        printf 'not started: this is a look at %s\n' "$DESTDIR"
        return
    fi
    "$prefix/bin/acerelay" --check-config --config "$config"
    if [ "$has_systemd" = no ]; then
        printf 'NOT STARTED, and not at the next boot either: systemd does not run here. By hand: %s/bin/acerelay\n' \
            "$prefix"
        return
    fi
    systemd daemon-reload
    systemd enable acerelay.service
    systemd restart acerelay.service
    systemctl --no-pager --lines=0 status acerelay.service || true
    printf 'Log: journalctl -u acerelay. Page: http://THIS-MACHINE:8000/ (or where "listen" in %s says).\n' "$config"
}

do_uninstall() {
    if [ "$has_systemd" = yes ] && [ -e "$socket" ]; then
        # Before the service, which it would start again.
        systemd disable --now acerelay.socket
    fi
    if [ "$has_systemd" = yes ] && [ -e "$unit" ]; then
        systemd disable --now acerelay.service
    fi
    scratch=/dev/null
    each_file take
    # The other directories are everybody's, and stay, empty or not.
    remove "$share/doc/acerelay"
    if [ "$purge" = yes ]; then
        remove /etc/acerelay
        remove /etc/systemd/system/acerelay.service.d
        remove "$socket"
        remove "$socket.d"
        remove /var/log/acerelay
        remove /var/log/private/acerelay
        remove /var/lib/acerelay
        remove /var/lib/private/acerelay
    else
        for kept in /etc/acerelay "$socket" /var/log/acerelay /var/lib/acerelay; do
            if [ -e "$DESTDIR$kept" ]; then
                printf 'kept       %s (--purge removes it)\n' "$DESTDIR$kept"
            fi
        done
    fi
    if [ "$has_systemd" = yes ]; then
        systemd daemon-reload
    elif [ -z "$DESTDIR" ]; then
        printf 'systemd does not run here: what was started by hand was NOT stopped\n'
    fi
}

case $name in
    install.sh) do_install ;;
    uninstall.sh) do_uninstall ;;
esac
