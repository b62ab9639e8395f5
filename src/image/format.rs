//! `rootfs.idx` and `rootfs.zst`: a block image cut so that a node can check,
//! unpack and write its pieces in parallel, in any order, and skip what is
//! empty.
//!
//! The image is read in windows of [`CHUNK`] bytes; inside a window, runs of
//! at least [`SMALLEST_GAP`] zero bytes are left out, and every run of data in
//! between is one chunk: one zstd frame of its own. The frames stand one after
//! the other in `rootfs.zst`, which any zstd program reads. The index is text:
//!
//! ```text
//! provision-rootfs 1 <bytes of the image> <chunks>
//! <offset> <length> <frame length> <sha256 of the frame, hexadecimal>
//! ```
//!
//! Its digest is in the plan and every frame's digest is in it, so that each
//! piece is checked before it is unpacked, and a hostile index cannot ask for
//! more memory than [`CHUNK`] a worker.

use crate::model::Digest;
use std::fmt::Write as _;

/// Largest chunk, and the window.
pub const CHUNK: u64 = 4 << 20;
/// Offsets and lengths are multiples of this, but for the image's last chunk.
pub const BLOCK: u64 = 4096;
/// Shorter runs of zeros stay inside their chunk: a frame costs about as much.
pub const SMALLEST_GAP: u64 = 64 << 10;
/// An index larger than this is refused unread: enough for 400,000 chunks.
pub const LARGEST_INDEX: u64 = 48 << 20;

/// What can be wrong with an index or a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The index is not one.
    #[error("index, line {line}: {what}")]
    Index {
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// A frame is not what the index says.
    #[error("chunk {chunk} of {chunks} (offset {offset}): digest is {found}, must be {want}")]
    Digest {
        /// Chunk, from 0.
        chunk: usize,
        /// Chunks in all.
        chunks: usize,
        /// Its place in the image.
        offset: u64,
        /// Digest of what came.
        found: Digest,
        /// Digest that the index names.
        want: Digest,
    },
    /// A frame has the right digest and still does not unpack.
    #[error("chunk {chunk}: {what}")]
    Frame {
        /// Chunk, from 0.
        chunk: usize,
        /// What is wrong.
        what: String,
    },
}

/// One piece of data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Its place in the image.
    pub offset: u64,
    /// Bytes, unpacked.
    pub length: u64,
    /// Its frame's place in `rootfs.zst`.
    pub frame_offset: u64,
    /// Its frame's bytes.
    pub frame_length: u64,
    /// Digest of the frame.
    pub digest: Digest,
}

/// All pieces of an image, by offset; frames follow each other without gap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Index {
    /// Size of the image.
    pub bytes: u64,
    /// Its chunks.
    pub chunks: Vec<Chunk>,
}

impl Index {
    /// Bytes of data, unpacked.
    pub fn data_bytes(&self) -> u64 {
        self.chunks.iter().map(|c| c.length).sum()
    }

    /// Size of `rootfs.zst`.
    pub fn frame_bytes(&self) -> u64 {
        self.chunks.last().map_or(0, |c| c.frame_offset + c.frame_length)
    }

    /// The ranges without data, as offset and length: they must be made zero
    /// on a disk that has been used before.
    pub fn gaps(&self) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let mut at = 0;
        for c in &self.chunks {
            if c.offset > at {
                gaps.push((at, c.offset - at));
            }
            at = c.offset + c.length;
        }
        if self.bytes > at {
            gaps.push((at, self.bytes - at));
        }
        gaps
    }

    /// Adds the next chunk; `frame` is its compressed form.
    pub(super) fn push(&mut self, offset: u64, length: u64, frame: &[u8]) {
        let frame_offset = self.frame_bytes();
        let frame_length = frame.len() as u64;
        let digest = Digest::of(frame);
        self.chunks.push(Chunk { offset, length, frame_offset, frame_length, digest });
    }

    /// As text.
    pub fn to_text(&self) -> String {
        let mut out = format!("provision-rootfs 1 {} {}\n", self.bytes, self.chunks.len());
        for c in &self.chunks {
            // Writing to a String does not fail.
            let _ =
                writeln!(out, "{} {} {} {}", c.offset, c.length, c.frame_length, c.digest.to_hex());
        }
        out
    }

    /// Reads an index. Everything in it is checked against everything else,
    /// so that a caller may trust its arithmetic.
    pub fn parse(text: &[u8]) -> Result<Self, FormatError> {
        let err = |line: usize, what| FormatError::Index { line, what };
        let text = std::str::from_utf8(text).map_err(|_| err(1, "is not text"))?;
        let mut lines = text.lines();
        let mut head = lines.next().unwrap_or_default().split(' ');
        if head.next() != Some("provision-rootfs") {
            return Err(err(1, "must begin with 'provision-rootfs'"));
        }
        if head.next() != Some("1") {
            return Err(err(1, "is of a version that this program does not read"));
        }
        let mut number = || head.next().and_then(plain_number).ok_or(err(1, "needs two numbers"));
        let (bytes, count) = (number()?, number()?);
        if head.next().is_some() || bytes > 1 << 50 {
            return Err(err(1, "must hold the image's size and the number of chunks"));
        }
        let mut index = Self { bytes, chunks: Vec::new() };
        let (mut at, mut frame_at) = (0u64, 0u64);
        for (n, line) in lines.enumerate() {
            let line_number = n + 2;
            let chunk = parse_chunk(line, frame_at).map_err(|what| err(line_number, what))?;
            if chunk.offset < at {
                return Err(err(line_number, "overlaps the chunk before it"));
            }
            at = chunk.offset.saturating_add(chunk.length);
            if at > bytes {
                return Err(err(line_number, "goes past the end of the image"));
            }
            if chunk.length % BLOCK != 0 && at != bytes {
                return Err(err(line_number, "length is not a multiple of 4096"));
            }
            frame_at += chunk.frame_length;
            index.chunks.push(chunk);
        }
        if index.chunks.len() as u64 != count {
            return Err(err(index.chunks.len() + 1, "is not the last: the file is cut short"));
        }
        if !text.ends_with('\n') {
            return Err(err(index.chunks.len() + 1, "does not end with a newline"));
        }
        Ok(index)
    }
}

