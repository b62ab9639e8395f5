# Takes out of the root file system $1 whatever belongs to one machine, one
# host or one moment.
root=$1
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/tmp/* "$root"/run/* \
	"$root"/var/tmp/* "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old \
	"$root"/var/cache/ldconfig "$root"/var/cache/man "$root"/var/cache/fontconfig \
	"$root"/var/lib/systemd/random-seed "$root"/var/lib/dbus/machine-id \
	"$root"/var/lib/ucf/*.[0-9]* "$root"/var/lib/ucf/*-old "$root"/var/backups/* \
	"$root"/etc/resolv.conf "$root"/etc/hostname "$root"/etc/hosts \
	"$root"/etc/apt/sources.list "$root"/etc/apt/sources.list.d/* \
	"$root"/etc/ssh/ssh_host_* "$root"/etc/.pwd.lock "$root"/etc/mtab.old \
	"$root"/etc/passwd- "$root"/etc/group- "$root"/etc/shadow- "$root"/etc/gshadow- \
	"$root"/etc/subuid- "$root"/etc/subgid- "$root"/usr/sbin/policy-rc.d \
	"$root"/root/.bash_history "$root"/root/.wget-hsts
find "$root/var/log" -type f -delete
find "$root/var/log" -mindepth 1 -type d -empty -name 'apt' -delete
find "$root" -xdev -name __pycache__ -type d -prune -exec rm -rf {} +
# The kernel fills /dev; nodes in it could not be made in a user namespace, and
# an image must not depend on who built it. A mounted one is the host's.
mountpoint -q "$root/dev" || find "$root/dev" -xdev -mindepth 1 -delete
# Present and empty: filled on the node, and nothing runs as a first boot.
: > "$root/etc/machine-id"
chmod 444 "$root/etc/machine-id"
mkdir -p "$root/var/lib/dbus" "$root/var/cache/apt/archives/partial" "$root/var/lib/apt/lists/partial"
ln -sf /etc/machine-id "$root/var/lib/dbus/machine-id"
