# Finds the one disk that may be wiped. As the agent does it: all that the
# inventory says must fit, and if more than one disk fits, none is taken.
squeezed() {
    tr -s ' \t\n' ' ' | sed 's/^ //; s/ $//' | tr 'A-Z' 'a-z'
}

# first FILE...: the first that has text.
first() {
    for f in "$@"; do
        [ -s "$f" ] && cat "$f" 2> /dev/null | squeezed && return
    done
}

serial_of() {
    s=$(first "/sys/block/$1/device/serial" "/sys/block/$1/serial")
    # SCSI vital product data, page 80: four bytes before the number.
    [ -n "$s" ] || s=$(tail -c +5 "/sys/block/$1/device/vpd_pg80" 2> /dev/null | squeezed)
    echo "$s"
}

wwn_of() {
    first "/sys/block/$1/wwid" "/sys/block/$1/device/wwid" | sed 's/^naa\.//; s/^eui\.//; s/^0x//'
}

want_serial=$(printf '%s\n' {{ disk.serial | sh }} | squeezed)
want_wwn=$(printf '%s\n' {{ disk.wwn | sh }} | squeezed | sed 's/^naa\.//; s/^eui\.//; s/^0x//')
want_path={{ disk.path | sh }}

# Why disk $1 is not it; nothing when it fits.
against() {
    case "$1" in
    loop* | ram* | sr* | fd* | zram* | dm-* | md* | nbd*) echo "no disk"; return ;;
    esac
    [ "$(cat "/sys/block/$1/removable")" = 0 ] || { echo removable; return; }
    [ "$(cat "/sys/block/$1/ro")" = 0 ] || { echo read-only; return; }
    bytes=$(($(cat "/sys/block/$1/size") * 512))
    [ "$bytes" -ge {{ disk.min_bytes }} ] || { echo "too small"; return; }
    [ {{ disk.max_bytes }} = 0 ] || [ "$bytes" -le {{ disk.max_bytes }} ] || { echo "too large"; return; }
    [ -z "$want_serial" ] || [ "$want_serial" = "$(serial_of "$1")" ] || { echo "another serial"; return; }
    [ -z "$want_wwn" ] || [ "$want_wwn" = "$(wwn_of "$1")" ] || { echo "another wwn"; return; }
    [ -z "$want_path" ] || [ "$1" = "${want_path#/dev/}" ] ||
        [ "$(readlink -f "$want_path")" = "/dev/$1" ] || { echo "another path"; return; }
}

disk() {
    phase disk "choosing the disk"
    fits= count=0 seen=
    for d in /sys/block/*; do
        [ -e "$d/size" ] || continue
        d=${d##*/}
        why=$(against "$d")
        [ "$why" = "no disk" ] && continue
        seen="$seen$d serial $(serial_of "$d") wwn $(wwn_of "$d") (${why:-fits}); "
        [ -n "$why" ] || { fits=$d; count=$((count + 1)); }
    done
    case "$count" in
    1) ;;
    0) fail disk "no disk fits; the node has ${seen:-no disk at all}" ;;
    *) fail disk "more than one disk fits: ${seen}say which one in the inventory, by serial or wwn" ;;
    esac
    echo "$fits" > /run/provision/disk
    # Leave is asked before anything is touched: the install may be called off.
    leave disk "writing to $fits, serial $(serial_of "$fits")"
    if [ -d /var/lib/cdebconf ]; then
        {
            echo "d-i partman-auto/disk string /dev/$fits"
            echo "d-i grub-installer/bootdev string /dev/$fits"
        } > /run/provision/disk.cfg
        debconf-set-selections /run/provision/disk.cfg || fail disk "the disk could not be set"
    else
        sed -i "s|/dev/provision-disk|/dev/$fits|" /autoinstall.yaml ||
            fail disk "/autoinstall.yaml could not be changed"
        beside watch || echo "provision: nobody watches the disk" >&2
    fi
}
