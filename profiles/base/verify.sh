#!/bin/sh
# Passes when the node is what its operator expects to find: reachable, named,
# and with nothing failed. Run as root on the installed system.
set -eu

fail() {
	echo "verify: $*" >&2
	exit 1
}

# "starting" while this script is itself part of the boot: so no waiting for
# "running", but nothing may have failed.
failed=$(systemctl list-units --failed --plain --no-legend | awk '{ print $1 }' | tr '\n' ' ')
[ -z "$failed" ] || fail "failed units: $failed"

systemctl is-active --quiet ssh || fail "ssh is not active: $(systemctl is-active ssh || true)"

name=$(cat /etc/hostname)
[ "$(uname -n)" = "$name" ] || fail "host name is '$(uname -n)', must be '$name'"

[ -s /etc/machine-id ] || fail "machine-id is empty"
[ "$(awk '$2 == "/" { print $4 }' /proc/mounts | cut -d, -f1)" = rw ] || fail "root is read-only"
ip route show default | grep -q . || echo "verify: note: no default route"

echo "verify: base: $name, kernel $(uname -r), $(df -h --output=size / | tail -1 | tr -d ' ') root"
