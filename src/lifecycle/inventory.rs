//! The nodes, in memory.

use super::LifeError;
use crate::config::nodes::Taken;
use crate::model::{Mac, Node, NodeName};
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// All nodes, by name, MAC and address.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    nodes: BTreeMap<NodeName, Arc<Node>>,
    macs: HashMap<Mac, NodeName>,
    addresses: HashMap<Ipv4Addr, NodeName>,
}

impl Inventory {
    /// Puts a node in the place of the one with its name.
    pub fn put(&mut self, node: Node) {
        self.remove(&node.spec.name);
        for m in &node.spec.macs {
            self.macs.insert(*m, node.spec.name.clone());
        }
        self.addresses.insert(node.spec.address, node.spec.name.clone());
        self.nodes.insert(node.spec.name.clone(), Arc::new(node));
    }

    /// Takes a node out.
    pub fn remove(&mut self, name: &NodeName) {
        if let Some(old) = self.nodes.remove(name) {
            for m in &old.spec.macs {
                self.macs.remove(m);
            }
            self.addresses.remove(&old.spec.address);
        }
    }

    /// By name.
    pub fn get(&self, name: &NodeName) -> Option<&Arc<Node>> {
        self.nodes.get(name)
    }

    /// By MAC.
    pub fn by_mac(&self, mac: Mac) -> Option<&Arc<Node>> {
        self.nodes.get(self.macs.get(&mac)?)
    }

    /// By address.
    pub fn by_address(&self, address: Ipv4Addr) -> Option<&Arc<Node>> {
        self.nodes.get(self.addresses.get(&address)?)
    }

    /// By what a person types: a name or an address.
    pub fn find(&self, text: &str) -> Result<&Arc<Node>, LifeError> {
        let found = match text.parse::<Ipv4Addr>() {
            Ok(a) => self.by_address(a),
            Err(_) => text.parse().ok().and_then(|n| self.get(&n)),
        };
        found.ok_or_else(|| LifeError::UnknownNode {
            name: text.chars().take(80).collect(),
            near: crate::config::nearest(text, self.nodes.keys().map(NodeName::as_str))
                .map(str::to_owned),
        })
    }

    /// All, by name.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Names, MACs and addresses in use, `except` left out.
    pub fn taken(&self, except: Option<&NodeName>) -> Taken {
        let mut t = Taken::default();
        self.nodes.values().filter(|n| Some(&n.spec.name) != except).for_each(|n| t.add(&n.spec));
        t
    }
}
