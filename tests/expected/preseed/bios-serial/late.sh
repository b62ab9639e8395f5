#!/bin/sh
# The last steps of 'node01', build 'b-01arz3ndektsv4rrffq69g5fav': from the installer, on
# /target. The exit code decides.
set -e
umask 022
# How the installer talks to the build server: wget where it can send a
# header, else nc. The token is in a file, never on a command line.
server='http://10.1.0.1:8080'
host='10.1.0.1'
port=8080
WGETRC=/run/provision/wgetrc
export WGETRC

# get PATH FILE
get() {
    if wget --version > /dev/null 2>&1; then
        wget -q -T 30 -t 5 --retry-connrefused -O "$2" "$server$1"
    else
        by_nc GET "$1" /dev/null > "$2" && [ -s "$2" ]
    fi
}

# post PATH FILE; an answer that is no success fails.
post() {
    if wget --version > /dev/null 2>&1; then
        wget -q -T 30 -t 5 --retry-connrefused -O /dev/null --header='Content-Type: application/json' \
            --post-file="$2" "$server$1"
    else
        by_nc POST "$1" "$2" > /dev/null
    fi
}

# The pause keeps our side of the connection open until the answer is there.
by_nc() {
    {
        echo "$1 $2 HTTP/1.0"
        sed -n 's/^header = //p' "$WGETRC"
        echo "Content-Type: application/json"
        echo "Content-Length: $(wc -c < "$3")"
        echo
        cat "$3"
        sleep 5
    } | nc "$host" "$port" > /run/provision/answer
    sed '1,/^.$/d' /run/provision/answer
    head -n 1 /run/provision/answer | grep -q '^HTTP/1.[01] 2'
}

# Text from elsewhere, made fit for a JSON string.
plain() {
    tr -c 'A-Za-z0-9 ._:/,;=@()+\n-' '?' | tr '\n' ' '
}

# phase NAME TEXT [SECONDS]: and by how much the clock was off.
phase() {
    printf '{"phase":"%s","message":"%s","clock_off":%d}' "$1" "$(echo "$2" | plain)" "${3:-0}" > /run/provision/report
    post /node/phase /run/provision/report || echo "provision: the report was not taken" >&2
}

# leave PHASE TEXT: the same, and does not return before it was taken.
leave() {
    printf '{"phase":"%s","message":"%s"}' "$1" "$(echo "$2" | plain)" > /run/provision/report
    until post /node/phase /run/provision/report; do
        echo "provision: waiting for leave: the server is away, or the install was called off" >&2
        sleep 10
    done
}

# fail PHASE REASON: says so, and touches nothing more. The installer would
# go on after a command that failed, so this never returns.
fail() {
    echo "provision: $2" >&2
    printf '{"phase":"%s","reason":"%s"}' "$1" "$(echo "$2" | plain)" > /run/provision/report
    until post /node/failed /run/provision/report; do
        sleep 10
    done
    while :; do
        sleep 3600
    done
}
user='ops'
# The installer's debconf speaks over descriptors that a package's own does not
# have in the new system: it is to start its own.
unset DEBIAN_HAS_FRONTEND DEBCONF_REDIR DEBCONF_FRONTEND DEBCONF_OLD_FD_BASE

for d in proc sys dev; do
    mountpoint -q "/target/$d" 2> /dev/null || grep -q " /target/$d " /proc/mounts ||
        mount --bind "/$d" "/target/$d"
done

echo "keys and sudo for $user"
home=$(sed -n "s/^$user:[^:]*:[^:]*:[^:]*:[^:]*:\([^:]*\):.*/\1/p" /target/etc/passwd)
[ -n "$home" ] || { echo "there is no user $user" >&2; exit 1; }
mkdir -p "/target$home/.ssh"
{
    :
    printf '%s\n' 'ssh-ed25519 AAAAC3Nz ops@o'\''brien'
} > "/target$home/.ssh/authorized_keys"
chmod 700 "/target$home/.ssh"
chmod 600 "/target$home/.ssh/authorized_keys"
chroot /target chown -R "$user:" "$home/.ssh"
printf '%s ALL=(ALL:ALL) NOPASSWD: ALL\n' "$user" > "/target/etc/sudoers.d/provision-$user"
chmod 440 "/target/etc/sudoers.d/provision-$user"

