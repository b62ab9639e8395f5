//! What an installer's ramdisk brings along: its kernel's release, its
//! components, the distribution's keys. Read as a stream: unpacked it has
//! 150 MB.

use crate::archive::deb822::Reader;
use crate::archive::index::groups;
use flate2::read::MultiGzDecoder;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// Where dpkg's list is.
const STATUS: &str = "var/lib/dpkg/status";
/// The distribution's keys, under the names that two releases give them.
const KEYRINGS: [&str; 2] = [
    "usr/share/keyrings/debian-archive-keyring.pgp",
    "usr/share/keyrings/debian-archive-keyring.gpg",
];
/// Largest file that is kept of it.
const LARGEST: u64 = 8 << 20;

/// See the module.
#[derive(Debug, Default)]
pub struct Ramdisk {
    /// Components in it, by name: version.
    pub components: BTreeMap<String, String>,
    /// Names that these provide, their own among them.
    pub provided: BTreeSet<String>,
    /// Keys that the installer believes.
    pub keyring: Vec<u8>,
    /// Release of its kernel, such as `6.12.107+deb13-amd64`.
    pub kernel: String,
    /// The directory with `modules`, `lib` or `usr/lib`: the other may be a
    /// link, which a ramdisk laid over it would replace.
    pub lib: &'static str,
}

/// Reads a ramdisk, a cpio in the form newc, as gzip.
///
/// # Errors
/// It is none, or none of an installer.
pub fn read(path: &Path) -> io::Result<Ramdisk> {
    let mut out = Ramdisk::default();
    let mut status = Vec::new();
    let file = BufReader::new(File::open(path)?);
    out.lib = "lib";
    walk(&mut BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file)), |name, from, size| {
        if name.starts_with("usr/lib/modules/") {
            out.lib = "usr/lib";
        }
        let to = if name == STATUS {
            &mut status
        } else if KEYRINGS.contains(&name) {
            &mut out.keyring
        } else {
            return Ok(());
        };
        // The other name of the keyring may be a link: its content is a path.
        if size <= LARGEST && size > 255 {
            to.clear();
            from.take(size).read_to_end(to)?;
        }
        Ok(())
    })?;
    let mut reader = Reader::new(&status[..]);
    while let Some(p) = reader.next_paragraph()? {
        let Some(name) = p.get("Package") else { continue };
        if let Some(kernel) = name.strip_prefix("kernel-image-").and_then(|k| k.strip_suffix("-di"))
        {
            kernel.clone_into(&mut out.kernel);
        }
        out.provided.insert(name.to_owned());
        for (_, names) in groups(p.get("Provides").unwrap_or_default()) {
            out.provided.extend(names);
        }
        out.components.insert(name.to_owned(), p.get("Version").unwrap_or_default().to_owned());
    }
    let missing = |what: &str| io::Error::other(format!("no ramdisk of an installer: no {what}"));
    if out.kernel.is_empty() {
        return Err(missing("kernel-image component in its list of components"));
    }
    if out.keyring.is_empty() {
        return Err(missing("keyring of the distribution"));
    }
    Ok(out)
}

/// Calls `each` for every file of a cpio: path, content, size. What it does
/// not read is passed over.
fn walk(
    from: &mut impl Read,
    mut each: impl FnMut(&str, &mut dyn Read, u64) -> io::Result<()>,
) -> io::Result<()> {
    let bad = || io::Error::other("no cpio in the form newc");
    loop {
        let mut head = [0; 110];
        from.read_exact(&mut head)?;
        if !head.starts_with(b"070701") && !head.starts_with(b"070702") {
            return Err(bad());
        }
        let field = |n: usize| -> io::Result<u64> {
            let text = std::str::from_utf8(&head[6 + n * 8..14 + n * 8]).map_err(|_| bad())?;
            u64::from_str_radix(text, 16).map_err(|_| bad())
        };
        let (size, name_size) = (field(6)?, field(11)?);
        if name_size == 0 || name_size > 4096 {
            return Err(bad());
        }
        // Header and name together end at a multiple of four, as does the file.
        let mut name = vec![0; ((110 + name_size).next_multiple_of(4) - 110) as usize];
        from.read_exact(&mut name)?;
        name.truncate(name_size as usize - 1);
        let name = String::from_utf8_lossy(&name).into_owned();
        if name == "TRAILER!!!" {
            return Ok(());
        }
        let mut content = from.take(size.next_multiple_of(4));
        each(name.trim_start_matches("./"), &mut content, size)?;
        io::copy(&mut content, &mut io::sink())?;
        if content.limit() > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::cpio::Cpio;
    use std::io::Write;

    fn packed(files: &[(&str, &[u8])]) -> tempfile::NamedTempFile {
        let mut cpio = Cpio::default();
        files.iter().for_each(|(p, b)| cpio.file(p, 0o644, b));
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut gz = flate2::write::GzEncoder::new(&file, flate2::Compression::fast());
        gz.write_all(&cpio.finish()).unwrap();
        gz.finish().unwrap();
        file
    }

    #[test]
    fn components_keys_and_kernel_are_found() {
        let status = "Package: anna\nStatus: install ok unpacked\nVersion: 1.99\n\n\
            Package: kernel-image-6.12.107+deb13-amd64-di\nVersion: 6.12.107-1\n\
            Provides: efi-modules, fat-modules (= 1)\n\n";
        let status = format!("{status}{}", "#\n".repeat(200));
        let key = [7; 300];
        let (other, files) = ([1; 5000], [KEYRINGS[0], KEYRINGS[1], STATUS]);
        let file = packed(&[
            ("bin/busybox", &other),
            (files[0], &key),
            (files[1], b"debian-archive-keyring.pgp"),
            (files[2], status.as_bytes()),
        ]);
        let r = read(file.path()).unwrap();
        assert_eq!(r.kernel, "6.12.107+deb13-amd64");
        assert_eq!(r.keyring, key);
        assert_eq!(r.components["anna"], "1.99");
        assert!(r.provided.contains("fat-modules") && r.provided.contains("anna"));
    }

    #[test]
    fn other_and_cut_files_are_refused() {
        let file = packed(&[("bin/busybox", &[1; 5000])]);
        assert!(read(file.path()).unwrap_err().to_string().contains("no ramdisk of an installer"));
        let mut cut = tempfile::NamedTempFile::new().unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        cut.write_all(&bytes[..bytes.len() / 2]).unwrap();
        assert!(read(cut.path()).is_err());
        std::fs::write(cut.path(), b"no gzip").unwrap();
        assert!(read(cut.path()).is_err());
    }
}
