//! `provision`: one file a verb. Tables for people, `--output json` for
//! scripts, progress on a terminal and plain lines elsewhere.
//!
//! Exit codes: 0 done · 1 the operation failed · 2 wrong use, unknown node,
//! profile or image · 3 the server cannot be reached or refused.

pub mod base;
pub mod builds;
pub mod carry;
pub mod catalog;
pub mod certificates;
pub mod check;
mod console;
mod demo;
mod follow;
pub mod hook;
pub mod images;
pub mod ingest;
pub mod install;
pub mod lab;
pub mod log;
pub mod metrics;
pub mod mirror;
pub mod nodes;
pub mod output;
pub mod power;
mod progress;
pub mod promote;
mod shown;
mod tarball;
pub mod tokens;
pub mod upkeep;
pub mod users;
pub mod watch;

use crate::client::{Client, ClientError, Target};
use crate::model::Secret;
use clap::{Args, CommandFactory, Parser, Subcommand};
use output::{Format, Out};
use std::path::PathBuf;
use std::process::ExitCode;

/// Where root finds the server on the build host itself.
const LOCAL: &str = "/run/provision/api.sock";
/// And the deployment server on its host.
const LOCAL_DEPLOYMENT: &str = "/run/provision-deployment/api.sock";

/// Turns powered-off servers into installed, verified, named nodes.
#[derive(Parser)]
#[command(
    name = "provision",
    version,
    after_help = "\
Examples:
  provision nodes import rack.toml
  provision images build debian-12 --bake docker
  provision install node07 --profile docker
  provision explain node07
  provision power node07 cycle
  provision log --node node07 --since 2h"
)]
pub struct Cli {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Args)]
struct Connect {
    /// The server: https://HOST:8443, or unix:PATH for root on the build host
    #[arg(
        long,
        global = true,
        env = "PROVISION_SERVER",
        default_value = "unix:/run/provision/api.sock"
    )]
    server: String,
    /// The deployment server: https://HOST:5000, or unix:PATH for root on its host
    #[arg(
        long,
        global = true,
        env = "PROVISION_DEPLOYMENT",
        default_value = "unix:/run/provision-deployment/api.sock"
    )]
    deployment: String,
    /// API token; better in the environment or a file than on a command line
    #[arg(long, global = true, env = "PROVISION_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file that holds the API token
    #[arg(long, global = true, env = "PROVISION_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// CA certificate of the server; else its certificate is pinned at first use
    #[arg(long, global = true, env = "PROVISION_CA")]
    ca: Option<PathBuf>,
    /// How to print
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Subcommand)]
enum Verb {
    /// Install nodes: image, profile, first boot, check
    Install(install::InstallArgs),
    /// Switch nodes on, off or round, or look
    Power(power::PowerArgs),
    /// The inventory
    Nodes(nodes::NodesArgs),
    /// Operating systems that can be installed
    Images(images::ImagesArgs),
    /// Everything that an install takes, in one signed directory
    Mirror(mirror::MirrorArgs),
    /// Software stacks that can be installed
    Profiles,
    /// The record of every install
    Builds(builds::BuildsArgs),
    /// The event log
    Log(log::LogArgs),
    /// The boot files that were rendered for a node
    Preseed(builds::PreseedArgs),
    /// One timeline of a node's last install, and what it waits for
    Explain(builds::ExplainArgs),
    /// What a machine wrote on its console while it was installed
    Console(console::ConsoleArgs),
    /// Deployments, lead times, failures, recovery: by profile and by name
    Metrics(metrics::MetricsArgs),
    /// Watch an operation that is under way
    Watch(watch::WatchArgs),
    /// Give up an operation; the machine is left as it is
    Cancel(watch::CancelArgs),
    /// Build an image from a folder or a git repository
    Ingest(ingest::IngestArgs),
    /// Builds of images: list, log, cancel
    Runs(ingest::RunsArgs),
    /// Images that builds start from
    Base(base::BaseArgs),
    /// Pushes to git repositories that become images
    Hook(hook::HookArgs),
    /// Check what is signed about an image
    Verify(ingest::VerifyArgs),
    /// API tokens: who may ask for what
    Tokens(tokens::TokensArgs),
    /// People who may log in to the container registry
    Users(users::UsersArgs),
    /// Nodes' certificates for the container registry
    Certificates(certificates::CertificatesArgs),
    /// What is in the container registry
    Catalog(catalog::CatalogArgs),
    /// Move an image up from staging, by digest
    Promote(promote::PromoteArgs),
    /// Record that an image passed or failed a check
    Check(check::CheckArgs),
    /// Write an image and all it names to a file or directory
    Export(carry::ExportArgs),
    /// Take an image in from a file or directory
    Import(carry::ImportArgs),
    /// Free what nothing in the container registry names
    Gc(upkeep::GcArgs),
    /// Read the whole container registry and name what is rotten or missing
    #[command(
        after_help = "Examples:\n  provision verify-store\n  provision --output json verify-store\n\nExit code 1 when anything is not as it must be."
    )]
    VerifyStore,
    /// Whom the deployment server follows, and how far behind it is
    #[command(
        after_help = "Examples:\n  provision follow\n  provision --output json follow\n\nExit code 1 when not all is here as the leader has it."
    )]
    Follow,
    /// How the deployment server is backed up
    #[command(
        after_help = "Examples, on the deployment host, as root:\n  deployment-server backup DIR\n  deployment-server restore DIR"
    )]
    Backup,
    /// A virtual rack on this host
    Lab(lab::LabArgs),
    /// Shell completions
    Completions {
        /// Shell
        shell: clap_complete::Shell,
    },
}