echo "time and labels"
mkdir -p /target/etc/systemd/timesyncd.conf.d /target/etc/provision
printf '[Time]\nNTP=%s\n' '10.1.0.1' > /target/etc/systemd/timesyncd.conf.d/provision.conf
if [ -d /target/etc/chrony ]; then
    mkdir -p /target/etc/chrony/sources.d
    {
        :
        printf 'server %s iburst\n' '10.1.0.1'
    } > /target/etc/chrony/sources.d/provision.sources
    # No time server outside is asked, or waited for.
    sed -i 's/^pool /# pool /' /target/etc/chrony/chrony.conf
fi
{
    :
    printf '%s=%s\n' 'rack' 'it'\''s "r1"'
} > /target/etc/provision/labels

echo "agent"
mkdir -p /target/usr/lib/provision /target/etc/systemd/system/multi-user.target.wants
get /node/agent /target/usr/lib/provision/provision-agent
chmod 755 /target/usr/lib/provision/provision-agent
(umask 077 && printf '%s' '{
  "server": "http://10.1.0.1:8080"
}' > /target/etc/provision/agent.json)
printf '%s' '[Unit]
Description=The agent
' > /target/etc/systemd/system/provision-agent.service
# Package sources and the certificate for the registry.
chroot /target /usr/lib/provision/provision-agent finish

# The Debian installer has them from the preseed file.
if [ ! -d /var/lib/cdebconf ]; then
    echo "kernel arguments"
    mkdir -p /target/etc/default/grub.d
    printf 'GRUB_CMDLINE_LINUX="%s"\n' 'console=ttyS0,115200n8' \
        > /target/etc/default/grub.d/provision.cfg
    chroot /target update-grub
fi

echo "profile" 'base'
printf '#!/bin/sh\nexit 101\n' > /target/usr/sbin/policy-rc.d
chmod 755 /target/usr/sbin/policy-rc.d
mkdir -p /target/usr/lib/provision/scripts
rm -rf /target/usr/lib/provision/scripts /target/usr/sbin/policy-rc.d

# Better told now than waited for: the firmware would refuse the disk. The
# variable's value follows four bytes of attributes (UEFI 2.10, 3.3 and 8.2).
secure=/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c
[ -e "$secure" ] || mount -t efivarfs efivarfs /sys/firmware/efi/efivars 2> /dev/null || :
if [ -e "$secure" ] &&
    [ "$(chroot /target od -An -tu1 -j4 -N1 < "$secure" | tr -d ' ')" = 1 ] &&
    ! ls /target/boot/efi/EFI/*/shim*.efi > /dev/null 2>&1; then
    echo "Secure Boot is on and the loader on the disk is not signed:" \
        "grub-efi-amd64-signed and shim-signed were not installed" >&2
    exit 1
fi

echo "report"
keys=
for f in /target/etc/ssh/ssh_host_*_key.pub; do
    [ -s "$f" ] && keys="$keys${keys:+,}\"$(plain < "$f" | sed 's/ *$//')\""
done
printf '{"manifest":"sha256:%s","disk":"/dev/%s","firmware":"%s","host_keys":[%s]}' \
    "$(sha256sum /target/var/lib/dpkg/status | cut -d ' ' -f 1)" "$(cat /run/provision/disk)" \
    "$([ -d /sys/firmware/efi ] && echo uefi || echo bios)" "$keys" > /run/provision/installed
# Said again by the installed system, where this one is lost. A system that
# is not complete does not call itself installed.
(umask 077 && cp /run/provision/installed /target/etc/provision/installed.json)
ln -sf /etc/systemd/system/provision-agent.service /target/etc/systemd/system/multi-user.target.wants/
sync
