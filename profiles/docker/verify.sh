#!/bin/sh
# Passes when the engine answers and really runs a container. The container is
# made here from the node's own files, so that nothing is downloaded.
set -eu

fail() {
	echo "verify: $*" >&2
	exit 1
}

failed=$(systemctl list-units --failed --plain --no-legend | awk '{ print $1 }' | tr '\n' ' ')
[ -z "$failed" ] || fail "failed units: $failed"
systemctl is-active --quiet ssh || fail "ssh is not active"
name=$(cat /etc/hostname)
[ "$(uname -n)" = "$name" ] || fail "host name is '$(uname -n)', must be '$name'"
getent group docker >/dev/null || fail "there is no group docker"

version=$(docker version --format '{{.Server.Version}}') || fail "the docker engine does not answer"

# A shell and the libraries it names, as an image.
image=provision-verify
files="bin/sh $(ldd /bin/sh | grep -o '/[^ ]*' | sed 's,^/,,')"
tar -C / -ch $files | docker import - "$image" >/dev/null || fail "cannot make an image"
said=$(docker run --rm --network none "$image" /bin/sh -c 'echo container runs as $$') ||
	fail "cannot run a container"
# Nobody waits for the image's removal.
systemd-run --quiet --no-block docker image rm -f "$image" || true
[ "$said" = "container runs as 1" ] || fail "the container said '$said'"

echo "verify: docker: $name, engine $version, $said"
