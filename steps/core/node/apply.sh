# shellcheck shell=sh
# What an apply does for one change each: apply.py calls these functions with quoted words, in order. Behind it stand
# undo (restores what KEPT names) and tidy (removes what is staged), and parent and folder as apply_as_root.sh or
# apply_as_ourselves.sh has them.

set -eu
KEPT='' # the numbers of changes that undo makes undone
trap 'undo; tidy' EXIT
trap 'exit 129' HUP
trap 'exit 143' TERM
trap 'trap "" PIPE; exit 141' PIPE # dash ends without its EXIT trap where nobody listens any more

say() { printf '%s\n' "$*"; }

# temp PATH [SUFFIX]: sets NEW to the name under which the file is staged; a suffix for files that are at the same time.
temp() {
  parent "$1"
  NEW=${1%/*}/.etcd-steps.$$${2-}
}

stage() { # path [suffix]: makes the staged file anew, and by the shell's umask nobody else's
  temp "$@"
  set -C
  : >"$NEW"
  set +C
}

text() { # path content: no program is started for a small file
  stage "$1"
  printf %b "$2" >"$NEW"
}

part() { # size: that many bytes of stdin; head goes by 8 KB
  dd bs=65536 iflag=fullblock,count_bytes count="$1" status=none
}

keep() { # number path old: what undo puts back
  [ ! -e "$2" ] || ln -f -- "$2" "$3"
  KEPT="$KEPT $1"
}

back() { # number path old
  if [ -e "$3" ]; then mv -fT -- "$3" "$2"; else rm -f -- "$2"; fi
  say "undone $1" 2>/dev/null || :
}

place() { # path: what is staged gets its name
  sync -- "$NEW"
  mv -fT -- "$NEW" "$1"
}

# overwrite PATH: what is staged is written into a file that is a mount of its own. One write of as many bytes as the
# file has, at least: whoever is killed between leaves it whole, with blank lines.
overwrite() {
  size=$(stat -c %s -- "$NEW")
  old=$(stat -c %s -- "$1")
  [ "$old" -le "$size" ] || head -c "$((old - size))" /dev/zero | tr '\0' '\n' >>"$NEW"
  dd if="$NEW" of="$1" bs=1M conv=notrunc,fsync status=none
  truncate -s "$size" -- "$1"
  rm -f -- "$NEW"
}

symlink() { # path target
  temp "$1"
  ln -s -- "$2" "$NEW"
  mv -fT -- "$NEW" "$1"
}

like() { # path: what is staged gets the owner and the mode of the file that it replaces
  [ ! -e "$1" ] || {
    chown --reference="$1" -- "$NEW"
    chmod --reference="$1" -- "$NEW"
  }
}

add_user() { # name
  id -u "$1" >/dev/null 2>&1 || useradd --system --user-group --no-create-home --home-dir /nonexistent \
    --shell /usr/sbin/nologin "$1" </dev/null
}

unit() { # name verb...
  name=$1
  shift
  for verb in "$@"; do systemctl --quiet "$verb" "$name" </dev/null; done
}
