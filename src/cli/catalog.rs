//! `provision catalog`.

use super::output::{Table, bytes, segment};
use super::{Fail, Session};
use crate::api::deployment::catalog::{Catalog, ShownImage};

/// `provision catalog`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  provision catalog
  provision catalog staging/
  provision --output json catalog team/app")]
pub struct CatalogArgs {
    /// Only repositories that begin so
    #[arg(default_value = "")]
    prefix: String,
}

pub(super) async fn run(s: &Session, a: CatalogArgs) -> Result<(), Fail> {
    let mut all: Vec<ShownImage> = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let mut path = format!("/v1/registry/catalog?prefix={}", segment(&a.prefix));
        if let Some(a) = &after {
            path.push_str(&format!("&after={}", segment(a)));
        }
        let page: Catalog = s.client.get(&path).await?;
        all.extend(page.items);
        match page.next {
            Some(n) if Some(&n) != after.as_ref() => after = Some(n),
            _ => break,
        }
    }
    s.out.show(&all, |all| {
        let mut t =
            Table::new(&["repository", "tag", "digest", "size", "pushed", "by", "attested"]);
        for i in all {
            t.row(&[
                i.repository.clone(),
                i.tag.clone(),
                i.digest.chars().take(19).collect(),
                bytes(i.bytes),
                format!("{:.19}", i.pushed.to_string()),
                i.by.clone().unwrap_or_else(|| "-".into()),
                if i.attested { "yes" } else { "no" }.into(),
            ]);
        }
        t
    })
}
