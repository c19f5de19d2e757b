# shellcheck shell=sh
# A directory may lie below one of etcd's, which may rename it and put a link there at any time. A file may not.
# Needs enter.sh.
SEEN=''

parent() { # path, once for each directory: goes where the path leads, and stays out of what another user may change
  directory=${1%/*}
  directory=${directory:-/}
  case $SEEN in *"|$directory|"*) return ;; esac
  (
    enter "$directory" 0755 && {
      alone "$(pwd -P)" || {
        echo "another user than root may change $directory: nothing is put there" >&2
        exit 1
      }
    }
  ) || return
  SEEN="$SEEN|$directory|"
}

folder() (# path mode owner
  enter "$1" "$2" && chmod "$2" . && chown -- "$3" .
)
