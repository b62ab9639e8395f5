# Makes the root file system as a directory.
# $1 work directory, $2 cache of packages, $3 suite, $4 packages, then the
# sources, one argument each. SOURCE_DATE_EPOCH is set.
W=$1 CACHE=$2 SUITE=$3 PACKAGES=$4
shift 4
mkdir -p "$CACHE/archives/partial"

# The installed system's ramdisk: the drivers it takes to find its disk, not
# all there are. Set up before any package is, so that it is made once.
cat > "$W/setup.sh" <<'HOOK'
set -eu
root=$1
mkdir -p "$root/etc/initramfs-tools/conf.d" "$root/etc/initramfs-tools/hooks" "$root/etc/dpkg/dpkg.cfg.d"
cp "$W/initramfs.conf" "$root/etc/initramfs-tools/conf.d/provision"
cp "$W/initramfs.hook" "$root/etc/initramfs-tools/hooks/provision"
chmod 755 "$root/etc/initramfs-tools/hooks/provision"
cp "$W/dpkg.cfg" "$root/etc/dpkg/dpkg.cfg.d/provision"
mkdir -p "$root/var/cache/apt/archives"
mount --bind "$CACHE/archives" "$root/var/cache/apt/archives"
HOOK
cat > "$W/last.sh" <<'HOOK'
set -eu
root=$1
umount "$root/var/cache/apt/archives"
# The network is networkd's. Timers that download, or that look for snapshots
# and old boots that an installed server does not have, are off: an operator
# may switch them on.
chroot "$root" systemctl enable systemd-networkd.service
for unit in apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service \
	dpkg-db-backup.timer grub-common.service; do
	chroot "$root" systemctl disable "$unit" 2>/dev/null || true
done
# What mmdebstrap itself passed to dpkg holds for the build only.
rm -f "$root"/etc/dpkg/dpkg.cfg.d/99mmdebstrap "$root"/etc/apt/apt.conf.d/99mmdebstrap
HOOK
export W CACHE
mmdebstrap --mode=root --variant=apt --format=directory \
	--include="$PACKAGES" \
	--aptopt='Apt::Install-Recommends "false"' \
	--aptopt='Acquire::Languages "none"' \
	--aptopt='Acquire::Retries "3"' \
	--dpkgopt='force-unsafe-io' --dpkgopt="$W/dpkg.cfg" \
	--skip=essential/unlink \
	--setup-hook="sh $W/setup.sh \"\$1\"" \
	--customize-hook="sh $W/last.sh \"\$1\"" \
	"$SUITE" "$W/tree" "$@"
