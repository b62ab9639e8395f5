//! Runs programs of the new system in its root, their output going to the log
//! line by line.

use super::journal::say;
use super::target::Target;
use crate::image::child;
use std::io::{self, PipeReader, Read};
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How many of its last lines a failure shows.
const LAST_LINES: usize = 8;
/// What a pipe holds (pipe(7)): of a program that has ended, no more is unread.
const PIPE: usize = 64 << 10;

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ChrootError {
    /// It could not be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// Program.
        program: String,
        /// Cause.
        source: io::Error,
    },
    /// It ended with an error.
    #[error("{program} failed ({how}): {}", .last.join(" | "))]
    Failed {
        /// Program.
        program: String,
        /// Exit code or signal.
        how: String,
        /// Its last lines.
        last: Vec<String>,
    },
    /// It ran out of time.
    #[error("{program} was still running after {seconds} s: {}", .last.join(" | "))]
    Slow {
        /// Program.
        program: String,
        /// Its deadline.
        seconds: u64,
        /// Its last lines.
        last: Vec<String>,
    },
}

/// Runs a program in the new root; returns what it printed.
pub fn run(target: &Target, arguments: &[&str], patience: Duration) -> Result<String, ChrootError> {
    let mut command = Command::new("/bin/busybox");
    command.arg("chroot").arg(target.root()).args(arguments);
    let name = arguments.first().copied().unwrap_or_default();
    let name = name.rsplit('/').next().unwrap_or(name);
    run_command(name, command, patience, |line| say(format_args!("{name}: {line}")))
}

/// How a program ended.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code; 124 when it ran out of time, 128 and the signal's number
    /// when a signal ended it, as a shell says it.
    pub code: i32,
    /// Its last lines, ten thousand at most.
    pub lines: Vec<String>,
}

impl Outcome {
    /// The last `count` lines that say something.
    pub fn last(&self, count: usize) -> Vec<String> {
        let said: Vec<String> =
            self.lines.iter().filter(|l| !l.trim().is_empty()).cloned().collect();
        said[said.len().saturating_sub(count)..].to_vec()
    }
}

/// Runs a prepared command; anything but exit code 0 is an error.
pub fn run_command(
    program: &str,
    command: Command,
    patience: Duration,
    line_said: impl FnMut(&str),
) -> Result<String, ChrootError> {
    let done = run_to_end(program, command, patience, line_said)?;
    let program = program.to_owned();
    let last = done.last(LAST_LINES);
    match done.code {
        0 => Ok(done.lines.join("\n")),
        124 => Err(ChrootError::Slow { program, seconds: patience.as_secs(), last }),
        code @ 129.. => {
            Err(ChrootError::Failed { program, how: format!("signal {}", code - 128), last })
        }
        code => Err(ChrootError::Failed { program, how: format!("exit code {code}"), last }),
    }
}

/// Runs a prepared command with the environment that scripts of the new
/// system expect, until it ends or its time is up.
pub fn run_to_end(
    program: &str,
    mut command: Command,
    patience: Duration,
    mut line_said: impl FnMut(&str),
) -> Result<Outcome, ChrootError> {
    let start = |source| ChrootError::Start { program: program.to_owned(), source };
    let (from, to) = io::pipe().map_err(start)?;
    let errors = to.try_clone().map_err(start)?;
    command
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("LC_ALL", "C.UTF-8")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("PROVISION_STAGE", "install")
        .stdin(Stdio::null())
        .stdout(to)
        .stderr(errors)
        .process_group(0);
    let mut child = command.spawn().map_err(start)?;
    // It holds the writing ends, which must close when the child does.
    drop(command);
    let (lines_in, lines) = channel();
    let ended = Arc::new(AtomicBool::new(false));
    child::lines(Output { from, ended: ended.clone(), left: PIPE }, lines_in);
    let begun = Instant::now();
    let mut all: Vec<String> = Vec::new();
    let mut take = |line: String| {
        line_said(&line);
        all.push(line);
        if all.len() > 10_000 {
            all.drain(..5_000);
        }
    };
    let slow = loop {
        match lines.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => take(line),
            Err(RecvTimeoutError::Disconnected) => break false,
            Err(RecvTimeoutError::Timeout) => {
                if matches!(child.try_wait(), Ok(Some(_))) {
                    break false;
                }
            }
        }
        if begun.elapsed() > patience {
            kill_group(&mut child);
            break true;
        }
    };
    let status = child.wait().map_err(start)?;
    // Its last lines may still be on their way.
    ended.store(true, Ordering::Release);
    lines.iter().for_each(take);
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(Outcome { code: if slow { 124 } else { code }, lines: all })
}

