//! `provision users`.

use super::output::{Table, segment};
use super::watch::List;
use super::{Fail, Session};
use crate::api::deployment::people::{NewPerson, ShownPerson};
use crate::auth::rights::Grant;
use crate::model::Secret;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{IsTerminal, Read, Write};

/// `provision users`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  provision users
  provision users add anna --grant team/:pull,push --grant '*:pull'
  provision users add ci --grant staging/:pull,push < password.txt
  provision users rm anna

A grant is PREFIX:RIGHTS. The rights are pull, push, delete and promote. The
password is asked for, or read as one line from standard input.")]
pub struct UsersArgs {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(clap::Subcommand)]
enum What {
    /// Everybody, without passwords
    List,
    /// Add somebody, or change password and rights
    Add {
        /// Name
        name: String,
        /// What they may do where, such as team/:pull,push; none: nothing
        #[arg(long, value_name = "PREFIX:RIGHTS")]
        grant: Vec<Grant>,
    },
    /// Take somebody's login away, at once
    Rm {
        /// Name
        name: String,
    },
}

pub(super) async fn run(s: &Session, a: UsersArgs) -> Result<(), Fail> {
    match a.what.unwrap_or(What::List) {
        What::List => {
            let l: List<ShownPerson> = s.client.get("/v1/users").await?;
            s.out.show(&l.items, |all| {
                let mut t = Table::new(&["name", "rights", "since"]);
                for p in all {
                    let rights: Vec<String> = p.grants.iter().map(ToString::to_string).collect();
                    t.row(&[
                        p.name.clone(),
                        rights.join(" "),
                        format!("{:.19}", p.made.to_string()),
                    ]);
                }
                t
            })
        }
        What::Add { name, grant } => {
            let password = password(&name)?.expose().to_owned();
            let person = NewPerson { name: name.clone(), password, grants: grant };
            let () = s.client.post("/v1/users", &person).await?;
            s.out.say(format!("{name} may log in"))
        }
        What::Rm { name } => {
            s.client.delete(&format!("/v1/users/{}", segment(&name))).await?;
            s.out.say(format!("{name} may not log in any more"))
        }
    }
}

/// Restores the terminal also on an early return.
struct Quiet(Termios);

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
        eprintln!();
    }
}

/// Asked for twice without echo, or one line of standard input.
fn password(name: &str) -> Result<Secret, Fail> {
    if !std::io::stdin().is_terminal() {
        let p = line()?;
        if p.expose().is_empty() {
            return Err(Fail::Use("no password came by standard input: one line is read".into()));
        }
        return Ok(p);
    }
    let once = silent(&format!("Password of {name}: "))?;
    if once.expose() != silent("Once more: ")?.expose() {
        return Err(Fail::Use("the two passwords differ".into()));
    }
    Ok(once)
}

fn silent(prompt: &str) -> Result<Secret, Fail> {
    let failed = |e: rustix::io::Errno| Fail::Operation(format!("the terminal: {e}"));
    let before = tcgetattr(std::io::stdin()).map_err(failed)?;
    let mut quiet = before.clone();
    quiet.local_modes.remove(LocalModes::ECHO);
    write!(std::io::stderr(), "{prompt}")?;
    tcsetattr(std::io::stdin(), OptionalActions::Flush, &quiet).map_err(failed)?;
    let _restore = Quiet(before);
    line()
}

/// Bytes that were not asked for are not read: a line has at most 1 KiB.
fn line() -> Result<Secret, Fail> {
    let mut all = Vec::new();
    for b in std::io::stdin().lock().take(1024).bytes() {
        match b? {
            b'\n' => break,
            b => all.push(b),
        }
    }
    let text = String::from_utf8(all).map_err(|_| Fail::Use("the password is not UTF-8".into()))?;
    Ok(Secret::new(text.trim_end_matches('\r')))
}
