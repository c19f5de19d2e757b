# shellcheck shell=sh
# safe PROGRAM: sets B to what it is, and fails where another user than root may change that, or the way to it.
# Needs enter.sh.
safe() {
  [ -f "$1" ] && folder=$(enter "${1%/*}" 2>/dev/null && pwd -P) && B=${folder%/}/${1##*/} || return
  if [ -L "$B" ]; then
    [ "$(stat -c %u "$B")" = 0 ] && alone "$folder" || return
    target=$(readlink "$B")
    case $target in
      /*) ;;
      *) target=$folder/$target ;;
    esac
    safe "$target"
    return
  fi
  alone "$B"
}