/// Decimal without sign or leading zeros: one number, one spelling.
fn plain_number(text: &str) -> Option<u64> {
    let canonical = text == "0" || (!text.starts_with('0') && !text.starts_with('+'));
    canonical.then(|| text.parse().ok()).flatten()
}

fn parse_chunk(line: &str, frame_offset: u64) -> Result<Chunk, &'static str> {
    let mut fields = line.split(' ');
    let mut number = || fields.next().and_then(plain_number).ok_or("needs three numbers");
    let (offset, length, frame_length) = (number()?, number()?, number()?);
    let mut raw = [0u8; 32];
    fields
        .next()
        .and_then(|h| hex::decode_to_slice(h, &mut raw).ok())
        .ok_or("needs a SHA-256 digest in hexadecimal")?;
    if fields.next().is_some() {
        return Err("has more than four fields");
    }
    if offset % BLOCK != 0 {
        return Err("offset is not a multiple of 4096");
    }
    if length == 0 || length > CHUNK {
        return Err("length must be 1 to 4194304");
    }
    // A frame of incompressible data is a little larger than the data.
    if frame_length == 0 || frame_length > CHUNK + CHUNK / 128 {
        return Err("frame length is not possible");
    }
    Ok(Chunk { offset, length, frame_offset, frame_length, digest: Digest::from_raw(raw) })
}

/// Checks and unpacks frames; one for each worker, since it keeps zstd's
/// memory from frame to frame.
pub struct Unpacker {
    zstd: zstd::bulk::Decompressor<'static>,
}

impl Unpacker {
    /// A new one.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { zstd: zstd::bulk::Decompressor::new()? })
    }

    /// Unpacks the frame of chunk `number` into the front of `out`, which has
    /// room for [`CHUNK`] bytes, after its digest has been found right.
    pub fn unpack(
        &mut self,
        index: &Index,
        number: usize,
        frame: &[u8],
        out: &mut [u8],
    ) -> Result<usize, FormatError> {
        let wrong = |what: String| FormatError::Frame { chunk: number, what };
        let chunk = index.chunks.get(number).ok_or_else(|| wrong("no such chunk".to_owned()))?;
        let found = Digest::of(frame);
        if found != chunk.digest {
            return Err(FormatError::Digest {
                chunk: number,
                chunks: index.chunks.len(),
                offset: chunk.offset,
                found,
                want: chunk.digest,
            });
        }
        let length = chunk.length as usize;
        let room = out.get_mut(..length).ok_or_else(|| wrong("buffer too small".to_owned()))?;
        let got = self.zstd.decompress_to_buffer(frame, room).map_err(|e| wrong(e.to_string()))?;
        if got != length {
            return Err(wrong(format!("unpacks to {got} bytes, must be {length}")));
        }
        Ok(got)
    }
}

