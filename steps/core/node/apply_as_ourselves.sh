# shellcheck shell=sh
parent() { [ -d "${1%/*}/" ] || (umask 022 && mkdir -p -- "${1%/*}"); }

folder() { # path mode
  parent "$1"
  [ -d "$1" ] || mkdir -m "$2" -- "$1"
  chmod "$2" -- "$1"
}