/// What a program says. A daemon that a script left behind keeps the pipe open:
/// once the program has ended, this ends with what it has written.
struct Output {
    from: PipeReader,
    /// The program has.
    ended: Arc<AtomicBool>,
    /// Bytes that are read after that, so that a daemon's words do not go on.
    left: usize,
}

impl Read for Output {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        loop {
            // Asked first: then all that it wrote is there to be seen.
            let ended = self.ended.load(Ordering::Acquire);
            if is_ready(&self.from, if ended { 0 } else { 100 })? {
                let most = if ended { self.left.min(to.len()) } else { to.len() };
                let read = self.from.read(&mut to[..most])?;
                self.left -= if ended { read } else { 0 };
                return Ok(read);
            }
            if ended {
                return Ok(0);
            }
        }
    }
}

/// Whether there is something to read, be it the end, within so many milliseconds.
fn is_ready(pipe: &PipeReader, millis: libc::c_int) -> io::Result<bool> {
    let mut one = libc::pollfd { fd: pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, of a descriptor that is open as long as `pipe`.
    match unsafe { libc::poll(&raw mut one, 1, millis) } {
        -1 => Err(io::Error::last_os_error()),
        n => Ok(n > 0),
    }
}

/// The program and what it has started. Already gone is as good.
fn kill_group(child: &mut Child) {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn sh(script: &str, patience: Duration) -> Result<String, ChrootError> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run_command("10-x.sh", command, patience, |_| ())
    }

    #[test]
    fn a_failing_script_is_named_with_its_code_and_last_lines() {
        let e =
            sh("seq 100; echo no such package >&2; exit 100", Duration::from_secs(9)).unwrap_err();
        let said = e.to_string();
        assert!(said.starts_with("10-x.sh failed (exit code 100): 94 | 95"), "{said}");
        assert!(said.ends_with("100 | no such package"), "{said}");
    }

    #[test]
    fn a_script_that_hangs_or_leaves_a_daemon_does_not_hold_up_the_build() {
        let e = sh("echo begun; sleep 60", Duration::from_millis(400)).unwrap_err();
        assert!(matches!(e, ChrootError::Slow { .. }), "{e}");
        let start = Instant::now();
        assert_eq!(sh("sleep 30 & echo done", Duration::from_secs(20)).unwrap(), "done");
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn what_a_program_wrote_until_its_end_is_read_while_a_daemon_has_its_pipe() {
        let ended = |from| Output { from, ended: Arc::new(AtomicBool::new(true)), left: PIPE };
        let (from, mut to) = io::pipe().unwrap();
        to.write_all(b"one\ntwo\nno end").unwrap();
        let (lines_in, lines) = channel();
        child::lines(ended(from), lines_in).join().unwrap();
        assert_eq!(lines.iter().collect::<Vec<_>>(), ["one", "two", "no end"]);
        drop(to);

        // One that writes for ever.
        let (from, mut to) = io::pipe().unwrap();
        let daemon = std::thread::spawn(move || while to.write_all(b"and on\n").is_ok() {});
        let mut said = Vec::new();
        ended(from).read_to_end(&mut said).unwrap();
        assert!(said.len() <= PIPE);
        daemon.join().unwrap();
    }
}