/// Why a verb ended badly.
#[derive(Debug)]
pub enum Fail {
    /// Exit 1.
    Operation(String),
    /// Exit 2.
    Use(String),
    /// Exit 3.
    Server(String),
    /// The pipe we print to was closed: no fault of ours.
    Pipe,
}

impl From<ClientError> for Fail {
    fn from(e: ClientError) -> Self {
        let text = e.to_string();
        match e {
            ClientError::Wrong(_) | ClientError::SetUp(_) => Fail::Use(text),
            ClientError::Server(_) => Fail::Operation(text),
            ClientError::Unreachable { .. } | ClientError::Refused(_) | ClientError::Answer(_) => {
                Fail::Server(text)
            }
        }
    }
}

impl From<std::io::Error> for Fail {
    fn from(e: std::io::Error) -> Self {
        match e.kind() {
            std::io::ErrorKind::BrokenPipe => Fail::Pipe,
            _ => Fail::Operation(e.to_string()),
        }
    }
}

impl Fail {
    /// What is wrong.
    fn text(&self) -> &str {
        match self {
            Self::Operation(m) | Self::Use(m) | Self::Server(m) => m,
            Self::Pipe => "the pipe was closed",
        }
    }
}

/// What a verb works with.
pub struct Session {
    /// The server.
    pub client: Client,
    /// The deployment server.
    pub deployment: Client,
    /// Where that is.
    pub deployment_at: Target,
    /// How to print.
    pub out: Out,
}

impl Connect {
    /// With the build server, or with `deployment` the other one.
    fn session(&self, deployment: bool) -> Result<Session, Fail> {
        let token = match (&self.token, &self.token_file) {
            (Some(t), _) => Some(Secret::new(t.trim())),
            (None, Some(f)) => {
                let text = std::fs::read_to_string(f)
                    .map_err(|e| Fail::Use(format!("{}: {e}", f.display())))?;
                Some(Secret::new(text.trim()))
            }
            (None, None) => None,
        };
        let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
        let target = Target {
            server: if deployment { self.deployment.clone() } else { self.server.clone() },
            token,
            ca: self.ca.clone(),
            known_servers: home.join(".config/provision/known_servers"),
        };
        let other = Target { server: self.deployment.clone(), ..target.clone() };
        Ok(Session {
            client: Client::new(&target)?,
            deployment: Client::new(&other)?,
            deployment_at: other,
            out: Out::new(self.output),
        })
    }
}

