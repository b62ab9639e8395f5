#!/bin/sh
# The last steps of {{ node | sh }}, build {{ build | sh }}: from the installer, on
# /target. The exit code decides.
set -e
umask 022
{% include "ask.sh" %}
user={{ user | sh }}
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
{% for key in ssh_keys %}
    printf '%s\n' {{ key | sh }}
{% endfor %}
} > "/target$home/.ssh/authorized_keys"
chmod 700 "/target$home/.ssh"
chmod 600 "/target$home/.ssh/authorized_keys"
chroot /target chown -R "$user:" "$home/.ssh"
printf '%s ALL=(ALL:ALL) NOPASSWD: ALL\n' "$user" > "/target/etc/sudoers.d/provision-$user"
chmod 440 "/target/etc/sudoers.d/provision-$user"

echo "time and labels"
mkdir -p /target/etc/systemd/timesyncd.conf.d /target/etc/provision
printf '[Time]\nNTP=%s\n' {{ ntp | join(" ") | sh }} > /target/etc/systemd/timesyncd.conf.d/provision.conf
if [ -d /target/etc/chrony ]; then
    mkdir -p /target/etc/chrony/sources.d
    {
        :
{% for server in ntp %}
        printf 'server %s iburst\n' {{ server | sh }}
{% endfor %}
    } > /target/etc/chrony/sources.d/provision.sources
    # No time server outside is asked, or waited for.
    sed -i 's/^pool /# pool /' /target/etc/chrony/chrony.conf
fi
{
    :
{% for name, value in labels | items %}
    printf '%s=%s\n' {{ name | sh }} {{ value | sh }}
{% endfor %}
} > /target/etc/provision/labels

echo "agent"
mkdir -p /target/usr/lib/provision /target/etc/systemd/system/multi-user.target.wants
get /node/agent /target/usr/lib/provision/provision-agent
chmod 755 /target/usr/lib/provision/provision-agent
(umask 077 && printf '%s' {{ agent_config | sh_text }} > /target/etc/provision/agent.json)
printf '%s' {{ agent_unit | sh_text }} > /target/etc/systemd/system/provision-agent.service
# Package sources and the certificate for the registry.
chroot /target /usr/lib/provision/provision-agent finish
{% if kernel_args %}

# The Debian installer has them from the preseed file.
if [ ! -d /var/lib/cdebconf ]; then
    echo "kernel arguments"
    mkdir -p /target/etc/default/grub.d
    printf 'GRUB_CMDLINE_LINUX="%s"\n' {{ kernel_args | sh }} \
        > /target/etc/default/grub.d/provision.cfg
    chroot /target update-grub
fi
{% endif %}

echo "profile" {{ profile.name | sh }}
printf '#!/bin/sh\nexit 101\n' > /target/usr/sbin/policy-rc.d
chmod 755 /target/usr/sbin/policy-rc.d
mkdir -p /target/usr/lib/provision/scripts
{% for script in profile.scripts %}
name={{ script.name | sh }}
echo "script $name"
printf '%s' {{ script.text | sh_text }} > "/target/usr/lib/provision/scripts/$name"
chmod 700 "/target/usr/lib/provision/scripts/$name"
DEBIAN_FRONTEND=noninteractive chroot /target "/usr/lib/provision/scripts/$name" < /dev/null || {
    code=$?
    echo "script $name: exit code $code" >&2
    exit "$code"
}
{% endfor %}
rm -rf /target/usr/lib/provision/scripts /target/usr/sbin/policy-rc.d
{% for group in profile.groups %}
chroot /target getent group {{ group | sh }} > /dev/null &&
    chroot /target usermod -aG {{ group | sh }} "$user"
{% endfor %}

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
