//! Partitions the disk: a table that boots under BIOS and under UEFI, so that
//! a machine whose firmware setting is changed needs no new install.
//!
//! 1. BIOS boot, 1 MiB, where GRUB's second stage lies (type 21686148-…)
//! 2. EFI system partition, 512 MiB
//! 3. root, the rest

use super::server::MayWrite;
use gptman::{GPT, GPTPartitionEntry};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
const ESP: u64 = 512 * MIB;
/// What the table and the two small partitions take.
pub const OVERHEAD: u64 = ESP + 4 * MIB;

/// GUIDs as they stand on the disk: the first three groups little-endian.
const BIOS_BOOT: [u8; 16] = *b"Hah!IdontNeedEFI";
const ESP_TYPE: [u8; 16] = [
    0x28, 0x73, 0x2A, 0xC1, 0x1F, 0xF8, 0xD2, 0x11, 0xBA, 0x4B, 0x00, 0xA0, 0xC9, 0x3E, 0xC9, 0x3B,
];
const LINUX: [u8; 16] = [
    0xAF, 0x3D, 0xC6, 0x0F, 0x83, 0x84, 0x72, 0x47, 0x8E, 0x79, 0x3D, 0x69, 0xD8, 0x47, 0x7D, 0xE4,
];

/// Why the disk could not be partitioned.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    /// Reading or writing.
    #[error("{what}: {source}")]
    Io {
        /// What was done.
        what: &'static str,
        /// Cause.
        source: io::Error,
    },
    /// The table.
    #[error("partition table: {0}")]
    Table(String),
    /// The kernel does not show a partition.
    #[error("{} did not appear within {seconds} s", .path.display())]
    Missing {
        /// Device.
        path: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
}

/// The partitions' devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partitions {
    /// The disk.
    pub disk: PathBuf,
    /// EFI system partition.
    pub esp: PathBuf,
    /// Root.
    pub root: PathBuf,
}

/// `/dev/sda` and 3 → `/dev/sda3`; `/dev/nvme0n1` → `/dev/nvme0n1p3`.
pub fn partition_path(disk: &Path, number: u32) -> PathBuf {
    let text = disk.to_string_lossy();
    let p = if text.ends_with(|c: char| c.is_ascii_digit()) { "p" } else { "" };
    PathBuf::from(format!("{text}{p}{number}"))
}

/// Wipes what was on `disk` and writes the new table, with the server's leave.
pub fn partition(disk: &Path, bios: bool, _: MayWrite) -> Result<Partitions, PartitionError> {
    let io = |what| move |source| PartitionError::Io { what, source };
    let mut file =
        OpenOptions::new().read(true).write(true).open(disk).map_err(io("opening the disk"))?;
    let bytes = file.seek(SeekFrom::End(0)).map_err(io("size of the disk"))?;
    let sector = sector_size(&file).map_err(io("sector size"))?;
    wipe(&mut file, bytes).map_err(io("wiping old signatures"))?;
    write_table(&mut file, sector, bios)?;
    file.sync_all().map_err(io("writing the table"))?;
    reread(&file).map_err(io("reading the table again"))?;
    drop(file);
    let made = Partitions {
        disk: disk.to_owned(),
        esp: partition_path(disk, 2),
        root: partition_path(disk, 3),
    };
    for path in [&made.esp, &made.root] {
        wait_for(path, Duration::from_secs(10))?;
    }
    Ok(made)
}

/// Old partition tables at both ends, and with them the RAID and ZFS labels
/// that lie there; the old first partitions' headers.
fn wipe(file: &mut File, bytes: u64) -> io::Result<()> {
    let zeros = vec![0u8; 4 * MIB as usize];
    for at in [0, bytes.saturating_sub(zeros.len() as u64)] {
        file.seek(SeekFrom::Start(at))?;
        let length = zeros.len().min((bytes - at) as usize);
        file.write_all(&zeros[..length])?;
    }
    Ok(())
}

