//! The life of nodes. Only this module changes a node's state; everything
//! else asks it.
pub mod machine;
