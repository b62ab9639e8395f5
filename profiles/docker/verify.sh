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

version=$(docker version --format '{{.Server.Version}}') || fail "the docker engine does not answer"

# A shell and the libraries it names, as an image.
work=$(mktemp -d)
image=provision-verify
trap 'rm -rf "$work"; docker image rm -f "$image" >/dev/null 2>&1 || true' EXIT
files="bin/sh $(ldd /bin/sh | grep -o '/[^ ]*' | sed 's,^/,,')"
tar -C / -chf "$work/root.tar" $files
docker import "$work/root.tar" "$image" >/dev/null || fail "cannot make an image"
said=$(docker run --rm --network none "$image" /bin/sh -c 'echo container runs as $$') ||
	fail "cannot run a container"
[ "$said" = "container runs as 1" ] || fail "the container said '$said'"

getent group docker >/dev/null || fail "there is no group docker"
echo "verify: docker: $name, engine $version, $said"
