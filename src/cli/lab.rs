//! `provision lab`: the virtual rack from the command line.

use super::{Connect, Fail, Session, demo};
use crate::lab::server::ServerPlan;
use crate::lab::{Lab, LabError, LabFirmware, chassis, down, space, supervisor};
use crate::model::Name;
use std::path::PathBuf;

/// `provision lab`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  provision lab up --nodes 4 --firmware uefi --secure-boot
  provision --server \"$(provision lab url)\" install node01 --profile docker
  provision lab console node01
  provision lab fault node02 bmc-silent on
  provision lab down")]
pub struct LabArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Raise a rack: namespace, switch, machines, BMCs, a build server
    Up(UpArgs),
    /// Take it down; nothing stays
    Down(NameArgs),
    /// What is there and how it is
    Status(NameArgs),
    /// The --server to use with it
    Url(NameArgs),
    /// A machine's serial console (leave with Ctrl-C)
    Console {
        #[command(flatten)]
        name: NameArgs,
        /// Machine
        node: String,
    },
    /// Make something go wrong: bmc-silent, bmc-forgets, power-cut, no-disk,
    /// second-disk, clock, cable-cut, uplink-cut (of the whole lab), packet-loss
    Fault {
        #[command(flatten)]
        name: NameArgs,
        /// Machine
        node: String,
        /// Fault
        fault: String,
        /// on, off, or the fault's value
        #[arg(default_value = "on")]
        value: String,
    },
    /// Run a command inside the rack's network
    Exec {
        #[command(flatten)]
        name: NameArgs,
        /// Command
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
    /// From nothing to an installed node, before your eyes
    Demo(UpArgs),
    #[command(hide = true)]
    Supervise {
        #[command(flatten)]
        name: NameArgs,
        #[arg(long)]
        index: usize,
    },
    #[command(hide = true)]
    Anchor {
        #[command(flatten)]
        name: NameArgs,
        #[arg(long)]
        dir: PathBuf,
    },
    #[command(hide = true)]
    Chassis {
        #[arg(long)]
        socket: PathBuf,
        #[arg(last = true)]
        args: Vec<String>,
    },
}

#[derive(clap::Args)]
struct NameArgs {
    /// Name of the rack
    #[arg(long, default_value = "lab")]
    name: String,
}

#[derive(clap::Args)]
pub(super) struct UpArgs {
    #[command(flatten)]
    name: NameArgs,
    /// Machines
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// Their firmware
    #[arg(long, value_enum, default_value_t = FirmwareArg::Bios)]
    firmware: FirmwareArg,
    /// With Secure Boot on, where they are UEFI
    #[arg(long)]
    secure_boot: bool,
    /// Memory of each, MiB
    #[arg(long, default_value_t = 2048)]
    memory: u32,
    /// Disk of each, GiB
    #[arg(long, default_value_t = 16)]
    disk: u32,
    /// No way out to the package mirror
    #[arg(long)]
    no_uplink: bool,
    /// No second host with a deployment server
    #[arg(long)]
    no_deployment: bool,
    /// Where images are kept; shared by all racks
    #[arg(long)]
    images: Option<PathBuf>,
    /// Profiles
    #[arg(long)]
    profiles: Option<PathBuf>,
    /// Store of the build server; the embedded one when left out
    #[arg(long)]
    store: Option<String>,
    /// Image to install in the demo
    #[arg(long, default_value = "debian-12")]
    pub(super) image: String,
    /// Profile to install in the demo
    #[arg(long, default_value = "docker")]
    pub(super) profile: Name,
    /// In the demo: build the image if it is not there, and stop
    #[arg(long)]
    pub(super) image_only: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum FirmwareArg {
    Bios,
    Uefi,
    /// UEFI with Secure Boot on.
    UefiSecure,
    /// UEFI that boots by HTTP alone.
    UefiHttp,
    /// Machines alternate between the first two.
    Both,
}

impl From<LabError> for Fail {
    fn from(e: LabError) -> Self {
        match e {
            LabError::Wrong(m) => Fail::Use(m),
            e => Fail::Operation(e.to_string()),
        }
    }
}

impl UpArgs {
    fn lab(&self) -> Lab {
        let firmware = |i: usize| match self.firmware {
            FirmwareArg::Bios => LabFirmware::Bios,
            FirmwareArg::Uefi => LabFirmware::Uefi,
            FirmwareArg::UefiSecure => LabFirmware::UefiSecure,
            FirmwareArg::UefiHttp => LabFirmware::UefiHttp,
            FirmwareArg::Both if i.is_multiple_of(2) => LabFirmware::Bios,
            FirmwareArg::Both => LabFirmware::Uefi,
        };
        let firmware = |i| if self.secure_boot { firmware(i).secured() } else { firmware(i) };
        Lab {
            name: self.name.name.clone(),
            dir: Lab::dir_of(&self.name.name),
            nodes: (0..self.nodes).map(firmware).collect(),
            memory: self.memory,
            disk: self.disk,
            uplink: !self.no_uplink,
            deployment: !self.no_deployment,
            rootless: !rustix::process::geteuid().is_root(),
        }
    }

