# Shared by the scripts beside it: source it, do not run it.
# Everything fetched for the tests lives outside the checkout, so that a fresh clone does not pay twice.
# shellcheck shell=bash
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
: "${HOME:=$(getent passwd "$(id -u)" | cut -d: -f6)}"
export HOME ROOT
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/keyreeve
export WASM_TARGET=wasm32-unknown-unknown
# rustup installs there; a shell without a profile (cron, CI) may not have it on its path.
[ -d "${CARGO_HOME:-$HOME/.cargo}/bin" ] && PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH

say() { printf '[%s +%ss] %s\n' "${0##*/}" "$SECONDS" "$*" >&2; }
die() {
  printf 'error: %s\n' "$1" >&2
  [ $# -lt 2 ] || printf 'hint: %s\n' "$2" >&2
  exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }
hash_of() { sha256sum | cut -c1-16; }

# version_at_least HAVE WANT
version_at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -1)" = "$2" ]; }

# apt_install COMMAND-OR-REASON PACKAGE... : installs when we may, else says what the reader has to do.
apt_install() {
  local why=$1
  shift
  if [ "$(id -u)" != 0 ] || ! have apt-get; then die "$why is missing" "install it: apt-get install $*"; fi
  say "apt-get install $* (for $why)"
  if [ -z "$(find /var/lib/apt/lists -name '*_Packages*' -mmin -720 2>/dev/null | head -1)" ]; then
    apt-get -qq update </dev/null >&2
  fi
  # Another apt-get, say the machine's own upgrade, may hold the lock for a while.
  DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=180 install -y --no-install-recommends "$@" \
    </dev/null >/dev/null
}

# What set-up depends on, as one short name: the folder that a finished set-up leaves its env.sh in.
setup_folder() {
  local key
  key=$( (cd "$ROOT" && cat scripts/setup scripts/setup-wasm scripts/lib.sh tests/clients/requirements.txt \
    tests/clients/tools.txt tests/clients/hand_out/*.txt tests/clients/hand_out/rust/Cargo.* tests/clients/hand_out/rust/src/main.rs \
    tests/clients/package-lock.json tests/worker/package-lock.json tests/stores/package-lock.json tests/stores/moto.txt &&
    { rustc -vV; python3 -VV; node -v; } 2>&1) | hash_of)
  printf '%s/setup-%s' "$CACHE" "$key"
}

# cargo_of TOOLCHAIN ARGS: cargo of one of three kinds of toolchain: the usual one, one linked in rustup, one that lives
# in a prefix such as /usr on a machine without rustup.
cargo_of() {
  local toolchain=$1
  shift
  case $toolchain in
    '') cargo "$@" ;;
    /*) PATH=$toolchain/bin:$PATH cargo "$@" ;;
    *) RUSTUP_TOOLCHAIN=$toolchain cargo "$@" ;;
  esac
}
# wasm_cargo ARGS: cargo with the toolchain that has the wasm target.
wasm_cargo() { cargo_of "${KEYREEVE_WASM_TOOLCHAIN:-}" "$@"; }
# unwind_cargo ARGS: the same with the std in which a panic can be caught.
unwind_cargo() {
  RUSTFLAGS="-Cpanic=unwind --sysroot=$KEYREEVE_UNWIND_SYSROOT" cargo_of "${KEYREEVE_UNWIND_TOOLCHAIN:-}" "$@"
}

# start_dev LOG COMMAND... : starts `keyreeve dev` in the background, waits for its address; sets DEV_PID, DEV_URL.
# The caller's EXIT trap calls stop_dev.
start_dev() {
  local log=$1 deadline
  shift
  "$@" </dev/null >"$log" 2>"$log.err" &
  DEV_PID=$!
  deadline=$((SECONDS + 30))
  until DEV_URL=$(sed -n 's/^listening on \(http:\/\/[^ ]*\).*/\1/p' "$log" | head -1) && [ -n "$DEV_URL" ]; do
    local why=
    kill -0 "$DEV_PID" 2>/dev/null || why="ended without printing"
    [ "$SECONDS" -lt "$deadline" ] || why="did not print within 30s"
    if [ -n "$why" ]; then
      tail -n 40 "$log" "$log.err" >&2
      die "\`$*\` $why \`listening on http://..\`"
    fi
    sleep 0.05
  done
}

# stop_dev: asks for a clean end, insists after 10 s. Returns the exit status of the server.
stop_dev() {
  [ -n "${DEV_PID:-}" ] || return 0
  local pid=$DEV_PID status=0 deadline=$((SECONDS + 10))
  DEV_PID=
  kill -TERM "$pid" 2>/dev/null || true
  while kill -0 "$pid" 2>/dev/null; do
    if [ "$SECONDS" -ge "$deadline" ]; then
      say "pid $pid did not end on SIGTERM within 10s: SIGKILL"
      kill -KILL "$pid" 2>/dev/null || true
      wait "$pid" 2>/dev/null || true
      return 1
    fi
    sleep 0.05
  done
  wait "$pid" 2>/dev/null || status=$?
  return "$status"
}
