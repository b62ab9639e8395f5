#!/bin/sh
# Runs in the installer of 'node03': `run early`, `run disk`, `run late`, `run error`.
umask 077
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

want_serial=$(printf '%s\n' '' | squeezed)
want_wwn=$(printf '%s\n' '' | squeezed | sed 's/^naa\.//; s/^eui\.//; s/^0x//')
want_path=''

# Why disk $1 is not it; nothing when it fits.
against() {
    case "$1" in
    loop* | ram* | sr* | fd* | zram* | dm-* | md* | nbd*) echo "no disk"; return ;;
    esac
    [ "$(cat "/sys/block/$1/removable")" = 0 ] || { echo removable; return; }
    [ "$(cat "/sys/block/$1/ro")" = 0 ] || { echo read-only; return; }
    bytes=$(($(cat "/sys/block/$1/size") * 512))
    [ "$bytes" -ge 4000000000 ] || { echo "too small"; return; }
    [ 0 = 0 ] || [ "$bytes" -le 0 ] || { echo "too large"; return; }
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

# A clock from 1970 makes every signature and certificate invalid.
early() {
    off=$(($(date +%s) - 1800000000))
    if [ "$off" -lt 0 ] || [ "$off" -ge 86400 ]; then date -u -s @1800000000 > /dev/null; else off=0; fi
    phase installer "the installer runs" "$off"
    if [ -d /var/lib/cdebconf ]; then
        # It has all answers, the token among them.
        rm -f /var/lib/preseed/log
        # Called when the base system is there and its packages begin. That it
        # begins is seen in the installer's log.
        mkdir -p /usr/lib/base-installer.d
        printf '#!/bin/sh\nsh /run/provision/run base\n' > /usr/lib/base-installer.d/05provision
        chmod 755 /usr/lib/base-installer.d/05provision
    fi
}

# In a unit of its own: what a command leaves behind ends with the command.
beside() {
    systemd-run --quiet --collect --unit "provision-$1" sh /run/provision/run "$1"
}

# This installer says nothing of itself: that bytes arrive on the disk shows
# that it goes on.
watch() {
    while [ -e "$WGETRC" ]; do
        sectors=$(awk '{ print $7 }' "/sys/block/$(cat /run/provision/disk)/stat")
        printf '{"phase":"%s","bytes":%d}' "$(cat /run/provision/at 2> /dev/null || echo image)" \
            $((sectors * 512)) > /run/provision/written
        post /node/phase /run/provision/written || echo "provision: the report was not taken" >&2
        sleep 20
    done
}

late() {
    echo profile > /run/provision/at
    phase profile "the last steps"
    get /node/late /run/provision/late || fail profile "late.sh could not be fetched"
    code=0
    sh /run/provision/late > /run/provision/late.log 2>&1 || code=$?
    cat /run/provision/late.log
    [ "$code" = 0 ] || fail profile "exit code $code: $(tail -n 5 /run/provision/late.log)"
    # The installed system says it again.
    post /node/installed /run/provision/installed || echo "provision: the last report was not taken" >&2
    rm -f /run/provision/wgetrc
}

case "$1" in
early) early ;;
disk) disk ;;
base) phase image "base system and packages" ;;
watch) watch ;;
late) late ;;
error) fail image "the installer stopped with an error: see its log" ;;
*) echo "provision: no step '$1'" >&2; exit 2 ;;
esac