    fn plan(&self) -> Result<ServerPlan, Fail> {
        let cache = || {
            let home = std::env::var_os("HOME").map_or_else(|| "/root".into(), PathBuf::from);
            home.join(".cache/provision/images")
        };
        let profiles = self.profiles.clone().or_else(|| {
            ["profiles", "/usr/share/provision/profiles"]
                .map(PathBuf::from)
                .into_iter()
                .find(|p| p.is_dir())
        });
        let profiles = profiles
            .ok_or_else(|| Fail::Use("where are the profiles? Name them with --profiles".into()))?;
        Ok(ServerPlan {
            images: self.images.clone().unwrap_or_else(cache),
            profiles: profiles.canonicalize()?,
            store: self.store.clone(),
            extra: String::new(),
            install: format!("image = \"{}\"\nagent = \"{}\"", self.image, agent()?.display()),
        })
    }
}

pub(super) async fn run(a: LabArgs) -> Result<(), Fail> {
    match a.what {
        What::Up(a) => {
            let lab = up(&a).await?;
            println!("{} machines are up, all off; the build server answers", lab.nodes.len());
            println!("export PROVISION_SERVER={}", lab.server_url());
            if lab.deployment {
                println!("export PROVISION_DEPLOYMENT={}", lab.deployment_url());
            }
            Ok(())
        }
        What::Down(n) => Ok(down(&n.name)?),
        What::Url(n) => {
            println!("{}", Lab::open(&n.name)?.server_url());
            Ok(())
        }
        What::Status(n) => status(&Lab::open(&n.name)?),
        What::Console { name, node } => {
            let lab = Lab::open(&name.name)?;
            let dir = lab.node_dir(lab.index_of(&node)?);
            console(&dir.join("console.sock"))
        }
        What::Fault { name, node, fault, value } => {
            let lab = Lab::open(&name.name)?;
            lab.tell(lab.index_of(&node)?, &format!("fault {fault} {value}"))?;
            Ok(())
        }
        What::Exec { name, command } => {
            let lab = Lab::open(&name.name)?;
            let (program, args) =
                command.split_first().ok_or(Fail::Use("which command?".into()))?;
            let status = lab.command(program).args(args).status()?;
            if status.success() {
                Ok(())
            } else {
                Err(Fail::Operation(format!("{program}: {status}")))
            }
        }
        What::Demo(a) => demo::run(a).await,
        What::Supervise { name, index } => Ok(supervisor::run(Lab::open(&name.name)?, index)?),
        What::Anchor { dir, .. } => Ok(space::hold(&dir)?),
        What::Chassis { socket, args } => Ok(chassis::call(&socket, &args)?),
    }
}

fn server_exe() -> Result<PathBuf, Fail> {
    Ok(crate::lab::provision_exe()?.with_file_name("build-server"))
}

/// The agent to install with: `PROVISION_AGENT`, else the one beside us.
fn agent() -> Result<PathBuf, Fail> {
    match std::env::var_os("PROVISION_AGENT") {
        Some(a) => Ok(a.into()),
        None => Ok(crate::lab::provision_exe()?.with_file_name("provision-agent")),
    }
}

pub(super) async fn up(a: &UpArgs) -> Result<Lab, Fail> {
    let (lab, plan) = (a.lab(), a.plan()?);
    if lab.dir.join("lab.json").exists() {
        println!("taking down the rack {:?} that was there", lab.name);
    }
    println!("raising rack {:?} in {}", lab.name, lab.dir.display());
    lab.up()?;
    lab.write_config(&plan)?;
    if lab.deployment {
        drop(lab.start_deployment(&server_exe()?.with_file_name("deployment-server"))?);
    }
    // Left running: `lab down` ends it.
    drop(lab.start_server(&server_exe()?)?);
    let s = session(&lab)?;
    super::nodes::run(&s, super::nodes::NodesArgs::import(lab.dir.join("nodes.toml"))).await?;
    Ok(lab)
}

pub(super) fn session(lab: &Lab) -> Result<Session, Fail> {
    Connect {
        server: lab.server_url(),
        deployment: lab.deployment_url(),
        token: None,
        token_file: None,
        ca: None,
        output: super::output::Format::Table,
    }
    .session(false)
}

fn status(lab: &Lab) -> Result<(), Fail> {
    let mut t =
        super::output::Table::new(&["machine", "firmware", "power", "boot device", "boots"]);
    for (i, fw) in lab.nodes.iter().enumerate() {
        let ask = |c: &str| lab.tell(i, c).unwrap_or_else(|e| e.to_string());
        let power = if ask("power get") == "1" { "on" } else { "off" };
        t.row(&[
            Lab::node_name(i),
            serde_json::to_value(fw)
                .ok()
                .and_then(|v| Some(v.as_str()?.to_owned()))
                .unwrap_or_default(),
            power.into(),
            ask("boot get"),
            ask("boots"),
        ]);
    }
    print!("{}", t.text());
    let up = std::os::unix::net::UnixStream::connect(lab.socket()).is_ok();
    println!(
        "build-server {} at {}",
        if up { "answers" } else { "does not answer" },
        lab.server_url()
    );
    Ok(())
}

/// Copies between terminal and console socket.
fn console(socket: &std::path::Path) -> Result<(), Fail> {
    use std::io::{Read, Write};
    let s = std::os::unix::net::UnixStream::connect(socket)
        .map_err(|e| Fail::Operation(format!("is the lab up? {}: {e}", socket.display())))?;
    let mut to = s.try_clone()?;
    std::thread::spawn(move || std::io::copy(&mut std::io::stdin(), &mut to));
    let (mut from, mut buf) = (s, [0u8; 4096]);
    loop {
        match from.read(&mut buf)? {
            0 => return Ok(()),
            n => {
                let mut out = std::io::stdout().lock();
                out.write_all(&buf[..n])?;
                out.flush()?;
            }
        }
    }
}