/// The runs of data in a window, as offset in the window and length: zero
/// runs of at least [`SMALLEST_GAP`], and zeros at either end, are left out.
pub(super) fn runs(window: &[u8]) -> Vec<(usize, usize)> {
    let zero = [0u8; BLOCK as usize];
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (n, block) in window.chunks(BLOCK as usize).enumerate() {
        if *block == zero[..block.len()] {
            continue;
        }
        let start = n * BLOCK as usize;
        let end = start + block.len();
        match runs.last_mut() {
            Some((at, length)) if start - (*at + *length) < SMALLEST_GAP as usize => {
                *length = end - *at;
            }
            _ => runs.push((start, end - start)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An image of data blocks and holes, as a list of (blocks, byte).
    fn image(parts: &[(u16, u8)], tail: u16) -> Vec<u8> {
        let mut out = Vec::new();
        for (blocks, byte) in parts {
            out.resize(out.len() + *blocks as usize * BLOCK as usize, *byte);
        }
        out.resize(out.len() + tail as usize, 7);
        out
    }

    fn pack(image: &[u8]) -> (Index, Vec<u8>) {
        let (mut index, mut data) = (Index { bytes: image.len() as u64, chunks: vec![] }, vec![]);
        for (n, window) in image.chunks(CHUNK as usize).enumerate() {
            for (at, length) in runs(window) {
                let frame = zstd::bulk::compress(&window[at..at + length], 1).unwrap();
                index.push(n as u64 * CHUNK + at as u64, length as u64, &frame);
                data.extend_from_slice(&frame);
            }
        }
        (index, data)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_packed_comes_back_and_the_rest_is_gaps(
            parts in proptest::collection::vec((1u16..1200, prop_oneof![Just(0u8), any::<u8>()]), 0..5),
            tail in 0u16..5000,
        ) {
            let image = image(&parts, tail);
            let (index, data) = pack(&image);
            let read = Index::parse(index.to_text().as_bytes()).unwrap();
            prop_assert_eq!(&read, &index);
            // Garbage on the disk beforehand, as on a disk that was in use.
            let mut disk = vec![0xAAu8; image.len()];
            for (at, length) in read.gaps() {
                disk[at as usize..(at + length) as usize].fill(0);
            }
            let mut unpacker = Unpacker::new().unwrap();
            let mut out = vec![0u8; CHUNK as usize];
            for (n, c) in read.chunks.iter().enumerate() {
                let frame = &data[c.frame_offset as usize..(c.frame_offset + c.frame_length) as usize];
                let got = unpacker.unpack(&read, n, frame, &mut out).unwrap();
                disk[c.offset as usize..c.offset as usize + got].copy_from_slice(&out[..got]);
            }
            prop_assert!(disk == image);
            prop_assert_eq!(read.frame_bytes(), data.len() as u64);
        }

        #[test]
        fn no_index_however_broken_does_more_than_fail(
            flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
            cut in any::<proptest::sample::Index>(),
        ) {
            let (index, _) = pack(&image(&[(3, 1), (40, 0), (2, 9)], 100));
            let mut text = index.to_text().into_bytes();
            for (at, byte) in flips {
                let at = at.index(text.len());
                text[at] = byte;
            }
            text.truncate(cut.index(text.len() + 1));
            if let Ok(read) = Index::parse(&text) {
                let covered: u64 = read.gaps().iter().map(|g| g.1).sum::<u64>() + read.data_bytes();
                prop_assert_eq!(covered, read.bytes);
            }
        }
    }

    #[test]
    fn a_wrong_frame_is_named_by_its_number() {
        let (index, mut data) = pack(&image(&[(3, 1), (40, 0), (2, 9)], 0));
        assert_eq!(index.chunks.len(), 2);
        let second = &index.chunks[1];
        let (from, to) =
            (second.frame_offset as usize, (second.frame_offset + second.frame_length) as usize);
        data[to - 1] ^= 1;
        let mut out = vec![0u8; CHUNK as usize];
        let failed = Unpacker::new().unwrap().unpack(&index, 1, &data[from..to], &mut out);
        assert!(
            matches!(failed, Err(FormatError::Digest { chunk: 1, chunks: 2, .. })),
            "{failed:?}"
        );
    }

    #[test]
    fn a_frame_that_unpacks_to_more_than_it_may_is_refused() {
        let bomb = zstd::bulk::compress(&vec![1u8; 1 << 20], 1).unwrap();
        let mut index = Index { bytes: 4096, chunks: vec![] };
        index.push(0, 4096, &bomb);
        let mut out = vec![0u8; CHUNK as usize];
        let failed = Unpacker::new().unwrap().unpack(&index, 0, &bomb, &mut out);
        assert!(matches!(failed, Err(FormatError::Frame { chunk: 0, .. })), "{failed:?}");
    }

    #[test]
    fn an_index_that_contradicts_itself_is_refused_with_its_line() {
        let h = "0".repeat(64);
        for (text, line, part) in [
            (String::new(), 1, "must begin"),
            ("provision-rootfs 2 0 0\n".into(), 1, "version"),
            ("provision-rootfs 1 8192 1\n".into(), 1, "cut short"),
            (format!("provision-rootfs 1 8192 1\n0 4096 10 {h}"), 2, "newline"),
            (format!("provision-rootfs 1 8192 1\n0 12288 10 {h}\n"), 2, "past the end"),
            (format!("provision-rootfs 1 8192 1\n1 4096 10 {h}\n"), 2, "offset"),
            (format!("provision-rootfs 1 8192 1\n0 01 10 {h}\n"), 2, "three numbers"),
            (format!("provision-rootfs 1 99999999 1\n0 8388608 10 {h}\n"), 2, "length"),
            (format!("provision-rootfs 1 8192 1\n0 4096 99999999 {h}\n"), 2, "frame length"),
            (format!("provision-rootfs 1 8192 2\n4096 4096 1 {h}\n0 4096 1 {h}\n"), 3, "overlaps"),
        ] {
            match Index::parse(text.as_bytes()) {
                Err(FormatError::Index { line: l, what }) => {
                    assert!(l == line && what.contains(part), "{text:?}: {l} {what}");
                }
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }
}
