# shellcheck shell=sh
# The shell of a session: it runs one script after another, each in a shell of its own. On stdin come a token, and then
# for each script its size in bytes, the script, and the script's payload. What a script prints is followed by a frame:
# the token, the exit code, and the script's stderr. A script that fails ends the session.

export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
umask 077
echo ready
trap 'exit 143' TERM # only when the script, which writes to this shell, has tidied up
read -r token
exec 3>&1
while read -r size; do
  script=$(
    head -c "$size"
    echo .
  )
  script=${script%.}
  [ "${#script}" = "$size" ] || exit 1 # cut off: half a command may say what nobody meant
  said=$( (eval "$script") 2>&1 >&3 3>&-)
  code=$?
  printf '\n%s %d %d\n%s' "$token" "$code" "${#said}" "$said"
  [ "$code" = 0 ] || exit "$code"
done
