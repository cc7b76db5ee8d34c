#!/bin/sh
# A sample engine in shell, with nothing but busybox (its httpd, wget, sed and wc): how large the chunk is. It
# reads no file part, only the field cacheURI, and fetches the chunk from there.
#
#   VERITONE_WEBHOOK_READY=http://127.0.0.1:8888/cgi-bin/readyz \
#   VERITONE_WEBHOOK_PROCESS=http://127.0.0.1:8888/cgi-bin/process \
#     orbtrio-toolkit --engine-id size -- sh size.sh
set -eu

if [ -z "${REQUEST_METHOD:-}" ]; then
    # Started as a program: be a web server that starts this file again for each request.
    here=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")
    where=${VERITONE_WEBHOOK_PROCESS:-http://127.0.0.1:8888/cgi-bin/process}
    address=${where#*://}
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    mkdir "$root/cgi-bin"
    for name in readyz process; do
        printf '#!/bin/sh\nexec /bin/sh "%s"\n' "$here" > "$root/cgi-bin/$name"
        chmod +x "$root/cgi-bin/$name"
    done
    busybox httpd -f -p "${address%%/*}" -h "$root" &
    trap 'kill $!' TERM INT
    wait $!
    exit
fi

case $SCRIPT_NAME in
*/readyz)
    printf 'Status: 200 OK\r\n\r\n'
    ;;
*)
    # In a form a field's value stands two lines below its name.
    uri=$(head -c "$CONTENT_LENGTH" | tr -d '\r' | LC_ALL=C sed -n '/name="cacheURI"/{n;n;p;q;}')
    chunk=$(mktemp)
    trap 'rm -f "$chunk"' EXIT
    # What is no URL could be an option.
    if busybox wget -q -O "$chunk" -- "$uri"; then
        printf 'Status: 200 OK\r\nContent-Type: application/json\r\n\r\n'
        printf '{"object":[{"type":"size","bytes":%d}]}\n' "$(wc -c < "$chunk")"
    else
        printf 'Status: 500 Internal Server Error\r\nContent-Type: application/json\r\n\r\n'
        printf '{"errorType":"stream_read_error","errorMsg":"the chunk cannot be fetched"}\n'
    fi
    ;;
esac
