//! An install from start to end, as process 1 of the installer's ramdisk.

use super::cmdline::{self, Arguments};
use super::disk::{choose_disk, describe};
use super::journal::{self, say};
use super::node::NodeConfig;
use super::partition::OVERHEAD;
use super::report::Reporter;
use super::server::{PATIENCE, Server};
use super::target::{Kind, Target, device_bytes};
use super::{
    AgentError, InPhase, bootloader, chroot, facts, filesystem, identity, kmod, network, partition,
    profile, registry, restart, stream,
};
use crate::model::node::DiskFacts;
use crate::model::plan::{BootMethod, FailureReport, InstallPlan, InstalledReport, RootfsPlan};
use crate::model::{Digest, Facts, Firmware, Phase};
use rustix::mount::{MountFlags, mount};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the kernel may take to show all disks after the last new one:
/// RAID controllers report theirs one after the other.
const SETTLE: Duration = Duration::from_millis(1500);

/// Process 1: never returns, never dies.
pub fn as_init() -> ! {
    mount_basics();
    say(format_args!("provision-agent {}", env!("CARGO_PKG_VERSION")));
    // A thread of its own, so that a panic ends it and not process 1, whose
    // end would be the kernel's.
    let ended = std::thread::spawn(boot).join();
    match ended {
        Ok(()) => {}
        Err(_) => say("the agent has stopped by a defect of its own"),
    }
    say("waiting; the server or a person may restart this node");
    restart::wait()
}

fn mount_basics() {
    let plain = MountFlags::NOSUID | MountFlags::NOEXEC;
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        // One that fails shows at once in what cannot be read.
        let _ = fs::create_dir_all(at);
        let _ = mount(
            kind,
            at,
            kind,
            if kind == "devtmpfs" { MountFlags::NOSUID } else { plain },
            None,
        );
    }
    for dir in ["/dev/pts", "/run", "/tmp", "/mnt"] {
        let _ = fs::create_dir_all(dir);
    }
    let _ = mount("devpts", "/dev/pts", "devpts", MountFlags::NOSUID, None);
    // SAFETY: nothing else runs yet in this process.
    unsafe { std::env::set_var("PATH", "/bin:/sbin:/usr/bin:/usr/sbin") };
}

fn boot() {
    let mut drivers = kmod::Loader::open();
    drivers.load_always();
    let loaded = drivers.load_for_devices();
    say(format_args!("drivers: {}", loaded.join(" ")));
    if Path::new("/sys/firmware/efi/efivars").exists() {
        let at = "/sys/firmware/efi/efivars";
        if let Err(e) = mount("efivarfs", at, "efivarfs", MountFlags::NOSUID, None) {
            say(format_args!("efivarfs: {e}"));
        }
    }
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let arguments = match cmdline::parse(&line) {
        Ok(arguments) => arguments,
        Err(e) => {
            say(e);
            if line.split_whitespace().any(|w| w.starts_with("provision.rescue")) {
                restart::rescue_shell();
            }
            return;
        }
    };
    if let Err(e) = network::bring_up(&arguments, || {
        drivers.load_for_devices();
    }) {
        say(e);
        if !arguments.rescue {
            return;
        }
    }
    if arguments.rescue {
        say("rescue: nothing is installed; a shell on the console");
        restart::rescue_shell();
    }
    let server = Server::new(&arguments.server, arguments.token.clone());
    let mut reporter = Reporter::start(server.clone());
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        install(&arguments, &server, &mut reporter, &mut drivers)
    }));
    let error = match outcome {
        Ok(Ok(never)) => match never {},
        Ok(Err(e)) => e,
        Err(panic) => AgentError::failed(
            reporter.phase(),
            format_args!("defect in the agent: {}", panic_text(&*panic)),
        ),
    };
    tell_failure(&server, &reporter, error);
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}

fn tell_failure(server: &Server, reporter: &Reporter, error: AgentError) {
    match error {
        AgentError::Over(why) => say(format_args!(
            "the server says that this build is over ({why}); nothing more is written"
        )),
        AgentError::Failed { phase, reason } => {
            say(format_args!("FAILED in phase {phase}: {reason}"));
            reporter.flush(Duration::from_secs(10));
            if let Err(e) = server.post("/node/failed", &FailureReport { phase, reason }) {
                say(format_args!("the failure could not be reported: {e}"));
            }
            reporter.flush(Duration::from_secs(10));
        }
    }
}

/// The type of something that does not return.
enum Never {}

