#!/usr/bin/env bash
# Both servers, asked by schemathesis what their OpenAPI documents promise and
# more: every check that it has, with an administrator's token. The servers
# run in a network namespace of their own and a directory that is removed at
# the end; nothing leaves the host but pip, the first time.
#
#   scripts/schemathesis.sh BIN_DIR [build|deployment|both] [schemathesis options]
#
# EXAMPLES=N: test cases of each kind for each operation (20).
# SCHEMATHESIS_VENV: where it is installed, if not in ~/.cache/provision.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
version=4.32.5
venv="${SCHEMATHESIS_VENV:-$HOME/.cache/provision/venv-schemathesis}"

if [ "${1:-}" != --inside ]; then
  bin="$(cd "${1:?directory of the programs, such as target/release}" && pwd)"
  which="${2:-both}"
  shift $(($# > 1 ? 2 : 1))
  if [ ! -x "$venv/bin/schemathesis" ] || ! "$venv/bin/schemathesis" --version | grep -qF "$version"; then
    echo "== installing schemathesis into $venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$version"
  fi
  # --kill-child: whatever happens here, nothing stays behind in there.
  exec unshare -rnp --fork --kill-child --mount-proc "$0" --inside "$bin" "$which" "$@"
fi
shift
bin="$1" which="$2"
shift 2
dir="$(mktemp -d "${TMPDIR:-/tmp}/schemathesis.XXXXXX")"
pids=()
stop() {
  for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done
  for p in "${pids[@]}"; do wait "$p" 2>/dev/null || true; done
  rm -rf "$dir"
}
trap stop EXIT
ip link set lo up
ip link add boot0 type veth peer name boot1
ip addr add 10.99.0.1/24 dev boot0
ip link set boot0 up
ip link set boot1 up

# until FILE, of a server whose log is LOG
until_there() {
  for _ in $(seq 300); do
    if [ -S "$1" ]; then return; fi
    sleep 0.1
  done
  echo "not there within 30 s: $1" >&2
  tail -20 "$2" >&2
  return 1
}

# Of things that are there, for schemathesis.toml.
export OPERATION=op-00000000000000000000000000 BUILD=b-00000000000000000000000000

# post PATH JSON
post() {
  curl -sS --fail-with-body --unix-socket "$dir/build/api.sock" \
    -H 'Content-Type: application/json' "http://x$1" -d "$2"
}

build_server() {
  local image="$dir/build/images/debian-12" zero
  zero="sha256:$(printf '0%.0s' $(seq 64))"
  mkdir -p "$image"
  cp /bin/true "$dir/build/agent"
  # Enough of an image to be listed and ordered; nothing is ever booted.
  for f in kernel ramdisk rootfs.idx rootfs.zst; do printf x > "$image/$f"; done
  {
    printf 'format = 1\nname = "debian-12"\nos = "debian"\nrelease = "12"\nversion = "12.11"\n'
    printf 'arch = "x86_64"\nmethod = "image"\nkernel_args = ""\nkernel = "6.1.0-35-amd64"\n'
    printf '[rootfs]\nbytes = 4096\ndata = 4096\n'
    printf '[provenance]\nsource_date_epoch = 0\nsuite = "bookworm"\ncomponents = ["main"]\n'
    printf 'packages = "%s"\npackage_count = 1\nbuilder = "0.1.0"\n' "$zero"
    for f in kernel ramdisk rootfs.idx rootfs.zst; do
      printf '[files."%s"]\nsha256 = "%s"\nsize = 1\n' "$f" "$zero"
    done
  } > "$image/image.toml"
  cat > "$dir/build/build-server.toml" <<EOF
state_dir = "state"
images_dir = "images"
profiles_dir = "$here/../profiles"
store = "memory:"
[network]
interface = "boot0"
address = "10.99.0.1"
subnet = "10.99.0.0/24"
range = ["10.99.0.11", "10.99.0.250"]
[dhcp]
mode = "off"
[dns]
enabled = false
[time]
enabled = false
[syslog]
enabled = false
[tftp]
enabled = false
[cache]
enabled = false
[api]
listen = "127.0.0.1:8443"
socket = "api.sock"
[install]
agent = "agent"
EOF
  RUST_LOG=warn "$bin/build-server" --config "$dir/build/build-server.toml" > "$dir/build/log" 2>&1 &
  pids+=($!)
  until_there "$dir/build/api.sock" "$dir/build/log"
  # Two nodes, and an install that waits for the second one's first packet.
  local n bmc install
  for n in 1 2; do
    bmc='{"address":"10.2.0.1'$n'","user":"root","driver":"fake"}'
    post /v1/nodes '{"name":"node0'$n'","macs":["52:54:00:12:34:0'$n'"],"bmc":'"$bmc"',"bmc_password":"calvin"}' > /dev/null
  done
  install="$(post /v1/nodes/node02/install '{"type":"docker","image":"debian-12"}')"
  OPERATION="$(jq -r .id <<< "$install")" BUILD="$(jq -r .build <<< "$install")"
  ask build https://127.0.0.1:8443 "$dir/build/state/admin.token" "$@"
}

deployment_server() {
  mkdir -p "$dir/deployment"
  cat > "$dir/deployment/deployment-server.toml" <<EOF
state_dir = "state"
listen = "127.0.0.1:5000"
socket = "api.sock"
[registry]
EOF
  RUST_LOG=warn "$bin/deployment-server" --config "$dir/deployment/deployment-server.toml" \
    > "$dir/deployment/log" 2>&1 &
  pids+=($!)
  until_there "$dir/deployment/api.sock" "$dir/deployment/log"
  ask deployment https://127.0.0.1:5000 "$dir/deployment/state/admin.token" "$@"
}

# ask NAME URL TOKEN_FILE OPTIONS…
ask() {
  local name="$1" url="$2" token="$3"
  shift 3
  echo "== $name server, $url"
  local failed=0
  # Its own working directory: it keeps a cache where it runs.
  (cd "$dir" && PYTHONPATH="$here" TOKEN="$(cat "$token")" timeout 900 "$venv/bin/schemathesis" \
    --config-file "$here/schemathesis.toml" run "$url/openapi.json" --url "$url" \
    --tls-verify false --max-examples "${EXAMPLES:-20}" --no-color "$@") || failed=$?
  if grep -iE 'panick' "$dir/$name/log"; then
    echo "a task of the $name server panicked" >&2
    failed=1
  fi
  if [ "$failed" != 0 ]; then
    tail -5 "$dir/$name/log" >&2
    ended=1
  fi
}

ended=0
case "$which" in
  build) build_server "$@" ;;
  deployment) deployment_server "$@" ;;
  both) build_server "$@"; deployment_server "$@" ;;
  *) echo "$which: say build, deployment or both" >&2; exit 2 ;;
esac
exit "$ended"
