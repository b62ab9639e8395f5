# Makes the smallest root file system of Debian that can install packages.
# $1 work directory, $2 cache of packages, $3 suite, then the sources, one
# argument each. SOURCE_DATE_EPOCH is set.
W=$1 CACHE=$2 SUITE=$3
shift 3
mkdir -p "$CACHE/archives/partial"
cat > "$W/setup.sh" <<'HOOK'
set -eu
mkdir -p "$1/var/cache/apt/archives"
mount --bind "$CACHE/archives" "$1/var/cache/apt/archives"
HOOK
cat > "$W/last.sh" <<'HOOK'
set -eu
root=$1
umount "$root/var/cache/apt/archives"
cp "$root/var/lib/dpkg/status" "$W/status"
rm -f "$root"/etc/apt/sources.list.d/* "$root"/etc/dpkg/dpkg.cfg.d/99mmdebstrap \
	"$root"/etc/apt/apt.conf.d/99mmdebstrap
cp "$W/shown.list" "$root/etc/apt/sources.list"
# Whatever belongs to one host or one moment.
rm -rf "$root"/etc/resolv.conf "$root"/etc/hostname "$root"/var/lib/apt/lists/* "$root"/tmp/* \
	"$root"/run/* "$root"/var/tmp/* "$root"/var/cache/ldconfig "$root"/var/cache/apt/*.bin \
	"$root"/var/lib/dpkg/*-old "$root"/var/cache/debconf/*-old "$root"/etc/.pwd.lock \
	"$root"/etc/passwd- "$root"/etc/group- "$root"/etc/shadow- "$root"/etc/gshadow-
find "$root/var/log" -type f -delete
mkdir -p "$root/var/lib/apt/lists/partial"
# A container never starts a service by itself when a package is installed, and
# needs no translated texts.
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
HOOK
export W CACHE
mmdebstrap --mode=root --variant=minbase --format=tar --skip=output/dev \
	--aptopt='Apt::Install-Recommends "false"' \
	--aptopt='Acquire::Languages "none"' \
	--aptopt='Acquire::Retries "3"' \
	--dpkgopt='force-unsafe-io' \
	--skip=essential/unlink \
	--setup-hook="sh $W/setup.sh \"\$1\"" \
	--customize-hook="sh $W/last.sh \"\$1\"" \
	"$SUITE" "$W/tree.tar" "$@"
