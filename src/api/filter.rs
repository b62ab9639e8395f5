//! `?node=…&limit=…` of lists that are kept by node, newest first.

use crate::lifecycle::{Inventory, LifeError};
use crate::model::NodeName;
use serde::Deserialize;
use std::sync::Arc;

/// See the module.
#[derive(Debug, Default, Deserialize)]
pub(super) struct OfNode {
    node: Option<String>,
    limit: Option<usize>,
}

impl OfNode {
    /// The newest of `all`, which are in the order in which they began: 50
    /// unless said otherwise, 1000 at most. A node that was removed keeps its
    /// record, under its name; one that never was is an error.
    pub fn newest<'a, T: Clone + 'a>(
        &self,
        inventory: &Inventory,
        all: impl DoubleEndedIterator<Item = &'a Arc<T>> + Clone,
        node_of: impl Fn(&T) -> Option<&NodeName>,
    ) -> Result<Vec<T>, LifeError> {
        let is = |x: &T, name: &str| node_of(x).is_some_and(|n| n.as_str() == name);
        let name = match &self.node {
            None => None,
            Some(n) if all.clone().any(|x| is(x, n)) => Some(n.clone()),
            Some(n) => Some(inventory.find(n)?.spec.name.to_string()),
        };
        let wanted = |x: &&Arc<T>| name.as_ref().is_none_or(|n| is(x, n));
        let limit = self.limit.unwrap_or(50).min(1000);
        Ok(all.rev().filter(wanted).take(limit).map(|x| (**x).clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Node, NodeSpec};

    #[test]
    fn lists_know_removed_nodes_and_addresses_and_ask_back_at_a_slip() {
        let spec: NodeSpec = serde_json::from_value(serde_json::json!({
            "name": "node01", "macs": ["52:54:00:00:00:01"], "address": "10.1.0.11"
        }))
        .unwrap();
        let mut inventory = Inventory::default();
        inventory.put(Node::new(spec));
        type Kept = (u32, Option<NodeName>);
        let kept = |n, node: &str| Arc::new((n, node.parse().ok()));
        let all: Vec<Arc<Kept>> =
            vec![kept(1, "node01"), kept(2, "gone"), kept(3, ""), kept(4, "node01")];
        let ask = |node: Option<&str>, limit| {
            let f = OfNode { node: node.map(str::to_owned), limit };
            let found = f.newest(&inventory, all.iter(), |x| x.1.as_ref());
            found.map(|v| v.iter().map(|x| x.0).collect::<Vec<_>>()).map_err(|e| e.to_string())
        };
        assert_eq!(ask(None, None).unwrap(), [4, 3, 2, 1]);
        assert_eq!(ask(None, Some(2)).unwrap(), [4, 3]);
        assert_eq!(ask(Some("node01"), None).unwrap(), [4, 1]);
        assert_eq!(ask(Some("10.1.0.11"), None).unwrap(), [4, 1]);
        assert_eq!(ask(Some("gone"), None).unwrap(), [2]);
        assert!(ask(Some("node02"), None).unwrap_err().contains("did you mean node01?"));
    }
}
