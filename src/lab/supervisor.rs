//! The process that stands for one machine's hardware: chassis power, boot
//! device, the BMC simulator, and faults on demand.
//!
//! It answers lines on `node.sock`: `power get|set 0|set 1`, `boot get|set X`,
//! `fault NAME VALUE`, `boots`. It writes a line into `boots.log` for each
//! start of the machine, saying what it booted from: that is what tests of
//! "network once, then disk" read.

use super::console::Line;
use super::node::{Boot, bmc_command, qemu_command};
use super::{Lab, LabError, io_at, net};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

struct Hardware {
    lab: Lab,
    index: usize,
    dir: PathBuf,
    qemu: Option<Child>,
    /// Changes with each start and stop: a watcher of an older start keeps
    /// quiet.
    generation: u64,
    /// Starts of the machine.
    boots: u64,
    boot_device: String,
    bmc: Option<Child>,
    forget_boot: bool,
    boot: Boot,
    line: Line,
}

type Shared = Arc<Mutex<Hardware>>;

fn lock(s: &Shared) -> MutexGuard<'_, Hardware> {
    s.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs until SIGTERM; then machine and BMC are ended.
pub fn run(lab: Lab, index: usize) -> Result<(), LabError> {
    let dir = lab.node_dir(index);
    let path = dir.join("node.sock");
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path).map_err(io_at(&path))?;
    let console = dir.join("console.sock");
    let hw = Hardware {
        lab,
        index,
        dir,
        qemu: None,
        generation: 0,
        boots: 0,
        boot_device: "none".into(),
        bmc: None,
        forget_boot: false,
        boot: Boot::default(),
        line: Line::serve(&console, Lab::serial_line(index))?,
    };
    let shared: Shared = Arc::new(Mutex::new(hw));
    start_bmc(&mut lock(&shared))?;
    end_on_signal(shared.clone())?;
    for stream in listener.incoming().filter_map(Result::ok) {
        let shared = shared.clone();
        std::thread::spawn(move || {
            let _ = answer(&shared, stream);
        });
    }
    Ok(())
}

fn end_on_signal(shared: Shared) -> Result<(), LabError> {
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let rt = rt.map_err(io_at(&PathBuf::from("runtime")))?;
    std::thread::spawn(move || {
        rt.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            if let Ok(mut term) = signal(SignalKind::terminate()) {
                term.recv().await;
            }
        });
        let mut hw = lock(&shared);
        power_off(&mut hw);
        if let Some(mut b) = hw.bmc.take() {
            resume(&b);
            let _ = b.kill();
            let _ = b.wait();
        }
        std::process::exit(0);
    });
    Ok(())
}

fn start_bmc(hw: &mut Hardware) -> Result<(), LabError> {
    let log = hw.dir.join("ipmi_sim.log");
    let out = fs::File::create(&log).map_err(io_at(&log))?;
    let err = out.try_clone().map_err(io_at(&log))?;
    let child = bmc_command(&hw.dir)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .map_err(|e| LabError::Tool { what: "ipmi_sim".into(), why: e.to_string() })?;
    let pid = hw.dir.join("ipmi_sim.pid");
    fs::write(&pid, child.id().to_string()).map_err(io_at(&pid))?;
    hw.bmc = Some(child);
    Ok(())
}

fn answer(shared: &Shared, stream: UnixStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut line = String::new();
    BufReader::new(stream.try_clone()?).read_line(&mut line)?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let reply = match obey(shared, &words) {
        Ok(value) => format!("ok {value}\n"),
        Err(why) => format!("failed {why}\n"),
    };
    (&stream).write_all(reply.as_bytes())
}

fn obey(shared: &Shared, words: &[&str]) -> Result<String, String> {
    let mut hw = lock(shared);
    match words {
        ["power", "get"] => Ok(u8::from(hw.qemu.is_some()).to_string()),
        ["power", "set", "0"] => {
            power_off(&mut hw);
            Ok(String::new())
        }
        ["power", "set", _] => {
            power_on(shared, &mut hw)?;
            Ok(String::new())
        }
        ["boot", "get"] => Ok(hw.boot_device.clone()),
        ["boot", "set", device] => {
            hw.boot_device = (*device).to_owned();
            Ok(String::new())
        }
        // The remaining chassis functions of the simulator (reset, identify,
        // graceful shutdown).
        ["reset", "set", _] => {
            power_off(&mut hw);
            power_on(shared, &mut hw)?;
            Ok(String::new())
        }
        ["shutdown", "set", _] => {
            power_off(&mut hw);
            Ok(String::new())
        }
        [_, "get"] => Ok("0".into()),
        ["boots"] => Ok(hw.boots.to_string()),
        ["fault", name, value] => fault(&mut hw, name, value),
        _ => Err(format!("not understood: {}", words.join(" "))),
    }
}

