# shellcheck shell=sh disable=SC2154
# What a look reads of a node, a function per fact; it changes nothing. inspect_script.py puts guard's functions and
# these variables in front of it, and behind it calls the functions with the paths that it wants to know of.
#   DIGEST           the command that prints digests as base/digest.py makes them
#   WAL_HEAD         bytes of a WAL's segment that say whose data it is
#   UNIT_PROPERTIES  what is asked of etcd.service
#   ETCD DATA WAL    the node's binary, and its directories
#   OURS             the paths that may lie in the node's directories, a line each, with a newline at both ends
# A program that is started costs the node two milliseconds: what the shell can read, it reads itself.

set +e

# shellcheck disable=SC2086 # a program and its options
digest() { $DIGEST -- "$@"; }

machine() {
  OUR_UID=$(id -u)
  echo "arch=$(uname -m)"
  echo "clock=$(date +%s)"
  echo "uid=$OUR_UID"
  command -v zstd >/dev/null && echo zstd=1
  read -r machine </etc/machine-id
  echo "machine=$machine"
  read -r boot </proc/sys/kernel/random/boot_id
  echo "boot=$boot"
}

# -- paths --------------------------------------------------------------------------------------------------------

# those TEST FUNCTION PATH...: calls the function with those of the paths that pass the test. A pipe or a device in a
# file's place would never end.
those() {
  passes=$1 function=$2
  shift 2
  for path in "$@"; do
    shift
    test "$passes" "$path" && set -- "$@" "$path"
  done
  [ $# = 0 ] || "$function" "$@"
}

# A name of an owner may have a blank in it.
entries() { stat -c 'entry %f %a %Y %U	%G	%n' -- "$@" 2>/dev/null; }

# What a link in a directory's place leads to is that directory.
behind_links() { stat -Lc 'entry %f %a %Y %U	%G	%n' -- "$@" 2>/dev/null; }

targets() {
  printf 'link %s\n' "$@"
  echo links
  readlink -- "$@"
}

texts() {
  stat -Lc 'text %s %n' -- "$@"
  echo texts
  head -v -c 65536 -- "$@"
  echo
} 2>/dev/null

# Half of the time goes into the digests: all else is seen meanwhile, and comes on stdin.
with_digests() {
  digests=$(those -f digest "$@" 2>/dev/null)
  cat
  printf '%s\n' "$digests"
  echo end digests
}

# -- other resources ------------------------------------------------------------------------------------------------

user_exists() { id -u "$1" >/dev/null 2>&1 && echo "user $1"; }

service_state() { # number unit
  echo "state $1 $(systemctl is-enabled "$2" 2>/dev/null) $(systemctl is-active "$2")"
}

command_done() { # number script
  (eval "$2") >/dev/null 2>&1 </dev/null && echo "state $1 done"
}

# -- etcd: binary, unit, process --------------------------------------------------------------------------------------

binary() {
  [ -f "$ETCD" ] || return
  echo "binary=$ETCD"
  safe "$ETCD" || return
  version=$(plain "$B" --version 2>/dev/null)
  version=${version#etcd Version: }
  echo "version=${version%%[!0-9.]*}"
}

# Sets p to the pid of the unit's process.
unit() {
  manager=$(systemctl show --property=Version,Environment 2>/dev/null)
  version=${manager#*Version=}
  echo "systemd=${version%%[!0-9]*}"
  given=
  for word in ${manager#*Environment=}; do
    case $word in ETCD_*=*) given="$given ${word%%=*}" ;; esac
  done
  echo "given=${given# }"
  properties=$(systemctl show etcd.service --property="$UNIT_PROPERTIES")
  printf 'unit %s\n%s\n' "${#properties}" "$properties"
  p=${properties#*MainPID=}
  p=${p%%[!0-9]*}
  # Until systemd's child has become etcd it is called "(etcd)", and has systemd's user and words.
  case $properties in *ActiveState=activating*)
    name=
    read -r name 2>/dev/null <"/proc/$p/comm"
    case $name in "("*) p=0 ;; esac
    ;;
  esac
  # systemd tells of drop-ins only once there is a unit, and only of those that it has read.
  dropins=
  for file in /etc/systemd/system/etcd.service.d/*.conf /run/systemd/system/etcd.service.d/*.conf \
    /usr/lib/systemd/system/etcd.service.d/*.conf; do
    [ -e "$file" ] && dropins="$dropins $file"
  done
  echo "dropins=${dropins# }"
}

# process PID: the living etcd. What a process is, it may have chosen itself: that is never run, and no more than what
# etcd could be is read of it.
process() {
  [ "${1:-0}" -gt 0 ] && [ -r "/proc/$1/cmdline" ] && [ -e "/proc/$1/exe" ] || return 0
  if [ "/proc/$1/exe" -ef "$ETCD" ]; then
    executable=same
    echo living=same
  else
    executable=$(head -c 268435456 <"/proc/$1/exe" | $DIGEST)
    executable=${executable%% *}
  fi
  started "$1"
  words=$(
    head -c 65536 <"/proc/$1/cmdline" | tr '\0' '\n'
    echo .
  )
  words=${words%.}
  variables=$(head -c 65536 "/proc/$1/environ" 2>/dev/null | tr '\0' '\n')
  case $words in
    *--data-dir=/*) ;;
    *) # not ours: its environment, and what it has open, say where its data is
      printf '%s\n' "$variables" | grep -E '^ETCD_(NAME|DATA_DIR|WAL_DIR|CONFIG_FILE|[A-Z_]*_URLS)='
      opened "$1"
      ;;
  esac
  while read -r key value _; do [ "$key" != Uid: ] || break; done <"/proc/$1/status"
  echo "user=$(id -un "$value" 2>/dev/null)"
  case $variables in *UNIT_DIGEST=*)
    unit_digest=${variables#*UNIT_DIGEST=}
    echo "digest=${unit_digest%%[!0-9a-f]*}"
    ;;
  esac
  printf 'process %s %s %s %s\n%s\n' "$1" "$executable" "$started" "${#words}" "$words"
}

started() { # pid: sets started, in Unix seconds
  while read -r line; do # of a name with a newline in it the last line has the numbers
    # shellcheck disable=SC2086 # numbers
    set -- "$1" ${line##*) }
  done <"/proc/$1/stat"
  ticks=${21:-0} # since boot
  boot=$(grep -m1 ^btime /proc/stat)
  started=$((${boot#btime } + ticks / 100)) # USER_HZ is 100 on every architecture that etcd runs on
}

opened() { # pid
  readlink "/proc/$1/fd/"* 2>/dev/null | {
    database='' segment=''
    while read -r file; do
      case $file in
        */member/snap/db) database=$file ;;
        *.wal) segment=$file ;;
      esac
    done
    echo "database=$database"
    echo "segment=$segment"
  }
}

