//! `provision console`.

use super::output::segment;
use super::watch::List;
use super::{Fail, Session};
use crate::model::{Build, BuildOutcome, Node};
use std::io::Write;
use std::time::Duration;

/// How often it is looked for more.
const LOOK: Duration = Duration::from_secs(1);

/// `provision console`
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  provision console node07\n  provision console node07 --follow\n  provision console node07 --build b-01m7zsavp0xk9cx1txy12xcr1s\n\nConsoles are listened to while a node is being installed, through its BMC (IPMI serial\nover LAN, which has to be switched on there, and serial redirection in the firmware's setup).\nTo type at one: ipmitool -I lanplus -H BMC -U USER -E sol activate"
)]
pub struct ConsoleArgs {
    /// Node by name or address
    node: String,
    /// Of this build; else of the node's last one
    #[arg(long)]
    build: Option<String>,
    /// Go on with what comes, until the build ends
    #[arg(long, short)]
    follow: bool,
}

pub(super) async fn run(s: &Session, a: ConsoleArgs) -> Result<(), Fail> {
    let n: Node = s.client.get(&format!("/v1/nodes/{}", segment(&a.node))).await?;
    let name = &n.spec.name;
    let id = match a.build {
        Some(id) => id,
        None => {
            let l: List<Build> = s.client.get(&format!("/v1/builds?limit=1&node={name}")).await?;
            let none = || Fail::Use(format!("{name} was never installed from here"));
            l.items.into_iter().next().ok_or_else(none)?.id.to_string()
        }
    };
    let (mut at, id) = (0, segment(&id));
    loop {
        // Asked first: what was said before the end is then read below.
        let b: Build = s.client.get(&format!("/v1/builds/{id}")).await?;
        if b.node != *name {
            return Err(Fail::Use(format!("{id} is a build of {}, not of {name}", b.node)));
        }
        let text = s.client.text(&format!("/v1/builds/{id}/console?offset={at}")).await?;
        at += text.len();
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        drop(out);
        if !a.follow || b.outcome != BuildOutcome::Running {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    if at == 0 {
        s.out.say(format!(
            "Nothing was heard from the console of {name}; `provision log --node {name} --action \
             console` may say why."
        ))?;
    }
    Ok(())
}
