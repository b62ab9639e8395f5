//! What the OpenAPI documents of both servers share. Each handler says beside
//! itself what it takes and gives (`#[utoipa::path]`), each type derives its
//! schema, and each server lists its handlers in one place (`build` here,
//! `deployment::openapi` there); here comes what is true of all: how to log
//! in, how errors look, what an operation is called.
//!
//! `examples` gives each call an example of what is sent and answered, put
//! together from the schemas; `page` shows a document to people.

pub mod build;
pub mod examples;
pub mod page;

use super::Problem;
use utoipa::openapi::path::{Operation, Parameter, ParameterIn, PathItem};
use utoipa::openapi::schema::{Schema, SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
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
                complete(operation);
            }
        }
    }
}

/// Adds the refusals that follow from what an operation takes.
fn complete(o: &mut Operation) {
    let nobody = [SecurityRequirement::default()];
    let open = o.security.as_deref().is_some_and(|s| s == nobody);
    let parameters = o.parameters.as_deref_mut().unwrap_or_default();
    let is = |p: &RefOr<Parameter>, place: &ParameterIn| matches!(p, RefOr::T(p) if p.parameter_in == *place);
    let in_path = parameters.iter().any(|p| is(p, &ParameterIn::Path));
    for p in parameters.iter_mut().filter(|p| is(p, &ParameterIn::Query)) {
        let RefOr::T(p) = p else { continue };
        // Left out is not null: a query has no null.
        if let Some(RefOr::T(s)) = &mut p.schema {
            without_null(s);
        }
    }
    let asks = !parameters.is_empty();
    let sends = o.request_body.is_some();
    let given = [
        ("400", asks || sends),
        ("401", !open),
        ("403", !open),
        ("404", in_path),
        ("409", sends),
        ("413", sends),
        ("415", sends),
        ("422", sends),
        ("default", true),
    ];
    for (status, _) in given.into_iter().filter(|(_, is)| *is) {
        let all = &mut o.responses.responses;
        let refusal = || RefOr::Ref(Ref::from_response_name("Problem"));
        all.entry(status.to_owned()).or_insert_with(refusal);
    }
}

fn without_null(s: &mut Schema) {
    match s {
        Schema::Object(o) => {
            if let SchemaType::Array(all) = &mut o.schema_type {
                all.retain(|t| *t != Type::Null);
                if let [one] = all.as_slice() {
                    o.schema_type = SchemaType::Type(one.clone());
                }
            }
        }
        Schema::OneOf(o) => {
            let is_null = |i: &RefOr<Schema>| matches!(i, RefOr::T(Schema::Object(x)) if x.schema_type == SchemaType::Type(Type::Null));
            o.items.retain(|i| !is_null(i));
        }
        _ => {}
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

/// The finished document, as JSON.
pub fn text(doc: &OpenApi) -> String {
    let mut doc = serde_json::to_value(doc).unwrap_or_default();
    examples::fill(&mut doc);
    doc.to_string()
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

/// What must hold of both documents.
#[cfg(test)]
pub(crate) mod checks {
    use serde_json::Value;
    use std::collections::BTreeSet;

    /// Methods and paths of a document.
    pub fn described(json: &str) -> BTreeSet<(String, String)> {
        let doc: Value = serde_json::from_str(json).unwrap();
        let mut all = BTreeSet::new();
        for (path, item) in doc["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                all.insert((method.clone(), path.clone()));
            }
        }
        all
    }

    /// What `pub fn router` says, read from the text of its file: axum does
    /// not tell.
    pub fn routed(text: &str) -> BTreeSet<(String, String)> {
        let text = text.split("pub fn router").nth(1).unwrap();
        let text = text.split(".fallback").next().unwrap();
        let mut all = BTreeSet::new();
        for one in text.split(".route(").skip(1) {
            let path = one.split('"').nth(1).unwrap().replace("{*", "{");
            for method in ["get", "post", "put", "patch", "delete"] {
                if one.contains(&format!("{method}(")) {
                    all.insert((method.to_owned(), path.clone()));
                }
            }
        }
        all
    }

    /// Fails where routes and document differ, but for `apart`.
    pub fn same(json: &str, router: &str, apart: &[&str]) {
        let (described, routed) = (described(json), routed(router));
        assert!(routed.len() > 30, "{routed:?}");
        let missing: Vec<_> = routed.difference(&described).collect();
        assert!(missing.is_empty(), "add these to `paths` of the document: {missing:?}");
        let extra: Vec<_> =
            described.difference(&routed).filter(|(_, p)| !apart.contains(&p.as_str())).collect();
        assert!(extra.is_empty(), "no route serves these: {extra:?}");
    }

    /// Fails where a reference leads nowhere, or an operation lacks something.
    pub fn sound(json: &str) {
        let doc: Value = serde_json::from_str(json).unwrap();
        assert_eq!(doc["openapi"], "3.1.0");
        let (mut todo, mut refs) = (vec![&doc], BTreeSet::new());
        while let Some(v) = todo.pop() {
            match v {
                Value::Object(o) => {
                    refs.extend(o.get("$ref").and_then(Value::as_str));
                    todo.extend(o.values());
                }
                Value::Array(a) => todo.extend(a),
                _ => {}
            }
        }
        assert!(refs.len() > 20);
        for r in refs {
            assert!(doc.pointer(r.trim_start_matches('#')).is_some(), "{r} leads nowhere");
        }
        let mut names = BTreeSet::new();
        for item in doc["paths"].as_object().unwrap().values() {
            for o in item.as_object().unwrap().values() {
                assert!(names.insert(o["operationId"].as_str().unwrap()), "{o}");
                assert!(o["summary"].is_string(), "{o}");
                assert!(o["responses"]["default"]["$ref"].is_string(), "{o}");
                let sent = o.pointer("/requestBody/content/application~1json");
                assert!(sent.is_none_or(|b| b.get("example").is_some()), "no example: {o}");
                for (status, r) in o["responses"].as_object().unwrap() {
                    let json = r.pointer("/content/application~1json");
                    let none = json.is_some_and(|j| j.get("example").is_none());
                    assert!(!none, "no example of {status}: {o}");
                }
            }
        }
    }
}