# -- etcd: files ------------------------------------------------------------------------------------------------------
# Below a directory of etcd's: nothing but a plain file is opened, and a name with a newline cannot end its line.

shown() {
  case $1 in *"
"*) printf %s "$1" | tr '\n' '?' ;;
    *) printf %s "$1" ;;
  esac
}

ca_key() { # path fact
  if [ -e "$1" ] || [ -h "$1" ]; then echo "$2=1"; fi
}

member() { [ -d "$DATA/member" ] && echo member=1; }

# The last one's head counts. A member that was made by hand may have its WAL inside its data: for a unit of ours that
# is no WAL.
wals() {
  segments "$DATA/member/wal" innerwal
  segments "$WAL" wal
}

segments() ( # directory fact
  enter "$1" 2>/dev/null || return 0
  for file in ./*.wal; do
    [ -e "$file" ] || [ -L "$file" ] || continue
    echo "$2=1"
    if [ -f "$file" ] && [ ! -L "$file" ]; then
      echo "walhead=$(head_of "$file")"
      break
    fi
    echo "odd=$1/$(shown "${file#./}")"
  done
)

head_of() {
  dd if="$1" iflag=nofollow,nonblock bs="$WAL_HEAD" count=1 2>/dev/null | od -An -v -tx1 -w"$WAL_HEAD"
}

strangers() { # directories: what in each is not ours, one name
  for directory in "$@"; do
    (
      enter "$directory" 2>/dev/null || exit 0
      for name in * .[!.]*; do
        [ -e "./$name" ] || continue
        case $OURS in *"
$directory/$name
"*) continue ;;
        esac
        case $name in lost+found | .etcd-steps.*) continue ;; esac
        printf 'stranger %s\n%s\n' "$directory" "$(shown "$name")"
        break
      done
    )
  done
}

# -- what cannot be replaced, written to or run -----------------------------------------------------------------------

wal_mount() { [ "$(stat -c %m "$WAL" 2>/dev/null)" = "$WAL" ] && echo walmount=1; }

# Of a file's own mount stat's %m knows nothing, where it comes from a tmpfs.
hosts_file() { # path
  grep -qs " $1 " /proc/self/mountinfo && echo hostsmount=1
  [ ! -e "$1" ] || [ -w "$1" ] || echo hostsfixed=1
}

accounts() {
  fixed=
  for file in /etc/passwd /etc/group /etc/shadow /etc/gshadow; do
    [ ! -e $file ] || [ -w $file ] || fixed="$fixed, $file"
  done
  echo "accounts=${fixed#, }"
}

# Where etcd is there and may be run, no program is asked: so the kernel answers for a file on a noexec mount.
noexec() { # directory of the binaries
  [ -f "$ETCD" ] && [ -x "$ETCD" ] && return
  nearest "$1"
  case ,$(findmnt -nro OPTIONS -T "$nearest" 2>/dev/null | tail -n 1), in
    *,noexec,*) echo "noexec=$nearest" ;;
  esac
}

nearest() { # path: sets nearest to the directory, or the nearest one above it that exists
  nearest=$1
  until [ -d "$nearest" ]; do
    nearest=${nearest%/*}
    [ -n "$nearest" ] || nearest=/
  done
}

spaces() { # paths: the filesystem below each
  count=$#
  for path in "$@"; do
    nearest "$path"
    writable=1
    [ -w "$nearest" ] || writable=0
    printf 'space %s %s\n%s\n' "$writable" "$path" "$nearest"
    set -- "$@" "$nearest"
  done
  shift "$count"
  stat -f -c 'filesystem %S %a %b %d %c %n' -- "$@"
  stat -c 'device %d %n' -- "$@"
}

listening() {
  grep -hs '^ *[0-9]*: [^ ]* [^ ]* 0A ' /proc/net/tcp /proc/net/tcp6 |
    while read -r _ address _ _ _ _ _ uid _ inode _; do echo "listen ${address##*:} $uid $inode"; done
}
