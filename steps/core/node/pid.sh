# shellcheck shell=sh
# living_pid FILE BINARY: sets p to the pid of a member that is a plain process, 0 where none lives. The pid file must
# name a process that runs the binary.
# shellcheck disable=SC2034 # for the caller
living_pid() {
  p=0
  [ ! -f "$1" ] || read -r p <"$1" || p=0
  [ "$(head -zn1 "/proc/$p/cmdline" 2>/dev/null | tr -d '\0')" = "$2" ] || p=0
}
