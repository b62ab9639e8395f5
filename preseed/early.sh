#!/bin/sh
# Runs in the installer of {{ node | sh }}: `run early`, `run disk`, `run late`, `run error`.
umask 077
{% include "ask.sh" %}
{% include "disk.sh" %}

# A clock from 1970 makes every signature and certificate invalid.
early() {
    off=$(($(date +%s) - {{ now }}))
    if [ "$off" -lt 0 ] || [ "$off" -ge 86400 ]; then date -u -s @{{ now }} > /dev/null; else off=0; fi
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
