//! `provision power`.

use super::output::{Table, segment};
use super::{Fail, Session};
use crate::api::power::PowerRequest;
use crate::client::ClientError;
use crate::model::{Node, Operation, OperationState};
use serde_json::Value;
use std::time::Duration;

/// `provision power`
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  provision power node07 status\n  provision power node07 node08 cycle"
)]
pub struct PowerArgs {
    /// Nodes by name or address, then the command: on, off (at once), cycle, status
    #[arg(required = true, num_args = 2.., value_names = ["NODE", "COMMAND"])]
    words: Vec<String>,
}

pub(super) async fn run(s: &Session, a: PowerArgs) -> Result<(), Fail> {
    let Some((command, nodes)) = a.words.split_last() else {
        return Err(Fail::Use("name a node and a command".into()));
    };
    // Refused here as well as at the server: no packet for a wrong word.
    command.parse::<crate::power::PowerCommand>().map_err(|e| Fail::Use(e.to_string()))?;
    let mut names = Vec::new();
    for n in nodes {
        let node: Node = s.client.get(&format!("/v1/nodes/{}", segment(n))).await?;
        names.push(node.spec.name);
    }
    let mut rows: Vec<Value> = Vec::new();
    let mut failed = Vec::new();
    for n in names {
        let path = format!("/v1/nodes/{n}/power");
        if command == "status" {
            match s.client.get::<Value>(&path).await {
                Ok(v) => rows.push(v),
                Err(e @ (ClientError::Server(_) | ClientError::Wrong(_))) => {
                    failed.push(format!("{n}: {e}"));
                }
                Err(e) => return Err(e.into()),
            }
            continue;
        }
        let op: Operation =
            s.client.post(&path, &PowerRequest { command: command.clone() }).await?;
        let op = wait(s, op).await?;
        match op.state {
            OperationState::Done => {
                let power = op.result.and_then(|r| r.get("power").cloned());
                rows.push(serde_json::json!({ "node": n, "power": power }));
            }
            _ => failed.push(format!("{n}: {}", op.reason.unwrap_or_default())),
        }
    }
    s.out.show(&rows, |rows| {
        let mut t = Table::plain();
        for r in rows {
            let text = |k: &str| r.get(k).and_then(Value::as_str).unwrap_or("?").to_owned();
            t.row(&[text("node"), text("power")]);
        }
        t
    })?;
    if failed.is_empty() { Ok(()) } else { Err(Fail::Operation(failed.join("\n"))) }
}

async fn wait(s: &Session, mut op: Operation) -> Result<Operation, Fail> {
    while !op.state.is_final() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        op = s.client.operation(&op.id).await?;
    }
    Ok(op)
}
