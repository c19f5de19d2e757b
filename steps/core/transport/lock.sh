# shellcheck shell=sh disable=SC2153,SC2154,SC3067 # set in front; dash, bash and busybox have -O
# Takes the node's lock, an flock on descriptor 9 that lives exactly as long as this shell and what it starts; exits 73
# where there can be no lock, 75 where it is held. node_lock.py sets LOCK, its FOLDER, HOLDER, WORK and RUN in front.
# Only in a directory where no other user may make a file is the lock surely ours: no link, no fifo, no other's words.
# What locks is the flock; the file says who has it. Who waits lets its new holder write that.

umask 077

# A shell whose controller fell silent (a cut cable, a lost VPN) may wait for it for hours: the next run of the same
# work directory ends it, once it has had time to finish what it was doing.
take_over() {
  {
    read -r who
    read -r work run shell
  } <"$LOCK"
  [ "$work" = "$WORK" ] && [ "$run" != "$RUN" ] || return
  flock -w 2 9 && return
  [ "/proc/$shell/fd/9" -ef "$LOCK" ] && read -r _ _ _ _ group _ <"/proc/$shell/stat" &&
    kill -s TERM -- "-$group" && flock -w 3 9
}

mkdir -p "$FOLDER" || exit 73
listed=$(ls -ld "$FOLDER")
case $listed in
  d????-??-*) [ -O "$FOLDER" ] ;;
  *) false ;;
esac || {
  echo "$listed, uid $(id -u): the lock must lie in a directory of ours that nobody else may write"
  exit 73
}
exec 9>>"$LOCK" && chmod 600 "$LOCK" || exit 73
flock -w 0.5 9 || take_over || {
  printf 'locked by %s\n' "$who"
  exit 75
}
printf '%s\n%s %s %s\n' "$HOLDER" "$WORK" "$RUN" $$ >"$LOCK"
unset LOCK FOLDER HOLDER WORK RUN listed
