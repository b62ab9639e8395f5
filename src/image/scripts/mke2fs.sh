# Writes the tree $1 as an ext4 image to $2, the same tree always as the same
# bytes but for times, which are settled afterwards. SOURCE_DATE_EPOCH is set;
# BYTES fixes the size.
tree=$1 image=$2
export MKE2FS_CONFIG=/dev/null E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH
if [ -z "${BYTES:-}" ]; then
	# Counted in blocks of 4 KiB a file, so that it does not depend on the file
	# system that the tree is on; then room for metadata, journal and slack.
	BYTES=$(find "$tree" -xdev -printf '%y %s\n' |
		awk '$1 == "f" { b += int(($2 + 4095) / 4096) - 1 } { b++ } END { printf "%d", b * 4096 }')
	BYTES=$(( (BYTES * 115 / 100 + 160 * 1048576) / 4194304 * 4194304 ))
fi
rm -f "$image"
truncate -s "$BYTES" "$image"
# resize: group descriptors for 8 TiB are reserved; beyond that the kernel
# grows the file system with meta_bg.
mke2fs -q -F -t ext4 -b 4096 -I 256 -i 16384 -m 1 -L root -J size=64 \
	-O none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum,metadata_csum_seed \
	-U 5e0f1c3a-7b42-4d8e-9a61-0c2d3e4f5a6b \
	-E "hash_seed=2f6b8d1e-4c37-4a95-8e0b-7d1c9f3a5b20,lazy_itable_init=0,lazy_journal_init=0,nodiscard,resize=2147483647,root_owner=0:0" \
	-d "$tree" "$image"
