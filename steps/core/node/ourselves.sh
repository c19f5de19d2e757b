# shellcheck shell=sh
# Instead of enter.sh and safe.sh: a member that is a plain process has no more rights, and no less, than whoever looks.
enter() { cd -- "$1" || return; }
# shellcheck disable=SC2034 # for the caller
safe() { B=$1; }
