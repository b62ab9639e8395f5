//! The image on its way from the server to the disk: one thread receives
//! frames, one for each core checks, unpacks and writes them, one makes the
//! gaps zero. Memory is bounded by the frames in flight; the page cache is
//! passed by, so that no bill for writing comes at the end.

use super::AgentError;
use super::journal::say;
use super::report::{Meter, Reporter};
use super::server::{RangeError, Server};
use crate::image::format::{BLOCK, CHUNK, Index, LARGEST_INDEX, Unpacker};
use crate::model::plan::RootfsPlan;
use crate::model::{Digest, Phase};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a transfer may stand still before the build is given up.
const STANDSTILL: Duration = Duration::from_secs(10 * 60);

/// Where the time went, summed over the workers, in milliseconds: tells a slow
/// network from a slow processor from a slow disk.
#[derive(Debug, Default)]
struct Spent {
    waiting: AtomicU64,
    unpacking: AtomicU64,
    writing: AtomicU64,
}

/// Adds the time since `from` and starts anew.
fn lap(from: &mut Instant, to: &AtomicU64) {
    let now = Instant::now();
    to.fetch_add(now.duration_since(*from).as_millis() as u64, Ordering::Relaxed);
    *from = now;
}

struct Frame {
    chunk: usize,
    bytes: Vec<u8>,
}

/// Fetches the index and checks it against the plan.
pub fn fetch_index(server: &Server, plan: &RootfsPlan) -> Result<Index, AgentError> {
    let text =
        server.get_bytes(&plan.index, LARGEST_INDEX).map_err(|e| e.in_phase(Phase::Image))?;
    let found = Digest::of(&text);
    let failed = |reason: String| AgentError::failed(Phase::Image, reason);
    if found != plan.index_digest {
        return Err(failed(format!(
            "{}: digest is {found}, must be {}: the image on the server is not the one in the plan",
            plan.index, plan.index_digest
        )));
    }
    let index = Index::parse(&text).map_err(|e| failed(format!("{}: {e}", plan.index)))?;
    if index.bytes != plan.bytes {
        return Err(failed(format!(
            "{}: the image has {} bytes, the plan says {}",
            plan.index, index.bytes, plan.bytes
        )));
    }
    Ok(index)
}

/// Writes the image to `device`. All of it has reached the disk on return.
pub fn write_image(
    server: &Server,
    plan: &RootfsPlan,
    index: &Index,
    device: &Path,
    reporter: &Reporter,
) -> Result<(), AgentError> {
    let start = Instant::now();
    let failed = |reason: String| AgentError::failed(Phase::Image, reason);
    let disk = open(device).map_err(|e| failed(format!("opening {}: {e}", device.display())))?;
    let meter = Arc::clone(&reporter.meter);
    meter.total.store(index.frame_bytes(), Ordering::Relaxed);
    let stop = reporter.stop_flag();
    let broken = AtomicBool::new(false);
    let spent = Spent::default();
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(16);
    let (frames_in, frames) = sync_channel::<Frame>(workers * 2);
    let frames = Arc::new(Mutex::new(frames));

    let result = std::thread::scope(|scope| {
        let gaps = scope.spawn(|| zero_gaps(&disk, index, &stop));
        let mut writers = Vec::new();
        for _ in 0..workers {
            let (frames, disk, meter, broken, spent) =
                (Arc::clone(&frames), &disk, Arc::clone(&meter), &broken, &spent);
            writers.push(scope.spawn(move || {
                let result = write_frames(&frames, disk, index, &meter, spent);
                if result.is_err() {
                    broken.store(true, Ordering::Relaxed);
                }
                result
            }));
        }
        drop(frames);
        let received = receive(server, plan, index, frames_in, &stop, &broken);
        let died = || Err("a thread died".to_owned());
        let mut result: Result<(), String> = Ok(());
        for writer in writers {
            result = result.and(writer.join().unwrap_or_else(|_| died()));
        }
        let zeroed = gaps.join().unwrap_or_else(|_| died());
        // A writer's reason says more than the receiver's "stopped".
        result.map_err(failed)?;
        received?;
        zeroed.map_err(failed)
    });
    reporter.check()?;
    result?;
    disk.sync_all().map_err(|e| failed(format!("writing to {}: {e}", device.display())))?;
    let seconds = start.elapsed().as_secs_f64();
    say(format_args!(
        "image written: {} MB in {} chunks, {} MB on the wire, {seconds:.1} s, {:.0} MB/s",
        index.data_bytes() / 1_000_000,
        index.chunks.len(),
        index.frame_bytes() / 1_000_000,
        index.data_bytes() as f64 / 1e6 / seconds.max(0.001)
    ));
    let seconds = |ms: &AtomicU64| ms.load(Ordering::Relaxed) as f64 / 1000.0;
    say(format_args!(
        "{workers} workers: waiting for data {:.1} s, checking and unpacking {:.1} s, writing {:.1} s",
        seconds(&spent.waiting),
        seconds(&spent.unpacking),
        seconds(&spent.writing)
    ));
    Ok(())
}