fn install(
    arguments: &Arguments,
    server: &Server,
    reporter: &mut Reporter,
    drivers: &mut kmod::Loader,
) -> Result<Never, AgentError> {
    reporter.begin(Phase::Installer, "agent runs")?;
    let disks = settled_disks(drivers);
    let facts = Facts { disks, ..facts::gather() };
    say(format_args!(
        "{}, {} x {}, {} MB of memory, firmware {}, disks: {}",
        facts.hardware,
        facts.cpus,
        facts.cpu,
        facts.memory >> 20,
        facts.firmware,
        facts.disks.iter().map(describe).collect::<Vec<_>>().join("; ")
    ));
    server.post("/node/facts", &facts).map_err(|e| e.in_phase(Phase::Installer))?;
    let plan: InstallPlan = server.get("/node/plan").map_err(|e| e.in_phase(Phase::Installer))?;
    set_clock(&plan);
    if plan.network.mac != arguments.mac {
        return Err(AgentError::failed(
            Phase::Installer,
            format_args!(
                "the plan is for {}, this node booted from {}",
                plan.network.mac, arguments.mac
            ),
        ));
    }

    reporter.begin(Phase::Disk, "choosing the disk")?;
    let rootfs = plan.rootfs.as_ref().ok_or_else(|| {
        let why = "this image is put on the disk by the distribution's installer, not by the agent";
        AgentError::failed(Phase::Disk, why)
    })?;
    let index = stream::fetch_index(server, rootfs)?;
    let need = rootfs.bytes + OVERHEAD;
    let disk = choose_disk(&facts.disks, &plan.disk, need)
        .map_err(|e| AgentError::failed(Phase::Disk, e))?;
    let firmware = facts.firmware;
    say(format_args!("disk: {}", describe(disk)));
    // The last moment at which nothing has been touched.
    reporter.check()?;
    let leave = server.may_write(&describe(disk)).map_err(|e| e.in_phase(Phase::Disk))?;
    let device = Path::new("/dev").join(&disk.name);
    let partitions = partition::partition(&device, firmware != Firmware::Uefi, leave)
        .in_phase(Phase::Disk, &device.display().to_string())?;

    reporter.begin(Phase::Image, "writing the image")?;
    stream::write_image(server, rootfs, &index, &partitions.root, reporter)?;

    reporter.begin(Phase::Profile, "identity and profile")?;
    finish(&plan, rootfs, (disk, firmware), &partitions, server, reporter)?;
    say("restarting");
    restart::reboot();
    restart::wait()
}

/// From the written image to the report that the disk is complete.
fn finish(
    plan: &InstallPlan,
    rootfs: &RootfsPlan,
    (disk, firmware): (&DiskFacts, Firmware),
    partitions: &partition::Partitions,
    server: &Server,
    reporter: &mut Reporter,
) -> Result<(), AgentError> {
    let clock = Instant::now();
    let step = |what: &str| say(format_args!("{what} ({:.1} s)", clock.elapsed().as_secs_f64()));
    let phase = Phase::Profile;
    let mut target = Target::mount(&partitions.root).in_phase(phase, "mounting the new root")?;
    target.manifest.input("image", &rootfs.index_digest);
    target.manifest.input("profile", &plan.profile.digest);
    let uuid = identity::random_uuid().in_phase(phase, "random numbers")?;
    filesystem::set_uuid(target.root(), uuid).in_phase(phase, "setting the file system's UUID")?;
    let bytes = device_bytes(&partitions.root).in_phase(phase, "size of the partition")?;
    filesystem::grow(target.root(), bytes).in_phase(phase, "growing the file system")?;
    step("file system grown");
    let uuid = identity::uuid_text(&uuid);

    let esp = esp_serial().in_phase(phase, "random numbers")?;
    let esp_path = partitions.esp.to_string_lossy().into_owned();
    target.mount_inside().in_phase(phase, "mounting for the chroot")?;
    let mkfs = ["mkfs.vfat", "-F", "32", "-n", "ESP", "-i", &esp, &esp_path];
    chroot::run(&target, &mkfs, Duration::from_secs(60)).in_phase(phase, "EFI system partition")?;
    target.mount_esp(&partitions.esp).in_phase(phase, "mounting the EFI system partition")?;
    step("chroot ready");
    let esp_uuid = format!("{}-{}", &esp[..4], &esp[4..]).to_uppercase();
    identity::write_files(&mut target, plan, &uuid, &esp_uuid, firmware == Firmware::Uefi)
        .in_phase(phase, "identity")?;
    profile::apply(&mut target, &plan.profile, reporter)?;
    if let Some(r) = &plan.registry {
        registry::enrol(&mut target, plan.node.as_str(), r, server)?;
        step("certificate for the registry");
    }
    // After the profile, whose groups they join.
    identity::make_users(&mut target, plan).in_phase(phase, "users")?;
    step("users made");
    // Two kinds: every ssh client of the last ten years knows both, and an RSA
    // key costs a slow machine up to a minute.
    for kind in ["ed25519", "ecdsa"] {
        let file = format!("/etc/ssh/ssh_host_{kind}_key");
        let arguments =
            ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", plan.node.as_str(), "-f", &file];
        chroot::run(&target, &arguments, Duration::from_secs(60)).in_phase(phase, "host keys")?;
    }
    let host_keys = identity::host_keys(&target).in_phase(phase, "host keys")?;
    step("host keys made");

    reporter.begin(Phase::Bootloader, "boot loader")?;
    let phase = Phase::Bootloader;
    bootloader::install(&mut target, partitions, firmware, &uuid, &plan.kernel_args)?;
    step("boot loader installed");
    let kexec = plan.boot == BootMethod::Kexec;
    let loaded = kexec && load_kernel(&target, &uuid, &plan.kernel_args);

    write_agent(&mut target, plan, server).in_phase(phase, "agent")?;
    let manifest = target.manifest.digest();
    say(format_args!("manifest {manifest}:\n{}", target.manifest.to_text()));
    say("the disk is complete; the log goes on in the installed system");
    let log_offset = journal::with(|j| j.close());
    write_config(&mut target, plan, server, log_offset).in_phase(phase, "agent")?;
    target.finish().in_phase(phase, "writing everything to the disk")?;
    // The file system was written without barriers: what the disk holds in its
    // own cache must be on its medium before anybody is told so.
    fs::File::open(Path::new("/dev").join(&disk.name))
        .and_then(|d| d.sync_all())
        .in_phase(phase, "flushing the disk")?;
    step("unmounted");
    reporter.flush(Duration::from_secs(20));
    report_installed(server, disk, firmware, manifest, host_keys)?;
    if loaded {
        restart::kexec();
    }
    Ok(())
}

