#!/bin/sh
# Four-way DHCP exchanges a second, ours beside dnsmasq's, in one run on one
# cable between two network namespaces. Prints, for each server and offered
# rate, what perfdhcp got answered, and at the end the ratio of the best rates
# with under 1 % lost. Needs root, perfdhcp (kea-admin), dnsmasq, iproute2.
#
#   cargo build --release --example dhcp_bench && benches/dhcp_vs_dnsmasq.sh
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
ours=${1:-$here/target/release/examples/dhcp_bench}
seconds=${SECONDS_EACH:-5}
s=bench-s-$$ c=bench-c-$$ tmp=$(mktemp -d) server=
clean() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    ip netns del "$s" 2>/dev/null || true
    ip netns del "$c" 2>/dev/null || true
    rm -rf "$tmp"
}
trap clean EXIT
trap 'exit 1' INT TERM

ip netns add "$s"
ip netns add "$c"
ip -n "$s" link add boot0 type veth peer name eth0 netns "$c"
ip -n "$s" addr add 10.7.0.1/16 dev boot0
ip -n "$s" link set boot0 up
ip -n "$c" addr add 10.7.255.1/16 dev eth0
ip -n "$c" link set eth0 up

start() {
    case $1 in
    ours) ip netns exec "$s" "$ours" boot0 10.7.0.1 >"$tmp/log" 2>&1 & ;;
    dnsmasq)
        ip netns exec "$s" dnsmasq -k -p 0 -C /dev/null -i boot0 --no-ping --quiet-dhcp \
            --dhcp-authoritative --dhcp-range=10.7.16.1,10.7.31.254 --dhcp-lease-max=5000 \
            --dhcp-leasefile="$tmp/leases" >"$tmp/log" 2>&1 & ;;
    esac
    server=$!
    # Up when it listens on port 67.
    until ip netns exec "$s" ss -Hlun 'sport = :67' | grep -q .; do
        kill -0 "$server" || { cat "$tmp/log"; exit 1; }
    done
}

try() { # server, rate -> "answered lost%"
    ip netns exec "$c" perfdhcp -4 -l eth0 -r "$2" -p "$seconds" -R 1000 -W 1 \
        -b mac=00:0c:01:02:00:00 10.7.0.1 >"$tmp/report" 2>&1 || true
    awk -v s="$seconds" '
        /^sent packets:/ && !sent { sent = $3 }
        /^received packets:/ { got = $3 }
        END { printf "%d %.2f\n", got / s, sent ? 100 * (sent - got) / sent : 100 }' "$tmp/report"
}

for name in dnsmasq ours; do
    start "$name"
    best=0
    for rate in 250 500 1000 2000 4000 8000 12000 16000 24000; do
        set -- $(try "$name" "$rate")
        echo "$name: offered $rate/s, answered $1/s, lost $2 %"
        if awk "BEGIN { exit !($2 < 1) }"; then best=$1; else break; fi
    done
    kill "$server"
    wait "$server" 2>/dev/null || true
    server=
    eval "best_$name=$best"
done
echo "best with under 1 % lost: dnsmasq $best_dnsmasq/s, ours $best_ours/s"
awk "BEGIN { if ($best_dnsmasq) printf \"ratio %.1f\n\", $best_ours / $best_dnsmasq }"
