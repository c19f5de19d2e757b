# shellcheck shell=sh
# Functions with which root works next to a user who may plant links, fifos and programs: etcd's own.
# A check and what follows it can be parted by a rename. So a directory is entered first, its physical path compared
# then, and only "." or a name in it is touched: what it is called meanwhile does not matter any more.

sole() { # paths: whether only root may change them; a group of root's may write, too
  owners=$(stat -c %u:%g:%a -- "$@" 2>/dev/null) || return
  for owner in $owners; do
    case $owner in
      0:0:*[2367]) return 1 ;;
      0:0:* | 0:*[0145][0145]) ;;
      *) return 1 ;;
    esac
  done
}

alone() { # physical path: whether only root may change it and all above it
  above=$1
  set -- "$above" /
  while above=${above%/*} && [ -n "$above" ]; do set -- "$@" "$above"; done
  sole "$@"
}

# enter PATH [MODE]: goes there, and follows a link only where it is root's and only root could put it there. With a
# mode, what is missing is made. Where the path has no link, no program is started.
enter() {
  cd -P -- "$1" 2>/dev/null && [ "$(pwd -P)" = "$1" ] && return
  cd / || return
  left=${1#/} # of the way
  trusted=1   # only root may change what was walked
  while [ -n "$left" ]; do
    part=${left%%/*}
    case $left in
      */*) left=${left#*/} ;;
      *) left= ;;
    esac
    here=$(pwd -P)
    here=${here%/}
    [ $trusted = 0 ] || sole . || trusted=0
    case $trusted$part in
      1..)
        cd -P .. || return
        continue
        ;;
      1. | 1) continue ;;
    esac
    if [ -L "./$part" ]; then
      [ $trusted = 1 ] && [ "$(stat -c %u "./$part")" = 0 ] && [ -d "./$part" ] || {
        echo "$here/$part is a link that another user than root may have put there: it is not followed" >&2
        return 1
      }
      target=$(readlink "./$part")
      case $target in
        /*) ;;
        *) target=$here/$target ;;
      esac
      shift
      enter "$target${left:+/$left}" "$@"
      return
    fi
    if [ $# -gt 1 ] && [ ! -e "./$part" ]; then
      if [ -n "$left" ]; then mkdir -m 0755 "./$part"; else mkdir -m "$2" "./$part"; fi || return
    fi
    cd -P "./$part" || return
    [ "$(pwd -P)" = "$here/$part" ] || { # a link since we looked, or ..
      echo "$here/$part led elsewhere" >&2
      return 1
    }
  done
}
