# Goes before every script that runs in namespaces of its own. /dev gets the
# devices that any program may have and no other: buildah hands it to the
# build as it is, and with the host's that would be the host's disks.
mkdir -p /dev/shm
mount -t tmpfs -o mode=755,nosuid,noexec dev /dev/shm
for d in null zero full random urandom tty; do
	: > "/dev/shm/$d"
	mount --bind "/dev/$d" "/dev/shm/$d"
done
mkdir /dev/shm/pts /dev/shm/shm
mount -t devpts -o newinstance,nosuid,noexec,mode=620,ptmxmode=666 devpts /dev/shm/pts
mount -t tmpfs -o mode=1777,nosuid,nodev shm /dev/shm/shm
ln -s pts/ptmx /dev/shm/ptmx
ln -s /proc/self/fd /dev/shm/fd
for n in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${n%:*}" "/dev/shm/${n#*:}"; done
mount --move /dev/shm /dev
