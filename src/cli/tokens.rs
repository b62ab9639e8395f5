//! `provision tokens`.

use super::output::{Table, segment};
use super::watch::List;
use super::{Fail, Session};
use crate::api::tokens::{MadeToken, NewToken};
use crate::auth::{Role, TokenRecord};

/// `provision tokens`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  provision tokens
  provision tokens add telescope --role controller --expires 365d > telescope.token
  provision tokens revoke telescope")]
pub struct TokensArgs {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(clap::Subcommand)]
enum What {
    /// All tokens, without their secrets
    List,
    /// Make one; it is printed once
    Add {
        /// Who it is for
        name: String,
        /// read, controller, operate or admin
        #[arg(long, value_parser = role)]
        role: Role,
        /// Until when it is good: a time, or how long, such as 30d
        #[arg(long)]
        expires: Option<String>,
    },
    /// Make one invalid, at once
    Revoke {
        /// Its name
        name: String,
    },
}

fn role(s: &str) -> Result<Role, String> {
    serde_json::from_value(s.into())
        .map_err(|_| "use one of read, controller, operate, admin".to_owned())
}

pub(super) async fn run(s: &Session, a: TokensArgs) -> Result<(), Fail> {
    match a.what.unwrap_or(What::List) {
        What::List => {
            let l: List<TokenRecord> = s.client.get("/v1/tokens").await?;
            s.out.show(&l.items, |all| {
                let mut t = Table::new(&["name", "role", "made", "expires"]);
                for r in all {
                    let expires = r.expires.map(|e| e.to_string()).unwrap_or_default();
                    t.row(&[r.name.clone(), r.role.to_string(), r.made.to_string(), expires]);
                }
                t
            })
        }
        What::Add { name, role, expires } => {
            let made: MadeToken =
                s.client.post("/v1/tokens", &NewToken { name, role, expires }).await?;
            s.out.show(&made, |m| {
                let mut t = Table::plain();
                t.row(std::slice::from_ref(&m.token));
                t
            })
        }
        What::Revoke { name } => {
            s.client.delete(&format!("/v1/tokens/{}", segment(&name))).await?;
            s.out.say(format!("{name} is revoked"))
        }
    }
}
