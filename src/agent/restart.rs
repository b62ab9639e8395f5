//! Leaves the installer: through the firmware, or straight into the installed
//! kernel.

use super::journal::say;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;

/// Loads kernel and ramdisk of the new root, to be started by [`kexec`].
/// `KEXEC_FILE_LOAD`: the kernel checks and copies both itself.
pub fn load_kernel(root: &Path, root_uuid: &str, kernel_args: &str) -> io::Result<()> {
    let kernel = File::open(root.join("vmlinuz"))?;
    let initrd = File::open(root.join("initrd.img"))?;
    let line = format!("root=UUID={root_uuid} ro {}", kernel_args.trim());
    let line = std::ffi::CString::new(line.trim_end()).map_err(io::Error::other)?;
    let bytes = line.as_bytes_with_nul();
    // SAFETY: both descriptors are open, and the command line is a string
    // with its terminating zero counted, as kexec_file_load(2) wants it.
    let done = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            kernel.as_raw_fd(),
            initrd.as_raw_fd(),
            bytes.len(),
            bytes.as_ptr(),
            0_u64,
        )
    };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Starts the kernel that was loaded; returns only when that fails.
pub fn kexec() {
    // SAFETY: asks the kernel to start another; no memory of ours is involved.
    let done = unsafe { libc::reboot(libc::LINUX_REBOOT_CMD_KEXEC) };
    if done == -1 {
        say(format_args!("kexec: {}", io::Error::last_os_error()));
    }
}

/// Restarts through the firmware; returns only when that fails.
pub fn reboot() {
    // SAFETY: asks the kernel to restart; no memory of ours is involved.
    let done = unsafe { libc::reboot(libc::RB_AUTOBOOT) };
    if done == -1 {
        say(format_args!("reboot: {}", io::Error::last_os_error()));
    }
}

/// Waits for ever: for a person, or for the server to cycle the power.
pub fn wait() -> ! {
    loop {
        std::thread::sleep(std::time::Duration::from_secs(3600));
    }
}

/// A shell on the console, again and again.
pub fn rescue_shell() -> ! {
    loop {
        let ended = Command::new("/bin/busybox").args(["setsid", "-c", "sh", "-l"]).status();
        if let Err(e) = ended {
            say(format_args!("no shell: {e}"));
            wait();
        }
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}
