# shellcheck shell=sh disable=SC2086
# plain PROGRAM WORD...: runs it, under an empty environment, as nobody, who may not become more. Where that user
# cannot come to the program, root's own run is what is left. OUR_UID may be set, and saves a program.
plain() {
  drop='setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs'
  [ "${OUR_UID:-$(id -u)}" = 0 ] && $drop test -x "$1" 2>/dev/null || drop=
  $drop env -i "$@"
}
