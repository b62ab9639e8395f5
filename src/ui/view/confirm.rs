//! The page before something that cannot be taken back: what will happen, to
//! which machine, told by more than its name.

use super::alerts::kind;
use super::node::{deployed, wipes};
use crate::model::{Digest, Node, Operation, OperationKind, Time};
use crate::power::PowerCommand;

/// A confirmation: plain text throughout, and a form that does it.
#[derive(Debug, Clone)]
pub struct Confirm {
    /// The heading.
    pub title: String,
    /// What happens, in a sentence.
    pub what: String,
    /// What one compares with the machine: word, value.
    pub facts: Vec<(&'static str, String)>,
    /// What speaks against it.
    pub warnings: Vec<String>,
    /// Where the form goes.
    pub action: String,
    /// Its hidden fields.
    pub fields: Vec<(&'static str, String)>,
    /// The button that does it.
    pub button: String,
    /// Where the other one leads.
    pub back: String,
}

/// What was chosen for an install.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// Profile.
    pub profile: String,
    /// Image.
    pub image: String,
    /// Mirror; empty for the archives.
    pub mirror: String,
}

/// A short digest of all that a confirmation shows of a node: when it is
/// another at the time of the post, what was confirmed is not what would be
/// done.
pub fn seen(n: &Node) -> String {
    let s = &n.status;
    let disks = s.facts.as_ref().map(|f| &f.disks);
    let shown = serde_json::json!([n.spec, disks, s.image, s.profile, s.deployed_at, s.life]);
    Digest::of(shown.to_string().as_bytes()).short()
}

/// Who the machine is.
fn machine(n: &Node, now: Time) -> Vec<(&'static str, String)> {
    let facts = n.status.facts.as_ref();
    let or = |v: Option<&String>, none: &str| {
        v.filter(|v| !v.is_empty()).cloned().unwrap_or_else(|| none.to_owned())
    };
    let macs: Vec<String> = n.spec.macs.iter().map(ToString::to_string).collect();
    let mut out = vec![
        ("Node", n.spec.name.to_string()),
        ("Serial", or(facts.map(|f| &f.serial), "never reported")),
        ("Hardware", or(facts.map(|f| &f.hardware), "never reported")),
    ];
    out.extend(n.spec.labels.get("asset").map(|a| ("Asset", a.clone())));
    out.push(("Address", n.spec.address.to_string()));
    out.push(("MAC", macs.join(", ")));
    out.push(("On it now", deployed(n, now).unwrap_or_else(|| "nothing from here".to_owned())));
    out
}

/// Before an install.
pub fn install(n: &Node, c: &Choice, now: Time) -> Confirm {
    let name = &n.spec.name;
    let mut facts = machine(n, now);
    facts.push(("Disk to be wiped", wipes(n)));
    facts.push(("Will be installed", format!("{} / {}", c.image, c.profile)));
    let from = match c.mirror.as_str() {
        "" => "the archives, through the cache",
        m => m,
    };
    facts.push(("Packages from", from.to_owned()));
    let mut warnings = Vec::new();
    if let Some(on_it) = deployed(n, now) {
        warnings.push(format!("{name} is deployed ({on_it}): all of it is lost."));
    }
    Confirm {
        title: format!("Install {name}?"),
        what: format!(
            "{name} is started by network now. Everything on the disk below is wiped and cannot be \
             brought back."
        ),
        facts,
        warnings,
        action: format!("/ui/nodes/{name}/install"),
        fields: vec![
            ("profile", c.profile.clone()),
            ("image", c.image.clone()),
            ("mirror", c.mirror.clone()),
            ("seen", seen(n)),
        ],
        button: format!("Wipe the disk of {name} and install"),
        back: format!("/ui/nodes/{name}"),
    }
}

/// Before power is taken.
pub fn power(n: &Node, command: PowerCommand, now: Time) -> Confirm {
    let name = &n.spec.name;
    let (title, what, button) = match command {
        PowerCommand::Off => (
            format!("Switch {name} off?"),
            format!("The BMC takes {name}'s power at once; what runs on it is not asked."),
            format!("Switch {name} off"),
        ),
        PowerCommand::Cycle => (
            format!("Power-cycle {name}?"),
            format!(
                "The BMC takes {name}'s power and gives it again; what runs on it is not asked. It \
                 boots as its firmware is set."
            ),
            format!("Power-cycle {name}"),
        ),
        _ => (
            format!("Switch {name} on?"),
            "It boots as its firmware is set.".to_owned(),
            format!("Switch {name} on"),
        ),
    };
    Confirm {
        title,
        what,
        facts: machine(n, now),
        warnings: Vec::new(),
        action: format!("/ui/nodes/{name}/power"),
        fields: vec![("command", command.to_string()), ("seen", seen(n))],
        button,
        back: format!("/ui/nodes/{name}"),
    }
}

/// Before a running operation is given up.
pub fn cancel(o: &Operation) -> Confirm {
    let node = o.node.as_ref().map(ToString::to_string).unwrap_or_default();
    let phase = o.phase.map(|p| p.to_string()).unwrap_or_default();
    let facts = vec![
        ("Operation", o.id.to_string()),
        ("Node", node.clone()),
        ("Phase", phase),
        ("Asked by", o.actor.clone()),
    ];
    let back = if node.is_empty() { "/ui/operations".into() } else { format!("/ui/nodes/{node}") };
    Confirm {
        title: format!("Give this {} up?", kind(&o.kind)),
        what: match o.kind {
            OperationKind::InstallMany => {
                "No other node is begun. Those that are being installed go on: each can be given \
                 up by itself."
            }
            OperationKind::ImageBuild | OperationKind::Mirror => {
                "It ends soon; nothing of it is kept, and what was there before stays."
            }
            _ => {
                "The machine is left as it is, which may be in the middle of writing its disk; it \
                 has to be installed again before it can be used."
            }
        }
        .to_owned(),
        facts: facts.into_iter().filter(|(_, v)| !v.is_empty()).collect(),
        warnings: Vec::new(),
        action: format!("/ui/operations/{}/cancel", o.id),
        fields: Vec::new(),
        button: format!("Give the {} up", kind(&o.kind)),
        back,
    }
}
