//! Makes an ext4 image that was just written by mke2fs independent of when and
//! from where it was written.
//!
//! mke2fs copies access and change times from the source tree, which differ
//! from run to run; nothing in e2fsprogs sets them on a whole image. So every
//! inode in use is visited here: times after the epoch become the epoch,
//! change, access and creation time become the modification time, and the
//! inode's checksum is made right again (ext4 disk layout, "Inode table",
//! `i_checksum`). Only what mke2fs writes is understood: 256-byte inodes,
//! `metadata_csum` with `metadata_csum_seed`, no `meta_bg`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const SUPER: u64 = 1024;
const INODE: usize = 256;

/// Settles all times in the image at `path`.
pub fn settle_times(path: &Path, epoch: u64) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut head = [0u8; 1024];
    file.read_exact_at(&mut head, SUPER)?;
    let layout = Layout::read(&head)?;
    let mut descriptors = vec![0u8; layout.groups as usize * layout.descriptor];
    // The descriptors follow the superblock's block (block 0 for 4 KiB ones).
    file.read_exact_at(&mut descriptors, layout.block * (layout.first_block + 1))?;
    for (group, d) in descriptors.chunks_exact(layout.descriptor).enumerate() {
        settle_group(&file, &layout, group as u64, d, epoch)?;
    }
    file.sync_all()
}

struct Layout {
    block: u64,
    first_block: u64,
    groups: u64,
    inodes_per_group: u64,
    descriptor: usize,
    seed: u32,
}

impl Layout {
    fn read(head: &[u8; 1024]) -> io::Result<Self> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        if u16_at(head, 0x38) != 0xEF53 {
            return Err(bad("not an ext4 file system"));
        }
        if u16_at(head, 0x58) as usize != INODE {
            return Err(bad("inodes are not of 256 bytes"));
        }
        let (incompat, ro_compat) = (u32_at(head, 0x60), u32_at(head, 0x64));
        if ro_compat & 0x400 == 0 || incompat & 0x2000 == 0 || incompat & 0x10 != 0 {
            return Err(bad("needs metadata_csum and metadata_csum_seed, and no meta_bg"));
        }
        let block_bits = u32_at(head, 0x18);
        let per_group = u64::from(u32_at(head, 0x20));
        let inodes_per_group = u64::from(u32_at(head, 0x28));
        if block_bits > 6 || per_group == 0 || inodes_per_group == 0 {
            return Err(bad("geometry is not possible"));
        }
        let first_block = u64::from(u32_at(head, 0x14));
        let blocks = u64::from(u32_at(head, 0x04));
        let wide = incompat & 0x80 != 0;
        Ok(Self {
            block: 1024 << block_bits,
            first_block,
            groups: blocks.saturating_sub(first_block).div_ceil(per_group),
            inodes_per_group,
            descriptor: if wide { (u16_at(head, 0xFE) as usize).max(32) } else { 32 },
            seed: u32_at(head, 0x270),
        })
    }
}

fn settle_group(file: &File, l: &Layout, group: u64, d: &[u8], epoch: u64) -> io::Result<()> {
    let wide = |low: usize, high: usize| {
        let top = if l.descriptor >= 64 { u64::from(u32_at(d, high)) << 32 } else { 0 };
        top | u64::from(u32_at(d, low))
    };
    // INODE_UNINIT: the bitmap is not written, and nothing is in use.
    if u16_at(d, 0x12) & 1 != 0 {
        return Ok(());
    }
    let mut bitmap = vec![0u8; l.inodes_per_group.div_ceil(8) as usize];
    file.read_exact_at(&mut bitmap, wide(0x04, 0x24) * l.block)?;
    let table = wide(0x08, 0x28) * l.block;
    for n in (0..l.inodes_per_group).filter(|n| bitmap[(n / 8) as usize] >> (n % 8) & 1 == 1) {
        let at = table + n * INODE as u64;
        let mut inode = [0u8; INODE];
        file.read_exact_at(&mut inode, at)?;
        // Reserved inodes that were never written hold nothing.
        if inode.iter().all(|b| *b == 0) {
            continue;
        }
        let number = (group * l.inodes_per_group + n + 1) as u32;
        settle_inode(&mut inode, number, l.seed, epoch);
        file.write_all_at(&inode, at)?;
    }
    Ok(())
}

fn settle_inode(inode: &mut [u8; INODE], number: u32, seed: u32, epoch: u64) {
    let (extra_size, mtime) = (u16_at(inode, 0x80), u32_at(inode, 0x10));
    let mut put = |at: usize, value: u32| inode[at..at + 4].copy_from_slice(&value.to_le_bytes());
    let epoch = epoch.min(i32::MAX as u64) as u32;
    // i_atime 08, i_ctime 0C, i_mtime 10, then the nanoseconds of ctime,
    // mtime, atime (84, 88, 8C), i_crtime 90 and its nanoseconds 94. Reserved
    // inodes have no extra part (i_extra_isize 80): neither these nor the
    // upper half of the checksum.
    let extra = extra_size >= 0x18;
    if extra {
        for at in [0x84, 0x88, 0x8C, 0x94] {
            put(at, 0);
        }
        put(0x90, mtime.min(epoch));
    }
    for at in [0x08, 0x0C, 0x10] {
        put(at, mtime.min(epoch));
    }
    inode[0x7C..0x7E].fill(0);
    if extra {
        inode[0x82..0x84].fill(0);
    }
    let generation = u32_at(inode, 0x64);
    let sum = crc32c(seed, &number.to_le_bytes());
    let sum = crc32c(sum, &generation.to_le_bytes());
    let sum = crc32c(sum, inode);
    inode[0x7C..0x7E].copy_from_slice(&(sum as u16).to_le_bytes());
    if extra {
        inode[0x82..0x84].copy_from_slice(&((sum >> 16) as u16).to_le_bytes());
    }
}

/// CRC-32C without the final inversion, as ext4 chains it.
fn crc32c(mut sum: u32, bytes: &[u8]) -> u32 {
    for b in bytes {
        sum ^= u32::from(*b);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0x82F6_3B78 & (sum & 1).wrapping_neg());
        }
    }
    sum
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_checksum_is_the_one_of_rfc_3720() {
        assert_eq!(!crc32c(!0, b"123456789"), 0xE306_9283);
    }

    #[test]
    fn two_images_of_one_tree_are_the_same_bytes_and_pass_fsck() {
        let dir = tempfile::tempdir().unwrap();
        let mut digests = Vec::new();
        for run in 0..2 {
            let (tree, image) =
                (dir.path().join(format!("t{run}")), dir.path().join(format!("i{run}")));
            std::fs::create_dir_all(tree.join("a/b")).unwrap();
            for n in 0..300 {
                std::fs::write(tree.join(format!("a/f{n}")), vec![n as u8; n * 31]).unwrap();
            }
            std::os::unix::fs::symlink("f1", tree.join("a/b/link")).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(1100 * run));
            crate::image::rootfs::make_ext4(&tree, &image, 256 << 20, 1_700_000_000).unwrap();
            let fsck = Command::new("e2fsck").arg("-fn").arg(&image).output().unwrap();
            let said = String::from_utf8_lossy(&fsck.stdout).into_owned();
            assert!(fsck.status.success(), "{said}");
            digests.push(crate::model::Digest::of(&std::fs::read(&image).unwrap()));
        }
        assert_eq!(digests[0], digests[1]);
    }
}
