# Applies a profile to a copy of a root file system and makes it an ext4 image.
# $1 base tree, or block image; $2 work directory with scripts/, sources.list,
# clean.sh, mke2fs.sh; $3 cache of packages; SOURCE_DATE_EPOCH is set.
LOWER=$1 W=$2 CACHE=$3
mkdir -p "$W/upper" "$W/work" "$W/root"
if [ -f "$LOWER" ]; then
	mkdir -p "$W/lower"
	mount -o loop,ro,noload "$LOWER" "$W/lower"
	LOWER=$W/lower
fi
R=$W/root
# Some file systems cannot carry an overlay: then a plain copy.
layers="lowerdir=$LOWER,upperdir=$W/upper,workdir=$W/work"
# In a user namespace only user.* attributes can say that a directory is new;
# without them dpkg cannot put one in its place. The first user namespace maps
# all ids there are.
if ! grep -qE '^ *0 +0 +4294967295$' /proc/self/uid_map; then layers=$layers,userxattr; fi
mount -t overlay overlay -o "$layers" "$R" 2>/dev/null ||
	cp -a --reflink=auto "$LOWER/." "$R/"
mkdir -p "$CACHE/archives/partial"
mkdir -p "$R/var/cache/apt/archives"
mount --bind "$CACHE/archives" "$R/var/cache/apt/archives"
mount -t proc proc "$R/proc"
mount -t sysfs -o ro sysfs "$R/sys"
mount --rbind /dev "$R/dev"
mount -t tmpfs tmpfs "$R/run"
mount -t tmpfs tmpfs "$R/tmp"
cp -L /etc/resolv.conf "$R/etc/resolv.conf"
cp "$W/sources.list" "$R/etc/apt/sources.list"
printf '#!/bin/sh\nexit 101\n' > "$R/usr/sbin/policy-rc.d"
chmod 755 "$R/usr/sbin/policy-rc.d"
printf 'force-unsafe-io\n' > "$R/etc/dpkg/dpkg.cfg.d/zz-bake"
mkdir "$R/run/provision"
for script in "$W"/scripts/*; do
	[ -f "$script" ] || continue
	name=${script##*/}
	cp "$script" "$R/run/provision/$name"
	chmod 755 "$R/run/provision/$name"
	echo "profile script $name"
	PROVISION_STAGE=bake chroot "$R" "/run/provision/$name" || {
		code=$?
		echo "profile script $name: exit code $code"
		exit "$code"
	}
done
rm -f "$R/etc/dpkg/dpkg.cfg.d/zz-bake"
umount "$R/tmp" "$R/run" "$R/sys" "$R/proc" "$R/var/cache/apt/archives"
# Lazy takes the tree as one; in a user namespace its parts are locked together.
umount -l "$R/dev"
sh -eu "$W/clean.sh" "$R"
cp "$R/var/lib/dpkg/status" "$W/status"
sh -eu "$W/mke2fs.sh" "$R" "$W/rootfs.ext4"
