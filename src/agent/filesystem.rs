//! Gives the written file system its size and its own UUID, while mounted, by
//! the kernel's own calls: milliseconds, where `resize2fs` and `tune2fs` would
//! read the whole of it first.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

const fn iow(kind: u8, number: u8, size: usize) -> libc::c_ulong {
    (1 << 30)
        | ((size as libc::c_ulong) << 16)
        | ((kind as libc::c_ulong) << 8)
        | number as libc::c_ulong
}

/// `EXT4_IOC_RESIZE_FS`: takes the new number of blocks.
const RESIZE: libc::c_ulong = iow(b'f', 16, 8);
/// `EXT4_IOC_SETFSUUID`, Linux 6.0: takes a `struct fsuuid`. Works on a
/// mounted file system only with `metadata_csum_seed`, which our images have.
const SET_UUID: libc::c_ulong = iow(b'f', 44, 8);

#[repr(C)]
struct FsUuid {
    length: u32,
    flags: u32,
    uuid: [u8; 16],
}

/// Grows the file system mounted at `mount` to `bytes` (4 KiB blocks).
pub fn grow(mount: &Path, bytes: u64) -> io::Result<()> {
    let dir = File::open(mount)?;
    let blocks: u64 = bytes / 4096;
    // SAFETY: the call reads one 64-bit number from the pointer.
    let done = unsafe { libc::ioctl(dir.as_raw_fd(), RESIZE, &raw const blocks) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets the UUID of the file system mounted at `mount`.
pub fn set_uuid(mount: &Path, uuid: [u8; 16]) -> io::Result<()> {
    let dir = File::open(mount)?;
    let value = FsUuid { length: 16, flags: 0, uuid };
    // SAFETY: the call reads a `struct fsuuid` of `length` 16 from the pointer.
    let done = unsafe { libc::ioctl(dir.as_raw_fd(), SET_UUID, &raw const value) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
