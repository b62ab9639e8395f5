//! From a directory tree to a block image, and what is known of the packages
//! in it.

use super::child::clean_environment;
use super::ext4;
use std::io;
use std::path::Path;
use std::process::Command;

/// Removes identity and leftovers: `clean.sh ROOT`.
pub const CLEAN: &str = include_str!("scripts/clean.sh");
/// Writes the ext4 image: `mke2fs.sh ROOT IMAGE`.
pub const MKE2FS: &str = include_str!("scripts/mke2fs.sh");

/// Writes `tree` as an ext4 image of `bytes` to `image`, with settled times.
pub fn make_ext4(tree: &Path, image: &Path, bytes: u64, epoch: u64) -> io::Result<()> {
    let mut command = Command::new("sh");
    command.args(["-euc", MKE2FS, "mke2fs"]).arg(tree).arg(image);
    clean_environment(&mut command);
    command.env("SOURCE_DATE_EPOCH", epoch.to_string()).env("BYTES", bytes.to_string());
    let done = command.output()?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
        return Err(io::Error::other(format!("mke2fs failed: {said}")));
    }
    ext4::settle_times(image, epoch)
}

/// `packages.txt` from dpkg's status file: `name version architecture`, one
/// line for each installed package, sorted.
pub fn package_list(status: &str) -> String {
    let mut lines: Vec<String> = status
        .split("\n\n")
        .filter_map(|paragraph| {
            let field =
                |key: &str| paragraph.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(": "));
            let installed = field("Status")? == "install ok installed";
            installed.then(|| {
                format!(
                    "{} {} {}\n",
                    field("Package").unwrap_or("?"),
                    field("Version").unwrap_or("?"),
                    field("Architecture").unwrap_or("?")
                )
            })
        })
        .collect();
    lines.sort();
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::package_list;

    #[test]
    fn only_installed_packages_are_listed_in_order() {
        let status = "Package: zlib1g\nStatus: install ok installed\nArchitecture: amd64\n\
            Version: 1:1.2\nDescription: x\n\nPackage: gone\nStatus: deinstall ok config-files\n\
            Version: 1\n\nPackage: apt\nStatus: install ok installed\nArchitecture: amd64\n\
            Version: 2.6.1\n";
        assert_eq!(package_list(status), "apt 2.6.1 amd64\nzlib1g 1:1.2 amd64\n");
    }
}
