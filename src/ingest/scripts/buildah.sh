# Builds one image and writes it as an OCI layout.
# $1 storage, $2 its working state, $3 storage driver, $4 layout to write, then
# what `buildah build` is given.
ROOT=$1 RUN=$2 DRIVER=$3 OUT=$4
shift 4
buildah --root "$ROOT" --runroot "$RUN" --storage-driver "$DRIVER" build --tag result "$@"
buildah --root "$ROOT" --runroot "$RUN" --storage-driver "$DRIVER" push --quiet result "oci:$OUT"