/// Past the page cache where the device can; a plain file in tests cannot
/// always.
fn open(device: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true);
    options.clone().custom_flags(libc::O_DIRECT).open(device).or_else(|_| options.open(device))
}

/// Receives frame after frame; a broken connection is taken up again at the
/// frame that was not complete.
fn receive(
    server: &Server,
    plan: &RootfsPlan,
    index: &Index,
    out: SyncSender<Frame>,
    stop: &AtomicBool,
    broken: &AtomicBool,
) -> Result<(), AgentError> {
    let failed = |reason: String| AgentError::failed(Phase::Image, reason);
    let end = index.frame_bytes();
    let (mut next, mut last_progress) = (0, Instant::now());
    let mut pause = Duration::from_millis(250);
    while next < index.chunks.len() {
        let before = next;
        let why = match server.get_range(&plan.data, index.chunks[next].frame_offset, end) {
            Err(RangeError::Over(why)) => return Err(AgentError::Over(why)),
            Err(RangeError::Gone(why)) => return Err(failed(why)),
            Err(RangeError::Again(why)) => why,
            Ok(mut body) => loop {
                if stop.load(Ordering::Relaxed) || broken.load(Ordering::Relaxed) {
                    return Err(failed("stopped".to_owned()));
                }
                let Some(chunk) = index.chunks.get(next) else { return Ok(()) };
                let mut bytes = vec![0u8; chunk.frame_length as usize];
                if let Err(e) = body.read_exact(&mut bytes) {
                    break e.to_string();
                }
                if out.send(Frame { chunk: next, bytes }).is_err() {
                    return Err(failed("stopped".to_owned()));
                }
                next += 1;
            },
        };
        if next > before {
            last_progress = Instant::now();
            pause = Duration::from_millis(250);
        }
        if last_progress.elapsed() > STANDSTILL {
            return Err(failed(format!(
                "{}: stands still at chunk {next} of {} for {} s: {why}",
                plan.data,
                index.chunks.len(),
                last_progress.elapsed().as_secs()
            )));
        }
        say(format_args!("{}: {why}; going on at chunk {next}", plan.data));
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_secs(5));
    }
    Ok(())
}

fn write_frames(
    frames: &Mutex<Receiver<Frame>>,
    disk: &File,
    index: &Index,
    meter: &Meter,
    spent: &Spent,
) -> Result<(), String> {
    let mut unpacker = Unpacker::new().map_err(|e| e.to_string())?;
    // Direct writes want aligned memory: a block more, and start inside it.
    let mut memory = vec![0u8; (CHUNK + BLOCK) as usize];
    let skip = memory.as_ptr().align_offset(BLOCK as usize).min(BLOCK as usize);
    let buffer = &mut memory[skip..skip + CHUNK as usize];
    let mut clock = Instant::now();
    loop {
        let frame = frames.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Frame { chunk, bytes }) = frame else { return Ok(()) };
        lap(&mut clock, &spent.waiting);
        let length =
            unpacker.unpack(index, chunk, &bytes, buffer).map_err(|e| format!("image: {e}"))?;
        lap(&mut clock, &spent.unpacking);
        let whole = length.next_multiple_of(BLOCK as usize);
        buffer[length..whole].fill(0);
        let offset = index.chunks[chunk].offset;
        disk.write_all_at(&buffer[..whole], offset)
            .map_err(|e| format!("writing chunk {chunk} at {offset}: {e}"))?;
        lap(&mut clock, &spent.writing);
        meter.done.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
}

/// Makes the ranges without data zero. They must not keep what was there: an
/// older journal of the same image would be replayed over the new one.
fn zero_gaps(disk: &File, index: &Index, stop: &AtomicBool) -> Result<(), String> {
    const BLKZEROOUT: libc::c_ulong = 0x127F;
    let (mut count, mut bytes, start) = (0, 0, Instant::now());
    for (offset, length) in index.gaps() {
        // In steps, so that a slow disk can be stopped.
        let mut at = offset;
        while at < offset + length {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let step = (offset + length - at).min(1 << 30);
            let range = [at, step.next_multiple_of(512)];
            // SAFETY: BLKZEROOUT reads two 64-bit numbers from the pointer.
            let done = unsafe { libc::ioctl(disk.as_raw_fd(), BLKZEROOUT, range.as_ptr()) };
            if done == -1 {
                let e = io::Error::last_os_error();
                return Err(format!("making {step} bytes at {at} zero: {e}"));
            }
            at += step;
        }
        (count, bytes) = (count + 1, bytes + length);
    }
    say(format_args!(
        "{count} gaps of {} MB made zero in {:.1} s",
        bytes / 1_000_000,
        start.elapsed().as_secs_f64()
    ));
    Ok(())
}
