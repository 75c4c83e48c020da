#!/bin/sh
# Takes away what install.sh has put in place. The configuration and what the service wrote stay, unless --purge is given.
# May be run again.
exec "$(dirname "$0")/install.sh" --uninstall "$@"
