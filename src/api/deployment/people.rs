//! `/v1/users`: people who log in to the registry.

use super::Desk;
use super::book::{PERSON, Person};
use crate::api::problem::{Json, Path};
use crate::api::{Caller, List, Problem, demand};
use crate::auth::Role;
use crate::auth::password::{PasswordHash, SHORTEST};
use crate::auth::rights::Grant;
use crate::model::{NewEvent, Outcome, Secret, Time};
use crate::store::{Batch, Expect};
use axum::Json as Out;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Where, and which rights: `team/:pull,push`; `*` is everywhere.
#[derive(utoipa::ToSchema)]
#[schema(
    as = Grant,
    value_type = String,
    example = "team/:pull,push",
    pattern = r"^([*]|[a-z0-9._-][a-z0-9._/-]{0,254}):(pull|push|delete|promote)(,(pull|push|delete|promote))*$"
)]
#[allow(dead_code, reason = "a schema; the value is a `Grant`")]
struct GrantText(String);

/// Somebody to be known from now on; the same name again changes password and
/// rights.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPerson {
    /// 1 to 32 of a-z, 0-9, `.`, `-`, `_`.
    #[schema(max_length = 32, pattern = "^[a-z0-9._-]+$", example = "ada")]
    pub name: String,
    /// At least 10 characters.
    #[schema(min_length = 10, max_length = 128, example = "correct horse battery")]
    pub password: String,
    /// Such as `team/:pull,push`.
    #[schema(value_type = Vec<GrantText>, max_items = 64)]
    pub grants: Vec<Grant>,
}

/// Somebody as shown: without what is secret.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShownPerson {
    /// Name.
    pub name: String,
    /// Rights.
    #[schema(value_type = Vec<GrantText>)]
    pub grants: Vec<Grant>,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub made: Time,
}

/// People who log in to the registry.
#[utoipa::path(
    get,
    path = "/v1/users",
    tag = "users",
    responses((status = 200, description = "People", body = List<ShownPerson>))
)]
pub(super) async fn list(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
) -> Result<Out<List<ShownPerson>>, Problem> {
    demand(&*desk, &caller, Role::Admin, "listing users").await?;
    let shown = |p: Person| ShownPerson { name: p.name, grants: p.grants, made: p.made };
    Ok(Out(List { items: desk.book.people().into_iter().map(shown).collect() }))
}

/// Adds somebody, or changes password and rights.
#[utoipa::path(
    post,
    path = "/v1/users",
    tag = "users",
    request_body(content = NewPerson, example = json!({
        "name": "ada", "password": "correct horse battery", "grants": ["team/:pull,push"]
    })),
    responses((status = 204, description = "Known from now on"))
)]
pub(super) async fn add(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    Json(n): Json<NewPerson>,
) -> Result<StatusCode, Problem> {
    demand(&*desk, &caller, Role::Admin, "adding a user").await?;
    let password = Secret::new(n.password);
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b".-_".contains(&c);
    if n.name.is_empty() || n.name.len() > 32 || !n.name.bytes().all(plain) {
        return Err(Problem::bad("name: 1 to 32 of a-z, 0-9, '.', '-' and '_'").at("/name"));
    }
    let length = password.expose().chars().count();
    if !(SHORTEST..=128).contains(&length) {
        return Err(Problem::bad(format!("password: {SHORTEST} to 128 characters")).at("/password"));
    }
    if n.grants.len() > 64 {
        return Err(Problem::bad("grants: at most 64").at("/grants"));
    }
    let hashed = tokio::task::spawn_blocking(move || PasswordHash::make(password.expose()));
    let password = hashed.await.map_err(|e| Problem::internal(e.to_string()))??;
    let grants: Vec<String> = n.grants.iter().map(ToString::to_string).collect();
    let event = NewEvent::new(Time::now(), &caller.name, "user.set", Outcome::Ok)
        .with("name", &n.name)
        .with("rights", grants.join(" "));
    let person = Person { name: n.name, password, grants: n.grants, made: Time::now() };
    let batch = Batch::new().put(PERSON, &person.name, &person, Expect::Any)?.event(event);
    desk.book.put_person(person, batch).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes somebody away.
#[utoipa::path(
    delete,
    path = "/v1/users/{name}",
    tag = "users",
    params(("name" = String, Path, description = "Name")),
    responses((status = 204, description = "Gone"))
)]
pub(super) async fn remove(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    demand(&*desk, &caller, Role::Admin, "removing a user").await?;
    if !desk.book.people().iter().any(|p| p.name == name) {
        return Err(Problem::not_found(format!("there is no user named {name:?}")));
    }
    let event = NewEvent::new(Time::now(), &caller.name, "user.remove", Outcome::Ok);
    let batch = Batch::new().delete(PERSON, &name).event(event.with("name", &name));
    desk.book.drop_person(&name, batch).await?;
    Ok(StatusCode::NO_CONTENT)
}
