# How the installer talks to the build server: wget where it can send a
# header, else nc. The token is in a file, never on a command line.
server={{ server | sh }}
host={{ server_host | sh }}
port={{ server_port }}
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