fn report_installed(
    server: &Server,
    disk: &DiskFacts,
    firmware: Firmware,
    manifest: Digest,
    host_keys: Vec<String>,
) -> Result<(), AgentError> {
    let report = InstalledReport { manifest, disk: describe(disk), firmware, host_keys };
    server.post("/node/installed", &report).map_err(|e| e.in_phase(Phase::Bootloader))
}

fn load_kernel(target: &Target, uuid: &str, kernel_args: &str) -> bool {
    match restart::load_kernel(target.root(), uuid, kernel_args) {
        Ok(()) => true,
        Err(e) => {
            say(format_args!("kexec is not possible ({e}); restarting through the firmware"));
            false
        }
    }
}

/// Eight hexadecimal digits: the FAT's volume serial number.
fn esp_serial() -> std::io::Result<String> {
    Ok(hex::encode(&identity::random_uuid()?[..4]))
}

/// The agent on the installed system: program and unit.
fn write_agent(target: &mut Target, plan: &InstallPlan, _: &Server) -> std::io::Result<()> {
    let program = fs::read("/init")?;
    target.write_bytes("/usr/lib/provision/provision-agent", 0o755, Kind::Common, &program)?;
    target.write(
        "/etc/systemd/system/provision-agent.service",
        0o644,
        Kind::Common,
        super::node::UNIT,
    )?;
    target.link(
        "/etc/systemd/system/multi-user.target.wants/provision-agent.service",
        "/etc/systemd/system/provision-agent.service",
    )?;
    target.manifest.input("verify", &Digest::of(plan.profile.verify.as_bytes()));
    Ok(())
}

/// What the agent needs to know after the restart.
fn write_config(
    target: &mut Target,
    plan: &InstallPlan,
    server: &Server,
    log_offset: u64,
) -> std::io::Result<()> {
    let config = NodeConfig {
        server: server.base().to_owned(),
        token: Some(server.token().expose().to_owned()),
        build: plan.build.clone(),
        verify: Some(plan.profile.verify.clone()),
        verify_seconds: plan.profile.verify_seconds,
        log_offset,
        done: false,
    };
    let text = serde_json::to_string_pretty(&config).map_err(std::io::Error::other)?;
    target.write(super::node::CONFIG, 0o600, Kind::Identity, &text)
}

/// Waits until no new disk has turned up for a moment.
fn settled_disks(drivers: &mut kmod::Loader) -> Vec<DiskFacts> {
    let (start, mut changed) = (Instant::now(), Instant::now());
    let mut known = facts::disks();
    while start.elapsed() < PATIENCE {
        let enough = if known.is_empty() { SETTLE * 10 } else { SETTLE };
        if changed.elapsed() > enough {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
        if !drivers.load_for_devices().is_empty() {
            changed = Instant::now();
        }
        let now = facts::disks();
        if now != known {
            (known, changed) = (now, Instant::now());
        }
    }
    known
}

/// A machine whose battery has died would get certificates and file times
/// wrong: its clock and its battery clock follow the server's.
fn set_clock(plan: &InstallPlan) {
    let now = jiff::Timestamp::now();
    let off = now.duration_since(plan.now).as_secs();
    if off.abs() <= 2 {
        return;
    }
    say(format_args!("the clock is {off} s off; setting it to the server's"));
    let time = rustix::time::Timespec { tv_sec: plan.now.as_second(), tv_nsec: 0 };
    if let Err(e) = rustix::time::clock_settime(rustix::time::ClockId::Realtime, time) {
        say(format_args!("setting the clock: {e}"));
    }
    // The battery clock in UTC, as Debian keeps it; a node may have none.
    let _ = std::process::Command::new("/bin/busybox").args(["hwclock", "-w", "-u"]).status();
}
