//! What `ipmi_sim` runs to reach the chassis, and the socket behind it.
//!
//! The simulator calls `SCRIPT 0x20 get power boot`, `SCRIPT 0x20 set power 1`
//! and `SCRIPT 0x20 check …`, and reads `power:1` lines.

use super::{LabError, io_at};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Sends one line to a supervisor and gives its answer.
pub fn ask(socket: &Path, command: &str) -> Result<String, LabError> {
    let mut s = UnixStream::connect(socket).map_err(io_at(socket))?;
    s.set_read_timeout(Some(Duration::from_secs(20))).map_err(io_at(socket))?;
    writeln!(s, "{command}").map_err(io_at(socket))?;
    let mut answer = String::new();
    BufReader::new(s).read_line(&mut answer).map_err(io_at(socket))?;
    match answer.trim_end().strip_prefix("ok") {
        Some(a) => Ok(a.trim().to_owned()),
        None => Err(LabError::Wrong(format!("{command}: {}", answer.trim()))),
    }
}

/// The simulator's call: `args` are those behind the script's name.
pub fn call(socket: &Path, args: &[String]) -> Result<(), LabError> {
    let mut words = args.iter().skip(1).map(String::as_str);
    match words.next() {
        Some("get") => {
            for what in words {
                let value = ask(socket, &format!("{what} get"))?;
                println!("{what}:{value}");
            }
        }
        Some("set") => {
            while let (Some(what), Some(value)) = (words.next(), words.next()) {
                ask(socket, &format!("{what} set {value}"))?;
            }
        }
        // "check" asks whether a value could be set: all can.
        _ => {}
    }
    Ok(())
}