fn write_table<F: io::Read + Write + Seek>(
    file: &mut F,
    sector: u64,
    bios: bool,
) -> Result<(), PartitionError> {
    let table = |e: gptman::Error| PartitionError::Table(e.to_string());
    let random = |source| PartitionError::Io { what: "random numbers", source };
    let mut gpt = GPT::new_from(file, sector, guid().map_err(random)?).map_err(table)?;
    gpt.align = MIB / sector;
    let plan: [([u8; 16], &str, Option<u64>); 3] =
        [(BIOS_BOOT, "bios-boot", Some(MIB)), (ESP_TYPE, "esp", Some(ESP)), (LINUX, "root", None)];
    for (n, (kind, name, bytes)) in plan.into_iter().enumerate() {
        let size = match bytes {
            Some(b) => b / sector,
            // A multiple of 1 MiB, whatever the disk's size is.
            None => {
                let room = gpt.get_maximum_partition_size().map_err(table)?;
                room / (MIB / sector) * (MIB / sector)
            }
        };
        let start = gpt
            .find_first_place(size)
            .ok_or_else(|| PartitionError::Table(format!("no room for partition '{name}'")))?;
        gpt[n as u32 + 1] = GPTPartitionEntry {
            partition_type_guid: kind,
            unique_partition_guid: guid().map_err(random)?,
            starting_lba: start,
            ending_lba: start + size - 1,
            attribute_bits: 0,
            partition_name: name.into(),
        };
    }
    gpt.write_into(file).map_err(table)?;
    // Some BIOSes start only a disk whose protective entry is marked active
    // (against UEFI 2.10 §5.2.3, so not where UEFI boots).
    if bios {
        GPT::write_bootable_protective_mbr_into(file, sector).map_err(table)
    } else {
        GPT::write_protective_mbr_into(file, sector).map_err(table)
    }
}

/// A random GUID (RFC 9562, version 4) in on-disk order.
fn guid() -> io::Result<[u8; 16]> {
    let mut g = super::identity::random_uuid()?;
    g[0..4].reverse();
    g[4..6].reverse();
    g[6..8].reverse();
    Ok(g)
}

fn sector_size(file: &File) -> io::Result<u64> {
    if !file.metadata()?.file_type().is_block_device() {
        return Ok(512);
    }
    let mut size: libc::c_int = 0;
    // SAFETY: BLKSSZGET writes one int to the pointer, which lives here.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), 0x1268, &raw mut size) };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(size.max(512) as u64) }
}

fn reread(file: &File) -> io::Result<()> {
    let start = Instant::now();
    loop {
        // SAFETY: BLKRRPART takes no argument.
        if unsafe { libc::ioctl(file.as_raw_fd(), 0x125F) } == 0 {
            return Ok(());
        }
        let e = io::Error::last_os_error();
        // Busy while something that watches disks has it open.
        if e.raw_os_error() != Some(libc::EBUSY) || start.elapsed() > Duration::from_secs(5) {
            return Err(e);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn wait_for(path: &Path, patience: Duration) -> Result<(), PartitionError> {
    let start = Instant::now();
    while fs::metadata(path).is_err() {
        if start.elapsed() > patience {
            let seconds = patience.as_secs();
            return Err(PartitionError::Missing { path: path.to_owned(), seconds });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_disks_that_end_in_a_digit_have_a_p() {
        assert_eq!(partition_path(Path::new("/dev/sda"), 3), Path::new("/dev/sda3"));
        assert_eq!(partition_path(Path::new("/dev/nvme0n1"), 2), Path::new("/dev/nvme0n1p2"));
    }

    #[test]
    fn the_table_has_three_aligned_partitions_and_an_active_entry_for_bios() {
        for (sector, bios) in [(512, true), (512, false), (4096, true)] {
            let mut file = tempfile::tempfile().unwrap();
            file.set_len(8_000_000_000).unwrap();
            write_table(&mut file, sector, bios).unwrap();
            let gpt = GPT::read_from(&mut file, sector).unwrap();
            let used: Vec<_> = gpt.iter().filter(|(_, p)| p.is_used()).map(|(_, p)| p).collect();
            assert_eq!(used.len(), 3);
            assert!(used.iter().all(|p| p.starting_lba % (MIB / sector) == 0));
            assert_eq!(used[1].size().unwrap() * sector, ESP);
            assert!(used[2].size().unwrap() * sector > 7_000_000_000);
            assert_eq!(used[2].size().unwrap() * sector % MIB, 0);
            let mut mbr = [0u8; 512];
            file.seek(SeekFrom::Start(0)).unwrap();
            io::Read::read_exact(&mut file, &mut mbr).unwrap();
            assert_eq!((mbr[446], mbr[450], mbr[510]), (if bios { 0x80 } else { 0 }, 0xEE, 0x55));
        }
    }
}
