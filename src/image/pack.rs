//! Cuts a block image into compressed chunks: one reader, a compressing thread
//! for each core, one writer that keeps the order, so that the bytes do not
//! depend on how many cores there were.

use super::format::{CHUNK, Index, runs};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// zstd level: 12 unpacks as fast as 3, is about 8 % smaller than it, and
/// packs 30 MB a second on one core.
const LEVEL: i32 = 12;

struct Job {
    number: usize,
    offset: u64,
    data: Vec<u8>,
}

struct Packed {
    number: usize,
    offset: u64,
    length: u64,
    frame: io::Result<Vec<u8>>,
}

/// Packs the image file `source` into `data` and returns its index. `tell` is
/// called with bytes read and bytes in all; when it answers `false` the
/// packing ends with an error of kind `Interrupted`.
pub fn pack(
    source: &Path,
    data: &Path,
    mut tell: impl FnMut(u64, u64) -> bool,
) -> io::Result<Index> {
    let mut input = File::open(source)?;
    let bytes = input.metadata()?.len();
    let mut index = Index { bytes, chunks: Vec::new() };
    let mut output = BufWriter::new(File::create(data)?);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (job_in, job_out) = sync_channel::<Job>(threads);
    let (packed_in, packed_out) = sync_channel::<Packed>(threads);
    // Owned by the workers alone: when they have all stopped, the reader sees
    // its channel closed instead of waiting for ever.
    let job_out = Arc::new(Mutex::new(job_out));

    std::thread::scope(|scope| -> io::Result<()> {
        for _ in 0..threads {
            let (jobs, packed) = (Arc::clone(&job_out), packed_in.clone());
            scope.spawn(move || {
                while let Some(job) = next(&jobs) {
                    let frame = zstd::bulk::compress(&job.data, LEVEL);
                    let (number, offset, length) = (job.number, job.offset, job.data.len() as u64);
                    if packed.send(Packed { number, offset, length, frame }).is_err() {
                        return;
                    }
                }
            });
        }
        drop(packed_in);
        drop(job_out);
        let reader = scope.spawn(move || -> io::Result<()> {
            let mut window = vec![0u8; CHUNK as usize];
            let (mut at, mut number) = (0u64, 0usize);
            while at < bytes {
                let length = CHUNK.min(bytes - at) as usize;
                input.read_exact(&mut window[..length])?;
                for (start, run) in runs(&window[..length]) {
                    let data = window[start..start + run].to_vec();
                    let offset = at + start as u64;
                    if job_in.send(Job { number, offset, data }).is_err() {
                        return Ok(());
                    }
                    number += 1;
                }
                at += length as u64;
            }
            Ok(())
        });
        let written = write_in_order(packed_out, &mut index, &mut output, &mut tell);
        let read = reader.join().unwrap_or_else(|_| Err(io::Error::other("reader died")));
        written.and(read)
    })?;
    output.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(index)
}

fn next(jobs: &Mutex<Receiver<Job>>) -> Option<Job> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

/// Owns the receiving end: when it returns early, the workers see it closed
/// and stop.
fn write_in_order(
    packed: Receiver<Packed>,
    index: &mut Index,
    output: &mut impl Write,
    tell: &mut impl FnMut(u64, u64) -> bool,
) -> io::Result<()> {
    let mut early = BTreeMap::new();
    let mut want = 0;
    for p in packed {
        early.insert(p.number, p);
        while let Some(p) = early.remove(&want) {
            let frame = p.frame?;
            output.write_all(&frame)?;
            index.push(p.offset, p.length, &frame);
            want += 1;
            if !tell(p.offset + p.length, index.bytes) {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "cancelled"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::format::Unpacker;

    #[test]
    fn a_packed_file_unpacks_with_plain_zstd_and_by_index() {
        let dir = tempfile::tempdir().unwrap();
        let (raw, zst) = (dir.path().join("raw"), dir.path().join("zst"));
        let mut image = vec![0u8; 65 << 20];
        for (n, b) in image[..61 << 20].iter_mut().enumerate() {
            *b = (n / 1000) as u8;
        }
        image[(65 << 20) - 1] = 1;
        std::fs::write(&raw, &image).unwrap();
        let index = pack(&raw, &zst, |_, _| true).unwrap();
        let data = std::fs::read(&zst).unwrap();
        assert_eq!(index.frame_bytes(), data.len() as u64);
        let all = zstd::decode_all(&data[..]).unwrap();
        assert_eq!(all.len() as u64, index.data_bytes());
        let mut unpacker = Unpacker::new().unwrap();
        let mut out = vec![0u8; CHUNK as usize];
        for (n, c) in index.chunks.iter().enumerate() {
            let frame = &data[c.frame_offset as usize..][..c.frame_length as usize];
            let got = unpacker.unpack(&index, n, frame, &mut out).unwrap();
            assert_eq!(out[..got], image[c.offset as usize..][..got]);
        }
        let stopped = pack(&raw, &zst, |_, _| false).unwrap_err();
        assert_eq!(stopped.kind(), io::ErrorKind::Interrupted);
    }
}
