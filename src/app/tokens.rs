//! API tokens at a server's start.

use crate::auth::{Role, TokenRecord, token};
use crate::model::{Digest, NewEvent, Outcome, Time};
use crate::store::{Batch, Expect, Store, kind};
use crate::tls;
use anyhow::Result;
use std::collections::HashMap;
use std::path::Path;

/// The tokens there are; at the first start one is made for the
/// administrator, in a file that only root reads.
pub async fn load(store: &dyn Store, dir: &Path) -> Result<HashMap<Digest, TokenRecord>> {
    let mut all = HashMap::new();
    for doc in store.list(kind::TOKEN).await? {
        all.insert(doc.key.parse()?, serde_json::from_value(doc.value)?);
    }
    let file = dir.join("admin.token");
    // The local socket is the way back in for root: no second token is made
    // because the file was taken away.
    if !all.values().any(|t: &TokenRecord| t.role == Role::Admin) {
        let (secret, digest) = token::generate()?;
        let record = TokenRecord {
            name: "admin".into(),
            role: Role::Admin,
            made: Time::now(),
            expires: None,
        };
        let made = NewEvent::new(Time::now(), "server", "token.make", Outcome::Ok)
            .with("name", "admin")
            .with("role", Role::Admin);
        let batch =
            Batch::new().put(kind::TOKEN, &digest.to_string(), &record, Expect::Any)?.event(made);
        store.commit(batch).await?;
        tls::write_private(&file, format!("{}\n", secret.expose()).as_bytes())?;
        all.insert(digest, record);
    }
    Ok(all)
}
