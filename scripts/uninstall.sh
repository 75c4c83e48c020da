#!/bin/sh
# Takes away what install.sh has put in place. The configuration and the log stay, unless --purge is given. May be run
# again.
set -eu

usage() {
    cat <<'END'
Usage: [DESTDIR=DIR] uninstall.sh [--prefix DIR] [--purge]

  --prefix DIR   where install.sh put it (default: /usr/local)
  --purge        the configuration in /etc/acerelay and the log files go too
END
}

prefix=/usr/local
purge=no
while [ $# -gt 0 ]; do
    case $1 in
        --prefix) prefix=${2:?--prefix needs a directory}; shift 2 ;;
        --prefix=*) prefix=${1#*=}; shift ;;
        --purge) purge=yes; shift ;;
        -h | --help) usage; exit 0 ;;
        *) printf 'uninstall.sh: there is no option %s\n' "$1" >&2; usage >&2; exit 2 ;;
    esac
done
DESTDIR=${DESTDIR:-}

die() {
    printf 'uninstall.sh: %s\n' "$*" >&2
    exit 1
}

case $prefix in
    /*) ;;
    *) die "--prefix needs an absolute path, not $prefix" ;;
esac
[ -n "$DESTDIR" ] || [ "$(id -u)" -eq 0 ] || die 'this changes the system; run it as root'

has_systemd=no
if [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; then
    has_systemd=yes
fi

take() {
    if [ -e "$DESTDIR$1" ] || [ -L "$DESTDIR$1" ]; then
        rm -rf -- "$DESTDIR$1"
        printf 'removed    %s\n' "$DESTDIR$1"
    fi
}

if [ "$has_systemd" = yes ] && [ -e /etc/systemd/system/acerelay.service ]; then
    systemctl disable --now acerelay.service
fi
take /etc/systemd/system/acerelay.service
take /etc/logrotate.d/acerelay
take "$prefix/bin/acerelay"
take "$prefix/share/doc/acerelay"
if [ "$purge" = yes ]; then
    take /etc/acerelay
    take /var/log/acerelay
    take /var/log/private/acerelay
elif [ -d "$DESTDIR/etc/acerelay" ]; then
    printf 'kept       %s/etc/acerelay (--purge removes it)\n' "$DESTDIR"
fi
if [ "$has_systemd" = yes ]; then
    systemctl daemon-reload
fi
