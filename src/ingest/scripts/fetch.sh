# Fetches one commit into a new working copy.
# $1 folder, $2 address, $3 branch, tag or commit, $4 largest file in blocks of
# 512 bytes, $5 what gives the objects there, then options for git.
TO=$1 URL=$2 AT=$3 PACK=$5
ulimit -f "$4"
shift 5
git "$@" init -q "$TO"
git -C "$TO" "$@" fetch --quiet --upload-pack "$PACK" --depth 1 --no-tags --no-recurse-submodules -- "$URL" "$AT"
git -C "$TO" "$@" checkout --quiet --detach FETCH_HEAD
