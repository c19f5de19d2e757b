# shellcheck shell=sh disable=SC2154
# Asks etcd; client.py sets up ctl, which runs etcdctl, in front. What etcdctl prints and what it logs are framed apart:
# a log line is never taken for data.

ask() { # name words
  name=$1
  shift
  {
    logged=$({
      printed=$(ctl "$@")
      printf 'answer %s %s %s\n%s\n' "$name" $? "${#printed}" "$printed" >&4
    } 2>&1)
  } 4>&1
  [ -z "$logged" ] || printf 'said %s 0 %s\n%s\n' "$name" "${#logged}" "$logged"
}

also() { # name words: asks while what stands before it in the pipeline is asking, and answers behind it
  behind=$(ask "$@")
  cat
  printf '%s\n' "$behind"
}

# trial OWN ALL KEY: a write, a read and the hashes, where the answers so far, in $answers, have a lease: without one (no
# quorum, no space) nothing can be written. OWN and ALL are etcdctl's --endpoints.
trial() {
  case $answers in
    *'"Endpoint"'*) ;;
    *) return 0 ;;
  esac
  lease=${answers##*answer lease }
  [ "${lease%% *}" = 0 ] || {
    ask hashes "$2" -w json endpoint hashkv
    return 0
  }
  lease=${lease#*lease }
  lease=${lease%% granted*}
  value=$lease-$$
  written=$(ask put "$1" -w json put --lease="$lease" "$3" "$value")
  printf '%s\n' "$written"
  revision=${written#*\"revision\":}
  revision=${revision%%[!0-9]*}
  printf 'wrote=%s\n' "$value"
  ask read "$1" get --print-value-only "$3" | also hashes "$2" -w json endpoint hashkv --rev="${revision:-0}"
}