fn fault(hw: &mut Hardware, name: &str, value: &str) -> Result<String, String> {
    let on = value == "on";
    match name {
        "bmc-silent" => {
            if let Some(b) = &hw.bmc {
                if on { pause(b) } else { resume(b) }
            }
        }
        "bmc-forgets" => hw.forget_boot = on,
        "power-cut" => power_off(hw),
        "no-disk" => hw.boot.no_disk = on,
        "second-disk" => hw.boot.second_disk = on,
        "clock" => hw.boot.clock = (value != "off").then(|| value.to_owned()),
        "uplink-cut" => net::cut_uplink(&hw.lab, on).map_err(|e| e.to_string())?,
        "cable-cut" => net::cut(&hw.lab, hw.index, on).map_err(|e| e.to_string())?,
        "packet-loss" => {
            let percent = value.trim_end_matches('%').parse().unwrap_or(if on { 30 } else { 0 });
            net::lose(&hw.lab, hw.index, percent).map_err(|e| e.to_string())?;
        }
        _ => {
            return Err(format!(
                "no fault {name:?}; there are bmc-silent, bmc-forgets, power-cut, no-disk, \
                 second-disk, clock, cable-cut, uplink-cut and packet-loss"
            ));
        }
    }
    Ok(String::new())
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn pause(child: &Child) {
    signal(child, rustix::process::Signal::STOP);
}

fn resume(child: &Child) {
    signal(child, rustix::process::Signal::CONT);
}

fn power_off(hw: &mut Hardware) {
    hw.generation += u64::from(hw.qemu.is_some());
    if let Some(mut q) = hw.qemu.take() {
        let _ = q.kill();
        let _ = q.wait();
    }
    let _ = fs::remove_file(hw.dir.join("qemu.pid"));
}

fn power_on(shared: &Shared, hw: &mut Hardware) -> Result<(), String> {
    if hw.qemu.is_some() {
        return Ok(());
    }
    // The firmware reads the override once; a BMC with the fault has shown it
    // and not kept it.
    let device = std::mem::replace(&mut hw.boot_device, "none".into());
    hw.boot.network = device == "pxe" && !hw.forget_boot;
    let from = if hw.boot.network { "network" } else { "disk" };
    let log = hw.dir.join("boots.log");
    let line = format!("{} {from} (override {device})\n", crate::model::Time::now());
    let _ = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .and_then(|mut f| f.write_all(line.as_bytes()));
    let _ = fs::remove_file(hw.dir.join("qmp.sock"));
    let _ = fs::remove_file(hw.dir.join("serial.sock"));
    let out = fs::File::create(hw.dir.join("qemu.log")).map_err(|e| e.to_string())?;
    let child = qemu_command(&hw.lab, hw.index, &hw.boot)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(out)
        .spawn()
        .map_err(|e| format!("qemu-system-x86_64: {e}"))?;
    let _ = fs::write(hw.dir.join("qemu.pid"), child.id().to_string());
    hw.qemu = Some(child);
    hw.line.plug(&hw.dir.join("serial.sock"));
    hw.generation += 1;
    hw.boots += 1;
    let (generation, shared, qmp) = (hw.generation, shared.clone(), hw.dir.join("qmp.sock"));
    std::thread::spawn(move || watch(&shared, generation, &qmp));
    Ok(())
}

/// Waits for the machine's end; a restart asked for by the guest starts it
/// again, everything else leaves it off.
fn watch(shared: &Shared, generation: u64, qmp: &std::path::Path) {
    let restart = wait_for_end(qmp).unwrap_or(false);
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let mut hw = lock(shared);
        if hw.generation != generation {
            return;
        }
        let ended = !matches!(hw.qemu.as_mut().map(Child::try_wait), Some(Ok(None)));
        if ended || Instant::now() > end {
            power_off(&mut hw);
            if restart && let Err(why) = power_on(shared, &mut hw) {
                eprintln!("the machine does not start again: {why}");
            }
            return;
        }
        drop(hw);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Reads QEMU's events to the end; whether the guest asked for a reset.
fn wait_for_end(qmp: &std::path::Path) -> std::io::Result<bool> {
    let end = Instant::now() + Duration::from_secs(20);
    let mut stream = loop {
        match UnixStream::connect(qmp) {
            Ok(s) => break s,
            Err(e) if Instant::now() > end => return Err(e),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    stream.write_all(b"{\"execute\":\"qmp_capabilities\"}\n")?;
    let mut reset = false;
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { break };
        if line.contains("\"SHUTDOWN\"") {
            reset = line.contains("guest-reset");
        }
    }
    Ok(reset)
}