/// Runs the command line; the exit code is the contract's.
pub async fn run() -> ExitCode {
    let cli = Cli::parse();
    let result = act(cli).await;
    match result {
        Ok(()) | Err(Fail::Pipe) => ExitCode::SUCCESS,
        Err(Fail::Operation(m)) => {
            eprintln!("provision: {m}");
            ExitCode::from(1)
        }
        Err(Fail::Use(m)) => {
            eprintln!("provision: {m}");
            ExitCode::from(2)
        }
        Err(Fail::Server(m)) => {
            eprintln!("provision: {m}");
            if m.contains(LOCAL) {
                eprintln!(
                    "is build-server running here? Name another with --server or PROVISION_SERVER"
                );
            }
            if m.contains(LOCAL_DEPLOYMENT) {
                eprintln!(
                    "is deployment-server running here? Name another with --deployment or PROVISION_DEPLOYMENT"
                );
            }
            ExitCode::from(3)
        }
    }
}

async fn act(cli: Cli) -> Result<(), Fail> {
    // These need no server.
    match cli.verb {
        Verb::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "provision",
                &mut std::io::stdout(),
            );
            return Ok(());
        }
        Verb::Lab(a) => return lab::run(a).await,
        Verb::Backup => return upkeep::backup(),
        _ => {}
    }
    let s = cli.connect.session(of_deployment(&cli.verb))?;
    match cli.verb {
        Verb::Users(a) => users::run(&s, a).await,
        Verb::Certificates(a) => certificates::run(&s, a).await,
        Verb::Catalog(a) => catalog::run(&s, a).await,
        Verb::Check(a) => check::run(&s, a).await,
        Verb::Promote(a) => promote::run(&s, a).await,
        Verb::Export(a) => carry::export(&s, a).await,
        Verb::Import(a) => carry::import(&s, a).await,
        Verb::Gc(a) => upkeep::gc(&s, a).await,
        Verb::VerifyStore => upkeep::verify(&s).await,
        Verb::Follow => follow::run(&s).await,
        Verb::Install(a) => install::run(&s, a).await,
        Verb::Power(a) => power::run(&s, a).await,
        Verb::Nodes(a) => nodes::run(&s, a).await,
        Verb::Images(a) => images::run(&s, a).await,
        Verb::Mirror(a) => mirror::run(&s, a).await,
        Verb::Profiles => images::profiles(&s).await,
        Verb::Builds(a) => builds::run(&s, a).await,
        Verb::Log(a) => log::run(&s, a).await,
        Verb::Metrics(a) => metrics::run(&s, a).await,
        Verb::Preseed(a) => builds::preseed(&s, a).await,
        Verb::Explain(a) => builds::explain(&s, a).await,

        Verb::Console(a) => console::run(&s, a).await,
        Verb::Ingest(a) => ingest::run(&s, a).await,
        Verb::Runs(a) => ingest::runs(&s, a).await,
        Verb::Base(a) => base::run(&s, a).await,
        Verb::Hook(a) => hook::run(&s, a).await,
        Verb::Verify(a) => ingest::verify(&s, a).await,
        Verb::Tokens(a) => tokens::run(&s, a).await,
        Verb::Watch(a) => watch::run(&s, a).await,
        Verb::Cancel(a) => watch::cancel(&s, a).await,
        Verb::Lab(_) | Verb::Completions { .. } | Verb::Backup => Ok(()),
    }
}

/// Whether a verb speaks to the deployment server.
fn of_deployment(verb: &Verb) -> bool {
    matches!(
        verb,
        Verb::Users(_)
            | Verb::Certificates(_)
            | Verb::Catalog(_)
            | Verb::Check(_)
            | Verb::Promote(_)
            | Verb::Export(_)
            | Verb::Import(_)
            | Verb::Gc(_)
            | Verb::VerifyStore
            | Verb::Follow
    )
}
