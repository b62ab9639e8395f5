//! `/v1/certificates`: nodes' client certificates. The build server asks for
//! one with its own token while a node is installed; the node renews it by
//! showing the old one; it is refused after the node is retired.

use super::book::{Certificate, Revoked, Who};
use super::{ClientCertificate, Desk};
use crate::api::problem::Json;
use crate::api::{Caller, List, Problem, demand};
use crate::auth::Role;
use crate::model::plan::{CertificateRequest, SignedCertificate as Signed};
use crate::model::{NewEvent, NodeName, Outcome, Time};
use crate::store::Batch;
use axum::Json as Out;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A certificate to sign.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignRequest {
    /// For which node.
    pub node: NodeName,
    /// The build that makes the node, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// PKCS #10 request, PEM.
    pub csr: String,
}

/// Certificates to refuse from now on.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// All of this node.
    pub node: NodeName,
    /// Why.
    pub reason: String,
}

/// The authority that clients trust, PEM.
#[utoipa::path(
    get,
    path = "/v1/ca",
    tag = "certificates",
    responses((status = 200, description = "PEM", body = String, content_type = "text/plain")),
    security(())
)]
pub(super) async fn ca(State(desk): State<Arc<Desk>>) -> String {
    desk.authority.pem().to_owned()
}

/// Nodes' certificates.
#[utoipa::path(
    get,
    path = "/v1/certificates",
    tag = "certificates",
    responses((status = 200, description = "Certificates", body = List<Certificate>))
)]
pub(super) async fn list(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
) -> Result<Out<List<Certificate>>, Problem> {
    demand(&*desk, &caller, Role::Read, "listing certificates").await?;
    Ok(Out(List { items: desk.book.certificates() }))
}

/// Signs a node's certificate; older ones of the node are refused from now on.
#[utoipa::path(
    post,
    path = "/v1/certificates",
    tag = "certificates",
    request_body(content = SignRequest),
    responses((status = 201, description = "Signed", body = Signed))
)]
pub(super) async fn sign(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    Json(r): Json<SignRequest>,
) -> Result<(StatusCode, Out<Signed>), Problem> {
    demand(&*desk, &caller, Role::Operate, "signing a certificate").await?;
    let build = r.build.unwrap_or_default().chars().take(64).collect::<String>();
    // A node that is made anew has a new key: what the old disk holds is void.
    let old = ended(&desk, &r.node, "the node was installed anew");
    let signed = issue(&desk, &caller.name, &r.node, &r.csr, old, &build).await?;
    Ok((StatusCode::CREATED, Out(signed)))
}

/// Renews the certificate that the caller shows.
#[utoipa::path(
    post,
    path = "/v1/certificates/renew",
    tag = "certificates",
    request_body(content = CertificateRequest),
    responses((status = 201, description = "Signed", body = Signed))
)]
pub(super) async fn renew(
    State(desk): State<Arc<Desk>>,
    parts: Parts,
    Json(r): Json<CertificateRequest>,
) -> Result<(StatusCode, Out<Signed>), Problem> {
    let shown = parts.extensions.get::<ClientCertificate>();
    if !matches!(shown, Some(ClientCertificate(Some(_)))) {
        let m = "a certificate is renewed by showing the one to be renewed; none was shown";
        return Err(Problem::new(StatusCode::UNAUTHORIZED, m));
    }
    let refused = |why: String| Problem::new(StatusCode::FORBIDDEN, why);
    match desk.book.who(&parts).await.map_err(refused)? {
        Who::Node(node) => {
            let actor = format!("node:{node}");
            // The old one stays good until its end: the answer may be lost.
            let signed = issue(&desk, &actor, &node, &r.csr, Vec::new(), "").await?;
            Ok((StatusCode::CREATED, Out(signed)))
        }
        _ => Err(Problem::new(StatusCode::FORBIDDEN, "only a node renews its certificate")),
    }
}

/// Refuses all certificates of a node.
#[utoipa::path(
    post,
    path = "/v1/certificates/revoke",
    tag = "certificates",
    request_body(content = RevokeRequest),
    responses((status = 204, description = "Refused from now on"))
)]
pub(super) async fn revoke(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
    Json(r): Json<RevokeRequest>,
) -> Result<StatusCode, Problem> {
    demand(&*desk, &caller, Role::Operate, "revoking certificates").await?;
    let reason: String = r.reason.chars().filter(|c| !c.is_control()).take(200).collect();
    let changed = ended(&desk, &r.node, &reason);
    let event = NewEvent::new(Time::now(), &caller.name, "certificate.revoke", Outcome::Ok)
        .node(&r.node)
        .with("reason", reason)
        .with("certificates", changed.len());
    desk.book.put_certificates(changed, Batch::new().event(event)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The certificates of `node` that are still good, as refused from now on.
fn ended(desk: &Desk, node: &NodeName, reason: &str) -> Vec<Certificate> {
    let now = Time::now();
    let good = |c: &Certificate| &c.node == node && c.revoked.is_none() && c.expires > now;
    let mut all: Vec<Certificate> = desk.book.certificates();
    all.retain(good);
    for c in &mut all {
        c.revoked = Some(Revoked { at: now, reason: reason.to_owned() });
    }
    all
}

async fn issue(
    desk: &Desk,
    actor: &str,
    node: &NodeName,
    csr: &str,
    mut changed: Vec<Certificate>,
    build: &str,
) -> Result<Signed, Problem> {
    let made = desk
        .authority
        .sign_node(csr, node.as_str(), desk.certificate_life)
        .map_err(|e| Problem::unfit(format!("csr: {e}")).at("/csr"))?;
    let mut event = NewEvent::new(Time::now(), actor, "certificate.sign", Outcome::Ok)
        .node(node)
        .with("serial", &made.serial)
        .with("expires", made.expires);
    if !build.is_empty() {
        event = event.with("build", build);
    }
    changed.push(Certificate {
        node: node.clone(),
        serial: made.serial,
        issued: Time::now(),
        expires: made.expires,
        revoked: None,
    });
    // Written down before it is given away: none is out that we do not know.
    desk.book.put_certificates(changed, Batch::new().event(event)).await?;
    Ok(Signed { certificate: made.pem, ca: desk.authority.pem().to_owned(), expires: made.expires })
}
