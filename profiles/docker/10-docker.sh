#!/bin/sh
# Docker engine from the distribution. Runs as root in the new system's root,
# on the node or when the profile is baked into an image; starts nothing.
set -eu
export DEBIAN_FRONTEND=noninteractive

apt-get update -q
# Debian 13 has the command line in a package of its own.
packages="docker.io iptables"
if apt-cache show docker-cli >/dev/null 2>&1; then
	packages="$packages docker-cli"
fi
# AppArmor's profiles are what keeps a container from the node's own files.
apt-get install -q -y --no-install-recommends $packages apparmor
# Two profiles for programs of desktops, compiled at the first boot before
# anything else may start; docker brings its own.
mkdir -p /etc/apparmor.d/disable
for unused in lsb_release nvidia_modprobe; do
	[ ! -e "/etc/apparmor.d/$unused" ] || ln -sf "../$unused" "/etc/apparmor.d/disable/$unused"
done

mkdir -p /etc/docker
cat > /etc/docker/daemon.json <<'JSON'
{
  "log-driver": "json-file",
  "log-opts": { "max-size": "20m", "max-file": "5" },
  "live-restore": false
}
JSON
systemctl enable docker.service
