#!/usr/bin/env bash
# Installs what building, testing and the virtual rack need, once. Debian 12.
set -euo pipefail

if ! cargo --version >/dev/null 2>&1; then
  echo "cargo is not there: Provision needs Rust 1.90 or later with rustfmt and clippy (rustup)" >&2
  exit 1
fi

packages=(
  build-essential pkg-config ca-certificates curl git jq
  # the virtual rack
  iproute2 nftables procps slirp4netns uidmap qemu-system-x86 qemu-utils seabios ovmf ipxe ipxe-qemu
  openipmi ipmitool openssh-client
  # images
  mmdebstrap arch-test debian-archive-keyring busybox-static e2fsprogs fdisk dosfstools
  cpio zstd xz-utils kmod libarchive-tools
  # loaders, stores, and the real clients of the tests
  shim-signed grub-efi-amd64-signed sbsigntool
  pxelinux syslinux-common redis-server sqlite3 isc-dhcp-client kea-admin
  dnsmasq-base bind9-dnsutils chrony tftp-hpa atftp tcpdump udev
  skopeo buildah podman prometheus nginx-light
  python3-venv
)

# An engine that is there, from wherever, stays.
command -v dockerd >/dev/null || packages+=(docker.io)

missing=()
for p in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$p")
done
# The S3 server of the tests, in a place of its own.
moto="$HOME/.cache/provision/moto"
s3_server() {
  if [ -x "$moto/bin/moto_server" ]; then return; fi
  echo "== installing moto into $moto"
  python3 -m venv "$moto"
  "$moto/bin/pip" install --quiet --disable-pip-version-check 'moto[server,s3]==5.2.1'
}
if [ ${#missing[@]} -eq 0 ]; then
  s3_server
  exit 0
fi
if [ "$(id -u)" != 0 ]; then
  echo "missing packages: ${missing[*]}; run this as root, or install them" >&2
  exit 1
fi
echo "== installing ${#missing[@]} packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# A newer qemu-utils from elsewhere does not go with Debian's QEMU: both come
# in one version.
version=$(apt-cache policy qemu-system-x86 | awk '/Candidate:/ { print $2 }')
specs=()
for p in "${missing[@]}"; do specs+=("$p"); done
if apt-cache madison qemu-utils | grep -qF "$version"; then specs+=("qemu-utils=$version"); fi
# Nothing that is installed may start by itself: tests run their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' > "$policy"
  chmod 755 "$policy"
  trap 'rm -f "$policy"' EXIT
fi
apt-get install -y -qq --no-install-recommends --allow-downgrades "${specs[@]}" >/dev/null
s3_server
