//! A virtual Dell: its directory, its BMC's configuration, and the command
//! line that starts it with the firmware's boot order of the moment.

use super::{Lab, LabError, LabFirmware, io_at};
use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

/// The BMC's user and password in the lab: Dell's factory setting.
pub const BMC_USER: &str = "root";
/// See [`BMC_USER`].
pub const BMC_PASSWORD: &str = "calvin";

/// Makes the node's directory: disk, firmware variables, BMC.
pub fn prepare(lab: &Lab, index: usize) -> Result<(), LabError> {
    let dir = lab.node_dir(index);
    fs::create_dir_all(dir.join("bmc")).map_err(io_at(&dir))?;
    for disk in ["disk.raw", "disk2.raw"] {
        let path = dir.join(disk);
        let f = fs::File::create(&path).map_err(io_at(&path))?;
        f.set_len(u64::from(lab.disk) << 30).map_err(io_at(&path))?;
    }
    if let Some(vars) = firmware(lab, index).variables() {
        fs::copy(vars, dir.join("vars.fd")).map_err(io_at(vars))?;
    }
    write_bmc(lab, index)
}

fn firmware(lab: &Lab, index: usize) -> LabFirmware {
    lab.nodes.get(index).copied().unwrap_or(LabFirmware::Bios)
}

fn write_bmc(lab: &Lab, index: usize) -> Result<(), LabError> {
    let dir = lab.node_dir(index);
    let chassis = dir.join("chassis");
    let exe = super::provision_exe()?;
    let script = format!(
        "#!/bin/sh\nexec {} lab chassis --socket {} -- \"$@\"\n",
        exe.display(),
        dir.join("node.sock").display()
    );
    fs::write(&chassis, script).map_err(io_at(&chassis))?;
    fs::set_permissions(&chassis, fs::Permissions::from_mode(0o755)).map_err(io_at(&chassis))?;
    let auths = ["callback", "user", "operator", "admin"]
        .map(|level| format!("    allowed_auths_{level} none md2 md5 straight\n"))
        .concat();
    let lan = format!(
        "name \"{}\"\nset_working_mc 0x20\n  startlan 1\n    addr {} 623\n    priv_limit admin\n\
         {auths}    guid a123456789abcdefa123456789abcdef\n  endlan\n  \
         sol \"tcp:{}\" 115200\n  \
         chassis_control \"{} 0x20\"\n  \
         user 1 true \"\" \"\" user 10 none md2 md5 straight\n  \
         user 2 true \"{BMC_USER}\" \"{BMC_PASSWORD}\" admin 10 none md2 md5 straight\n",
        Lab::node_name(index),
        Lab::bmc_address(index),
        Lab::serial_line(index),
        chassis.display()
    );
    let path = dir.join("lan.conf");
    let mut f = fs::OpenOptions::new();
    let mut f =
        f.create(true).write(true).truncate(true).mode(0o600).open(&path).map_err(io_at(&path))?;
    std::io::Write::write_all(&mut f, lan.as_bytes()).map_err(io_at(&path))?;
    let emu = dir.join("sim.emu");
    let text = "mc_setbmc 0x20\n\
                mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n\
                sel_enable 0x20 1000 0x0a\nmc_enable 0x20\n";
    fs::write(&emu, text).map_err(io_at(&emu))
}

/// `ipmi_sim` for the node; its passwords are in its file, not in its
/// arguments.
pub fn bmc_command(dir: &Path) -> Command {
    let mut c = Command::new("ipmi_sim");
    c.current_dir(dir).arg("-n").arg("-c").arg(dir.join("lan.conf"));
    c.arg("-f").arg(dir.join("sim.emu")).arg("-s").arg(dir.join("bmc"));
    c
}

/// What differs from boot to boot.
#[derive(Debug, Clone, Default)]
pub struct Boot {
    /// From the network (under UEFI, then from the disk); else from the disk,
    /// and from nothing else.
    pub network: bool,
    /// No disk in the machine.
    pub no_disk: bool,
    /// A second disk like the first.
    pub second_disk: bool,
    /// The machine's clock, as QEMU's `-rtc base` takes it.
    pub clock: Option<String>,
}

/// Processors of a machine. Emulated, a second one costs more than it gives
/// where the host has no core to spare: starting a program takes 1.6 times as
/// long. `PROVISION_LAB_CPUS` says otherwise.
fn processors(nodes: usize) -> usize {
    let said = std::env::var("PROVISION_LAB_CPUS").ok().and_then(|n| n.parse().ok());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    said.unwrap_or_else(|| cores / nodes.max(1)).clamp(1, 2)
}

/// QEMU for one boot.
pub fn qemu_command(lab: &Lab, index: usize, boot: &Boot) -> Command {
    let dir = lab.node_dir(index);
    let at = |name: &str| dir.join(name).display().to_string();
    let firmware = firmware(lab, index);
    let accel = std::env::var("PROVISION_LAB_ACCEL").unwrap_or_else(|_| "tcg,thread=multi".into());
    let mut c = Command::new("qemu-system-x86_64");
    c.args(["-accel", &accel, "-machine", firmware.machine(), "-cpu", "max"]);
    c.args(["-smp", &processors(lab.nodes.len()).to_string()]);
    c.args(["-m", &lab.memory.to_string(), "-display", "none", "-vga", "none", "-no-user-config"]);
    c.args(["-name", &Lab::node_name(index), "-boot", "strict=on"]);
    // The machine ends instead of restarting, so that the next boot takes the
    // boot device that holds then, as a BMC would have it.
    c.args(["-action", "reboot=shutdown", "-qmp"]);
    c.arg(format!("unix:{},server=on,wait=off", at("qmp.sock")));
    c.arg("-chardev").arg(format!(
        "socket,id=con,path={},server=on,wait=off,logfile={},logappend=on",
        at("serial.sock"),
        at("console.log")
    ));
    c.args(["-serial", "chardev:con", "-monitor", "none"]);
    c.arg("-smbios").arg(format!(
        "type=1,manufacturer=Dell Inc.,product=PowerEdge (virtual),serial=LAB{:04}",
        index + 1
    ));
    c.args(["-device", "virtio-rng-pci"]);
    // EDK2 makes nothing of a disk that is not in its boot order, and GRUB from
    // the network would not find it.
    let (net_index, disk_index) = match (boot.network, firmware.is_uefi()) {
        (true, false) => (",bootindex=1", ""),
        (true, true) => (",bootindex=1", ",bootindex=2"),
        (false, _) => ("", ",bootindex=1"),
    };
    let rom = if firmware.is_uefi() { ",romfile=" } else { "" };
    c.arg("-netdev")
        .arg(format!("tap,id=n0,ifname={},script=no,downscript=no", super::net::tap(index)));
    c.arg("-device")
        .arg(format!("virtio-net-pci,netdev=n0,mac={}{net_index}{rom}", Lab::mac(index)));
    let mut disk = |id: &str, file: &str, extra: &str| {
        c.arg("-drive").arg(format!(
            "file={},if=none,id={id},format=raw,cache=unsafe,discard=unmap",
            at(file)
        ));
        c.arg("-device").arg(format!(
            "virtio-blk-pci,drive={id},serial={}-{id}{extra}",
            Lab::node_name(index).to_uppercase()
        ));
    };
    if !boot.no_disk {
        disk("d0", "disk.raw", disk_index);
        if boot.second_disk {
            disk("d1", "disk2.raw", "");
        }
    }
    firmware.flash(&mut c, &at("vars.fd"));
    if let Some(base) = &boot.clock {
        c.arg("-rtc").arg(format!("base={base}"));
    }
    c.current_dir(&dir);
    c
}
