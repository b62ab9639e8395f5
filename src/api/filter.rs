//! Lists a page at a time. Each has one order that does not change (nodes by
//! name, what happens newest first), and `next` in an answer is the place where
//! it ends: sent back as `next` it gives what follows. Things that are added
//! or removed in the meantime are neither doubled nor do they hide others.
//!
//! `next` is opaque: its form is ours to change.

use super::Problem;
use crate::lifecycle::Inventory;
use crate::model::NodeName;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Most things in one answer.
pub(super) const MOST: usize = 1000;

/// How many things are wanted in one answer.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "u64")]
pub(super) struct Limit(pub usize);

impl TryFrom<u64> for Limit {
    type Error = &'static str;

    fn try_from(n: u64) -> Result<Self, Self::Error> {
        match usize::try_from(n) {
            Ok(n @ 1..=1_000_000) => Ok(Self(n)),
            _ => Err("a limit is 1 to 1000000"),
        }
    }
}

/// A list, or the part of it that was asked for.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Paged<T> {
    /// The things.
    pub items: Vec<T>,
    /// There is more: send this as `next`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "bm9kZXM6bm9kZTAx")]
    pub next: Option<String>,
}

/// Which part of a list.
pub(super) struct Part {
    list: &'static str,
    limit: usize,
    after: Option<String>,
}

impl Part {
    /// `usual` things when no limit is given.
    pub fn of(
        list: &'static str,
        limit: Option<Limit>,
        next: Option<&str>,
        usual: usize,
    ) -> Result<Self, Problem> {
        let after = next.map(|n| place(list, n)).transpose()?;
        Ok(Self { list, limit: limit.map_or(usual, |l| l.0.min(MOST)), after })
    }

    /// The part of `all`, which are in the list's order; `is_later` tells
    /// whether a key comes after the place where the last answer ended.
    pub fn take<'a, T: Clone + 'a>(
        &self,
        all: impl Iterator<Item = &'a Arc<T>>,
        key: impl Fn(&T) -> &str,
        is_later: impl Fn(&str, &str) -> bool,
    ) -> Paged<T> {
        let wanted = |x: &&Arc<T>| self.after.as_ref().is_none_or(|a| is_later(key(x), a));
        let mut rest = all.filter(wanted);
        let items: Vec<T> = rest.by_ref().take(self.limit).map(|x| (**x).clone()).collect();
        let more = rest.next().is_some();
        let next = items.last().filter(|_| more).map(|x| cursor(self.list, key(x)));
        Paged { items, next }
    }
}

/// The place behind `key`.
pub(super) fn cursor(list: &str, key: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{list}:{key}"))
}

/// The key that a cursor of `list` stands behind.
pub(super) fn place(list: &str, cursor: &str) -> Result<String, Problem> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok().filter(|b| b.len() < 200);
    let text = bytes.and_then(|b| String::from_utf8(b).ok());
    let key = text.as_deref().and_then(|t| t.strip_prefix(list)?.strip_prefix(':'));
    key.map(str::to_owned).ok_or_else(|| {
        let m = "parameter next: this is not what an answer of this list had as `next`";
        // Any text is well formed: only we know which are ours.
        Problem::unfit(m).at("next")
    })
}

/// The node that is meant by `?node=…` of a list kept by node. A node that was
/// removed keeps its record, under its name; one that never was is an error.
pub(super) fn node_of<'a>(
    asked: Option<&str>,
    inventory: &Inventory,
    mut recorded: impl Iterator<Item = &'a NodeName>,
) -> Result<Option<String>, Problem> {
    let Some(asked) = asked else { return Ok(None) };
    if recorded.any(|n| n.as_str() == asked) {
        return Ok(Some(asked.to_owned()));
    }
    let node = inventory.find(asked).map_err(|e| Problem::from(e).at("node"))?;
    Ok(Some(node.spec.name.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Node, NodeSpec};

    #[test]
    fn a_list_is_walked_through_without_a_gap_while_things_come_and_go() {
        let all =
            |names: &[&str]| names.iter().map(|n| Arc::new((*n).to_owned())).collect::<Vec<_>>();
        let part = |limit, next: Option<&str>| Part::of("x", Some(Limit(limit)), next, 50).unwrap();
        let take = |names: &[&str], next: Option<&str>| {
            let all = all(names);
            part(2, next).take(all.iter().rev(), |s| s, |key, last| key < last)
        };
        let first = take(&["a", "b", "d", "e"], None);
        assert_eq!(first.items, ["e", "d"]);
        // One is new, the last one seen is gone.
        let second = take(&["a", "b", "e", "f"], first.next.as_deref());
        assert_eq!(second.items, ["b", "a"]);
        assert_eq!(second.next, None, "there is no more");
        assert!(take(&[], None).next.is_none());
    }

    #[test]
    fn a_cursor_of_another_list_is_refused_and_named() {
        for wrong in [cursor("nodes", "node01"), "***".into(), String::new(), "A".repeat(5000)] {
            let p = Part::of("builds", None, Some(&wrong), 50).err().unwrap();
            assert_eq!((p.status, p.field.as_deref()), (422, Some("next")), "{wrong}");
        }
    }

    #[test]
    fn lists_know_removed_nodes_and_addresses_and_ask_back_at_a_slip() {
        let spec: NodeSpec = serde_json::from_value(serde_json::json!({
            "name": "node01", "macs": ["52:54:00:00:00:01"], "address": "10.1.0.11"
        }))
        .unwrap();
        let mut inventory = Inventory::default();
        inventory.put(Node::new(spec));
        let recorded: Vec<NodeName> = vec!["gone".parse().unwrap()];
        let ask = |node| node_of(node, &inventory, recorded.iter());
        assert_eq!(ask(None).unwrap(), None);
        assert_eq!(ask(Some("node01")).unwrap().as_deref(), Some("node01"));
        assert_eq!(ask(Some("10.1.0.11")).unwrap().as_deref(), Some("node01"));
        assert_eq!(ask(Some("gone")).unwrap().as_deref(), Some("gone"));
        let p = ask(Some("node02")).unwrap_err();
        assert!(p.detail.contains("did you mean node01?"));
        assert_eq!((p.status, p.field.as_deref()), (404, Some("node")));
    }
}
