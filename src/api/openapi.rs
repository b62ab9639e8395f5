//! What the OpenAPI documents of both servers share. Each handler says beside
//! itself what it takes and gives (`#[utoipa::path]`), each type derives its
//! schema, and each server lists its handlers in one place; here comes what is
//! true of all: how to log in, how errors look, what an operation is called.

use super::Problem;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, PartialSchema as _, ToSchema as _};

/// Completes a server's document.
pub struct Common;

impl Modify for Common {
    fn modify(&self, doc: &mut OpenApi) {
        let parts = doc.components.get_or_insert_default();
        parts.schemas.insert(Problem::name().into_owned(), Problem::schema());
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An API token: `provision tokens add`"))
            .build();
        parts.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        parts.add_security_scheme(
            "certificate",
            SecurityScheme::MutualTls {
                description: Some("A node's client certificate".into()),
                deprecated: None,
                extensions: None,
            },
        );
        let problem = ResponseBuilder::new()
            .description("What is wrong, and what would be right (RFC 9457)")
            .content(
                "application/problem+json",
                Content::new(Some(Ref::from_schema_name(Problem::name()))),
            )
            .build();
        parts.responses.insert("Problem".into(), problem.into());
        for (path, item) in &mut doc.paths.paths {
            for (method, operation) in operations(item) {
                operation.operation_id = Some(id(method, path));
                let all = &mut operation.responses.responses;
                all.insert("default".into(), RefOr::Ref(Ref::from_response_name("Problem")));
            }
        }
    }
}

/// Each operation of a path with its method.
pub fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    [
        ("get", item.get.as_mut()),
        ("post", item.post.as_mut()),
        ("put", item.put.as_mut()),
        ("patch", item.patch.as_mut()),
        ("delete", item.delete.as_mut()),
    ]
    .into_iter()
    .filter_map(|(method, o)| Some((method, o?)))
}

/// `getV1IngestIdLog`: one for each, and the same for ever.
fn id(method: &str, path: &str) -> String {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
    words.fold(method.to_owned(), |mut all, w| {
        let (first, rest) = w.split_at(1);
        all.push_str(&first.to_ascii_uppercase());
        all.push_str(rest);
        all
    })
}
