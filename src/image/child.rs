//! Runs the programs that make an image. Each runs in a mount and process
//! namespace of its own, so that when it is cancelled, or this program is
//! killed, nothing of it stays: no process, no mount.

use super::build::Progress;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// How many of its last lines a failure shows.
const LAST_LINES: usize = 12;

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// It could not be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// Program.
        program: String,
        /// Cause.
        source: io::Error,
    },
    /// It ended with an error.
    #[error("{what} failed ({status}):\n{}", .last.join("\n"))]
    Failed {
        /// What it was doing.
        what: String,
        /// How it ended.
        status: ExitStatus,
        /// Its last lines.
        last: Vec<String>,
    },
    /// The build was cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// A command that runs `script` with `sh -eu` in its own namespaces; the
/// arguments are the script's.
pub fn isolated_script(script: &str, arguments: &[&std::ffi::OsStr]) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"])
        .args(["--mount-proc", "sh", "-euc", script, "provision"])
        .args(arguments);
    clean_environment(&mut command);
    command
}

/// The host's locale, proxies of the shell and the like must not show in the
/// result.
pub fn clean_environment(command: &mut Command) {
    command
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .env("HOME", "/root")
        .env("DEBIAN_FRONTEND", "noninteractive");
}

/// Runs `command`, its output going to the log line by line, until it ends or
/// the build is cancelled.
pub fn run(
    what: &str,
    mut command: Command,
    progress: &mut dyn Progress,
) -> Result<(), ChildError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let start = |source| ChildError::Start { program: program.clone(), source };
    // One pipe for both outputs: their lines stay in order.
    let (from, to) = io::pipe().map_err(start)?;
    let errors = to.try_clone().map_err(start)?;
    command.stdin(Stdio::null()).stdout(to).stderr(errors).process_group(0);
    // SAFETY: prctl with these arguments touches no memory and is
    // async-signal-safe. The thread that starts the child waits for it, so the
    // signal comes only when this program dies.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == -1 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let mut child = command.spawn().map_err(start)?;
    // It holds the writing ends, which must close when the child does.
    drop(command);
    let (lines_in, said) = channel();
    let reader = lines(from, lines_in);
    let mut last: Vec<String> = Vec::new();
    let cancelled = loop {
        match said.recv_timeout(Duration::from_millis(200)) {
            Ok(line) if line.is_empty() => {}
            Ok(line) => {
                progress.log(&line);
                last.push(line);
                if last.len() > LAST_LINES {
                    last.remove(0);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break false,
        }
        if progress.cancelled() {
            kill(&mut child);
            break true;
        }
    };
    let status =
        child.wait().map_err(|source| ChildError::Start { program: what.to_owned(), source })?;
    // A reader that panicked has no more lines; nothing to do about it.
    let _ = reader.join();
    match (cancelled, status.success()) {
        (true, _) => Err(ChildError::Cancelled),
        (false, true) => Ok(()),
        (false, false) => Err(ChildError::Failed { what: what.to_owned(), status, last }),
    }
}

/// The whole group, which `--kill-child` extends to the namespace.
fn kill(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id()).map(rustix::process::Pid::from_raw)
        && let Some(pid) = pid
    {
        // Already gone is as good.
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
}

/// Longest line that is kept in one piece: a program that never ends its line
/// must not fill the memory.
const LONGEST_LINE: u64 = 64 << 10;

/// A program's output line by line, from a thread of its own, until it ends or
/// nobody listens; the end of a line is trimmed, what is no UTF-8 replaced.
pub fn lines(from: impl Read + Send + 'static, to: Sender<String>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            let read = (&mut from).take(LONGEST_LINE).read_until(b'\n', &mut line);
            if !matches!(read, Ok(n) if n > 0) {
                return;
            }
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if to.send(text).is_err() {
                return;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::build::Silent;

    struct Cancelling;
    impl Progress for Cancelling {
        fn step(&mut self, _: &str) {}
        fn bytes(&mut self, _: u64, _: u64) {}
        fn log(&mut self, _: &str) {}
        fn cancelled(&self) -> bool {
            true
        }
    }

    #[test]
    fn a_failing_program_is_reported_with_its_last_lines() {
        let mut command = Command::new("sh");
        command.args(["-c", "seq 30; echo broken >&2; exit 3"]);
        let said = run("the script", command, &mut Silent).unwrap_err().to_string();
        assert!(said.contains("the script failed") && said.contains("broken"), "{said}");
        assert!(!said.contains("\n5\n"), "{said}");
    }

    #[test]
    fn output_without_an_end_of_line_comes_in_bounded_pieces() {
        let (to, said) = channel();
        let endless = io::Cursor::new(vec![b'x'; 200 << 10]).chain(&b"\nend \xff\n"[..]);
        lines(endless, to).join().unwrap();
        let said: Vec<String> = said.iter().collect();
        assert!(said.iter().all(|l| l.len() <= 64 << 10), "{}", said.len());
        assert_eq!(said.concat().len(), (200 << 10) + "end \u{fffd}".len());
        assert_eq!(said.last().unwrap(), "end \u{fffd}");
    }

    #[test]
    fn cancelling_ends_a_program_and_its_children_at_once() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & sleep 60"]);
        let start = std::time::Instant::now();
        assert!(matches!(run("sleep", command, &mut Cancelling), Err(ChildError::Cancelled)));
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
