"""Shell functions with which root works next to a user who may plant links, fifos and programs: etcd's own.

A check and what follows it can be parted by a rename. So a directory is entered first, its physical path compared then,
and only "." or a name in it is touched: what it is called meanwhile does not matter any more.
"""

from __future__ import annotations

ENTER = r"""
sole() { # paths: whether only root may change them; a group of root's may write, too
  m=$(stat -c %u:%g:%a -- "$@" 2>/dev/null) || return
  for m in $m; do case $m in 0:0:*[2367]) return 1;; 0:0:* | 0:*[0145][0145]) ;; *) return 1;; esac; done; }
alone() { # physical path: whether only root may change it and all above it
  p=$1; set -- "$p" /; while p=${p%/*} && [ -n "$p" ]; do set -- "$@" "$p"; done; sole "$@"; }
# path [mode]: goes there, and follows a link only where it is root's and only root could put it there. With a mode,
# what is missing is made. Where the path has no link, no program is started.
enter() {
  cd -P -- "$1" 2>/dev/null && [ "$(pwd -P)" = "$1" ] && return
  cd / || return
  W=${1#/}; T=1 # what is left of the way, and whether only root may change what was walked
  while [ -n "$W" ]; do
    C=${W%%/*}; case $W in */*) W=${W#*/};; *) W=;; esac
    H=$(pwd -P); H=${H%/}
    [ $T = 0 ] || sole . || T=0
    case $T$C in 1..) cd -P ..; continue;; 1. | 1) continue;; esac
    if [ -L "./$C" ]; then
      [ $T = 1 ] && [ "$(stat -c %u "./$C")" = 0 ] && [ -d "./$C" ] || {
        echo "$H/$C is a link that another user than root may have put there: it is not followed" >&2; return 1; }
      N=$(readlink "./$C"); case $N in /*) ;; *) N=$H/$N;; esac
      shift; enter "$N${W:+/$W}" "$@"; return
    fi
    if [ $# -gt 1 ] && [ ! -e "./$C" ]; then
      if [ -n "$W" ]; then mkdir -m 0755 "./$C"; else mkdir -m "$2" "./$C"; fi || return
    fi
    cd -P "./$C" || return
    [ "$(pwd -P)" = "$H/$C" ] || { echo "$H/$C led elsewhere" >&2; return 1; } # a link since we looked, or ..
  done
}
"""

# `test -x` first: where that user cannot come to the program, root's own run is what is left.
PLAIN = r"""
plain() { # program, words: runs it, under an empty environment, as nobody, who may not become more
  d='setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs'
  [ "${U:-$(id -u)}" = 0 ] && $d test -x "$1" 2>/dev/null || d=
  $d env -i "$@"; }
"""

# Needs ENTER.
SAFE = r"""
safe() { # program: sets B to what it is, and fails where another user than root may change that, or the way to it
  [ -f "$1" ] && D=$(enter "${1%/*}" 2>/dev/null && pwd -P) && B=${D%/}/${1##*/} || return
  if [ -L "$B" ]; then
    [ "$(stat -c %u "$B")" = 0 ] && alone "$D" || return
    N=$(readlink "$B"); case $N in /*) ;; *) N=$D/$N;; esac
    safe "$N"; return
  fi
  alone "$B"; }
"""
